//! `cardcage tasks cancel ID`: cancels one task through the broker, whether or not any host runs.
//!
//! Invariants: it does what `POST /tasks/{id}/cancel` does. Exit code 0 says that the task has ended `cancelled`, or
//! that its worker knows; 1 that there is no such task or that it has ended; 69 that the broker cannot be asked.

use cardcage_protocol::TaskId;
use serde_json::json;
use uuid::Uuid;

use super::output;
use super::session::{connect, settings, unknown_task};
use crate::broker::{Error, Options};
use crate::cancel::{self, Cancellation};
use crate::cli::Configuration;
use crate::exit::Exit;

/// Cancels one task.
pub async fn run(id: Uuid, json: bool, configuration: Configuration) -> Exit {
    let settings = match settings(configuration) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    // An id of another kind of UUID was never given to a task.
    let Ok(task) = id.to_string().parse::<TaskId>() else { return unknown_task(id, &settings) };
    let cancelled = match crate::role::broker_options(&settings, "cardcage tasks cancel") {
        Ok(options) => cancelled(options, task).await,
        Err(error) => Err(Error::Settings(error.to_string())),
    };
    let (state, text) = match cancelled {
        Ok(Cancellation::Unknown) => return unknown_task(id, &settings),
        Ok(Cancellation::Ended(state)) => {
            output::trouble(&format!("task {id} has ended {state}; see `cardcage tasks show {id}`"));
            return Exit::Unexpected;
        }
        Ok(Cancellation::Done) => ("cancelled", format!("task {id} is cancelled")),
        Ok(Cancellation::Requested) => (
            "running",
            format!(
                "task {id} is still running: its handler was told, and is dropped when its grace is over"
            ),
        ),
        Err(error) => {
            output::trouble(&output::shown(&format!(
                "task {id} cannot be cancelled for certain: {error}; start nats-server, or correct `broker.url`, and \
                 try again"
            )));
            return Exit::Unavailable;
        }
    };
    if json {
        output::json(&json!({ "id": id, "state": state, "cancel_requested": true }));
    } else {
        output::result(&text);
    }
    Exit::Success
}

async fn cancelled(options: Options, task: TaskId) -> Result<Cancellation, Error> {
    let broker = connect(options).await?;
    // Where the streams were never created, nothing was ever accepted.
    match cancel::cancel(&broker, task, cancel::HANDLER_WAIT).await {
        Err(Error::NoResponders { .. }) => Ok(Cancellation::Unknown),
        other => other,
    }
}
