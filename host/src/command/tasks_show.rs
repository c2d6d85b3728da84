//! `cardcage tasks show ID`: one task as the broker knows it, whether or not any host runs.
//!
//! Invariants: it reads and changes nothing. What is shown is what `GET /tasks/{id}` answers; `--json` is the same
//! bytes. An id that no task has is said in a sentence and ends with exit code 1; a broker that cannot be asked ends
//! with 69, because then nothing is known.

use std::fmt::Write as _;

use cardcage_protocol::TaskId;
use serde_json::Value;
use uuid::Uuid;

use super::output;
use super::session::{connect, settings, unknown_task};
use crate::broker::{Error, Options};
use crate::cli::Configuration;
use crate::exit::Exit;
use crate::lookup;

/// Of a longer error people see the beginning.
const ERROR_SHOWN_CHARS: usize = 1_000;
/// A result that is longer as text is shown in part; `--json` has all of it.
const RESULT_SHOWN_CHARS: usize = 4_000;

/// Shows one task.
pub async fn run(id: Uuid, json: bool, configuration: Configuration) -> Exit {
    let settings = match settings(configuration) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    // An id of another kind of UUID was never given to a task.
    let Ok(task) = id.to_string().parse::<TaskId>() else { return unknown_task(id, &settings) };
    let found = match crate::role::broker_options(&settings, "cardcage tasks show") {
        Ok(options) => find(options, task).await,
        Err(error) => Err(Error::Settings(error.to_string())),
    };
    match found {
        Ok(Some(view)) if json => output::json(&view),
        Ok(Some(view)) => output::result(&text(&view)),
        Ok(None) => return unknown_task(id, &settings),
        Err(error) => {
            output::trouble(&output::shown(&format!(
                "task {id} cannot be looked up: {error}; start nats-server, or correct `broker.url`"
            )));
            return Exit::Unavailable;
        }
    }
    Exit::Success
}

async fn find(options: Options, task: TaskId) -> Result<Option<Value>, Error> {
    let broker = connect(options).await?;
    // Where the streams were never created, nothing was ever accepted.
    match lookup::show(&broker, task).await {
        Err(Error::NoResponders { .. }) => Ok(None),
        other => other,
    }
}

fn text(view: &Value) -> String {
    let mut table = output::table();
    let rows = [
        ("task", "id"),
        ("plugin", "plugin"),
        ("version", "version"),
        ("name", "task"),
        ("state", "state"),
        ("parent", "parent_id"),
        ("enqueued at", "enqueued_at"),
        ("next attempt at", "next_at"),
        ("finished at", "finished_at"),
    ];
    for (shown, member) in rows {
        if let Some(value) = plain(view.get(member)) {
            table.add_row([shown.to_owned(), value]);
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    if let Some(attempts) =
        view.get("attempts").and_then(Value::as_array).filter(|attempts| !attempts.is_empty())
    {
        let _ = write!(text, "\n{}\n", attempts_table(attempts));
    }
    if let Some(error) = view.get("error") {
        let _ = write!(text, "\n error: {}\n", error_of(error));
    }
    if let Some(result) = view.get("result") {
        let _ = write!(text, "\n result:\n{}\n", result_of(result));
    }
    text
}

pub(super) fn attempts_table(attempts: &[Value]) -> String {
    let mut table = output::table();
    table.set_header(["attempt", "started at", "ended at", "ended by", "worker", "error"]);
    for attempt in attempts {
        let cell = |member: &str| plain(attempt.get(member)).unwrap_or_else(|| "-".to_owned());
        let error = attempt.get("error").map_or_else(|| "-".to_owned(), error_of);
        table.add_row([
            cell("n"),
            cell("started_at"),
            cell("ended_at"),
            cell("cause"),
            cell("worker"),
            error,
        ]);
    }
    table.trim_fmt()
}

fn error_of(error: &Value) -> String {
    let member = |name: &str| plain(error.get(name)).unwrap_or_default();
    let (full, code) = (member("message"), member("code"));
    let mut shown: String = full.chars().take(ERROR_SHOWN_CHARS).collect();
    if shown.len() < full.len() {
        shown.push_str("… (cut; --json shows all of it)");
    }
    format!("{shown} ({code})")
}

fn result_of(result: &Value) -> String {
    let full = serde_json::to_string_pretty(result).unwrap_or_default();
    let mut shown: String = full.chars().take(RESULT_SHOWN_CHARS).collect();
    if shown.len() < full.len() {
        shown.push_str("…\n(cut; --json shows all of it)");
    }
    // JSON text holds no control characters but line ends; those of C1 are not escaped in it.
    shown.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

/// A string or number as text; `None` for what is absent.
fn plain(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(output::shown(text)),
        other => Some(output::shown(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_task_shows_its_attempts_and_the_last_error() {
        let view = json!({
            "id": "019283a4-5b6c-7d8e-9f01-23456789abcd", "plugin": "orders", "task": "fulfil", "version": "1.2.0",
            "state": "failed", "enqueued_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:00:09.000Z",
            "attempts": [
                {"n": 1, "worker": "worker-a", "started_at": "2026-01-01T00:00:01.000Z", "cause": "panic"},
                {"n": 2, "worker": "worker-b", "started_at": "2026-01-01T00:00:05.000Z", "cause": "error",
                 "error": {"code": "lms_down", "message": "no \u{1b}[31manswer"}},
            ],
            "error": {"code": "lms_down", "message": "no answer"},
        });
        let text = text(&view);
        for word in
            ["orders", "fulfil", "failed", "worker-a", "panic", "worker-b", "error: no answer (lms_down)"]
        {
            assert!(text.contains(word), "{word} is in {text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("next attempt"), "{text}");
    }
}
