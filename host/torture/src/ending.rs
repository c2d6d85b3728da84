//! How a task ended, as its record tells it.

use cardcage_protocol::{Cause, State, TaskId, TaskRecord, Timestamp};
use serde_json::Value;

/// A final record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    pub(crate) id: TaskId,
    pub(crate) state: State,
    pub(crate) result: Option<Value>,
    /// The error's code and message; empty without one.
    pub(crate) why: String,
    pub(crate) key: Option<String>,
    pub(crate) attempts: Vec<Try>,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) finished_at: Option<Timestamp>,
}

/// An attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    pub(crate) n: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) has_succeeded: bool,
    /// The handler itself said that it did not.
    pub(crate) has_failed: bool,
}

impl Ending {
    /// Reads a record; `None` if the task has not ended.
    pub(crate) fn of(record: &TaskRecord) -> Option<Self> {
        let attempt = |attempt: &cardcage_protocol::Attempt| Try {
            n: attempt.n,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            has_succeeded: attempt.cause == Some(Cause::Succeeded),
            has_failed: matches!(attempt.cause, Some(Cause::Error | Cause::RetryRequested)),
        };
        record.state.is_final().then(|| Self {
            id: record.id,
            state: record.state,
            result: record.result.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()),
            why: record.error.as_ref().map(|e| format!("{}: {}", e.code, e.message)).unwrap_or_default(),
            key: record.idempotency_key.clone(),
            attempts: record.attempts.iter().map(attempt).collect(),
            enqueued_at: record.enqueued_at,
            finished_at: record.finished_at,
        })
    }

    /// The note that came back with the result.
    pub(crate) fn note(&self) -> Option<&str> {
        self.result.as_ref()?.get("note")?.as_str()
    }

    /// Whether both tell the same end. Who and when is part of it: two workers that both record a success are two ends.
    pub(crate) fn is_same_end(&self, other: &Self) -> bool {
        (self.state, self.finished_at, &self.result) == (other.state, other.finished_at, &other.result)
    }
}
