//! `cardcage tasks retry ID`: tries a task again now.
//!
//! A task that waits for its time becomes due where it stands; one that failed is replayed from its dead letter;
//! one that is parked is put back into its queue, to be tried by whatever version takes it. Any other is where it should be, and the sentence says where.

use cardcage_protocol::{State, TaskId};
use serde_json::{Value, json};

use super::output;
use super::session::{Session, broker_trouble, told, unknown_task};
use crate::broker::{Error, Place, replay_id};
use crate::cli::OneTaskArgs;
use crate::exit::Exit;
use crate::unpark::{Unparked, unpark};

/// Tries it again.
pub async fn run(args: OneTaskArgs) -> Exit {
    let session = match Session::open(args.configuration, "tasks retry").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    match retry(&session, args.id).await {
        Ok((receipt, _)) if args.json => output::json(&receipt),
        Ok((_, sentence)) => output::result(&sentence),
        Err(exit) => return exit,
    }
    Exit::Success
}

async fn retry(session: &Session, id: TaskId) -> Result<(Value, String), Exit> {
    let trouble = |error: Error| broker_trouble(&format!("task {id} cannot be tried again"), &error);
    let refused = |why: &str| told(Exit::Unexpected, &format!("task {id} is not tried again: {why}"));
    let found = match session.broker.find_task(id).await {
        Err(Error::NoResponders { .. }) => None,
        other => other.map_err(trouble)?,
    };
    match found {
        // A letter outlives its task's record.
        None => replay(session, id, || unknown_task(id, &session.settings)).await,
        Some(Place::Recorded(record, _)) if record.state == State::Failed => {
            replay(session, id, || {
                let again = replay_id(id);
                refused(&format!(
                    "it has no dead letter any more, which was replayed (as {again}) or purged; `cardcage tasks why {id}` \
                     says which"
                ))
            })
            .await
        }
        Some(Place::Recorded(record, _)) if record.state.is_final() => {
            Err(refused(&format!("it ended {}", record.state)))
        }
        Some(Place::Parked(_)) => bring_back(session, id).await,
        Some(Place::Recorded(record, _)) if record.state == State::Parked => bring_back(session, id).await,
        Some(_) => match session.broker.make_due(id).await.map_err(trouble)? {
            true => {
                let receipt = json!({ "id": id, "task": id, "what": "made_due" });
                Ok((receipt, format!("{id} is due now; `cardcage tasks show {id}` follows it")))
            }
            false => Err(refused(&format!(
                "it does not wait for its time; `cardcage tasks why {id}` says what it waits for"
            ))),
        },
    }
}

/// Puts a parked task back into its queue, whatever it is thought that versions can read.
async fn bring_back(session: &Session, id: TaskId) -> Result<(Value, String), Exit> {
    let trouble = |error: Error| broker_trouble(&format!("task {id} cannot be brought back"), &error);
    let found = session.broker.find_parked(id).await.map_err(trouble)?;
    let moved = match &found {
        Some(task) => unpark(&session.broker, task).await.map_err(trouble)?,
        None => Unparked::Busy,
    };
    match moved {
        Unparked::Queued => {
            let receipt = json!({ "id": id, "task": id, "what": "unparked" });
            Ok((receipt, format!("{id} is in its queue again; `cardcage tasks why {id}` follows it")))
        }
        Unparked::Gone | Unparked::Busy => {
            Err(told(Exit::Unexpected, &format!("task {id} is on the move between two places; ask again")))
        }
    }
}

async fn replay(
    session: &Session,
    id: TaskId,
    missing: impl FnOnce() -> Exit,
) -> Result<(Value, String), Exit> {
    let trouble = |error: Error| broker_trouble(&format!("task {id} cannot be replayed"), &error);
    let Some(letter) = session.broker.find_letter(id).await.map_err(trouble)? else { return Err(missing()) };
    let replayed = session.broker.replay_letter(&letter, session.publish_timeout()).await.map_err(trouble)?;
    let task = replayed.id;
    let receipt = json!({ "id": id, "task": task, "what": "replayed" });
    Ok((receipt, format!("{id} is replayed as {task}; `cardcage tasks show {task}` follows it")))
}
