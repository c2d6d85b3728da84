//! What a task is told that is run because another one ended as a dead letter: the body of an exhausted hook.
//!
//! The dead task's record keeps all of it but the author's body, which whoever publishes the hook has in the message: a
//! body may be larger than a record has room for.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::TaskId;
use crate::limits;
use crate::name::Name;
use crate::record::{TaskRecord, cut};
use crate::timestamp::Timestamp;

/// The body of an exhausted hook's task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exhausted {
    /// The task that was given up.
    pub id: TaskId,
    /// Its plugin.
    pub plugin: Name,
    /// Its name.
    pub task: Name,
    /// The author's JSON; `None` where it is none, or too large to travel inside another body.
    #[serde(default)]
    pub body: Option<Box<RawValue>>,
    /// Why it was given up, as its dead letter says.
    pub reason: String,
    /// The code of the error that ended it.
    pub code: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
}

impl Exhausted {
    /// What there is to tell of a failed task, without its body.
    #[must_use]
    pub fn of(record: &TaskRecord, reason: &str) -> Self {
        let listed = u32::try_from(record.attempts.len()).unwrap_or(u32::MAX);
        Self {
            id: record.id,
            plugin: record.plugin.clone(),
            task: record.task.clone(),
            body: None,
            reason: cut(reason, limits::ERROR_MAX_BYTES).into_owned(),
            code: record.error.as_ref().map_or_else(|| "unknown".to_owned(), |error| error.code.clone()),
            attempts: listed.saturating_add(record.attempts_omitted),
            enqueued_at: record.enqueued_at,
        }
    }

    /// The id of the hook's task, which is the same whoever publishes it. No child of a success has this number.
    #[must_use]
    pub fn id_of(dead: TaskId) -> TaskId {
        TaskId::derive(dead, u32::MAX)
    }

    /// The JSON with the dead task's body in it, where that is JSON and fits.
    ///
    /// # Errors
    /// Only when a value cannot be written as JSON, which these types do not hold.
    pub fn encode_with(mut self, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        self.body = serde_json::from_slice::<&RawValue>(body).ok().map(RawValue::to_owned);
        let json = serde_json::to_vec(&self)?;
        if json.len() <= limits::TASK_BODY_MAX_BYTES {
            return Ok(json);
        }
        self.body = None;
        serde_json::to_vec(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn encoded(body: &[u8]) -> Value {
        let report: Exhausted = serde_json::from_value(json!({
            "id": "01890a5d-ac96-774b-bcce-b302099a8057", "plugin": "orders", "task": "fulfil",
            "reason": "no stock", "code": "failed", "attempts": 3, "enqueued_at": "2026-01-01T00:00:00.000Z",
        }))
        .unwrap();
        let json = report.encode_with(body).unwrap();
        assert!(json.len() <= limits::TASK_BODY_MAX_BYTES);
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn body_is_null_where_it_is_no_json_or_does_not_fit() {
        assert_eq!(encoded(br#"{"n":1}"#)["body"], json!({ "n": 1 }));
        assert_eq!(encoded(b"\xff rubbish")["body"], Value::Null);
        let largest = format!("\"{}\"", "x".repeat(limits::TASK_BODY_MAX_BYTES - 2));
        let report = encoded(largest.as_bytes());
        assert_eq!((&report["body"], &report["reason"]), (&Value::Null, &json!("no stock")));
    }
}
