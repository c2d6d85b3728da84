//! The tasks of one bench: what a host would keep of them in the broker.
//!
//! Invariant: a task that has ended changes no more.

use super::clock::rfc3339;
use crate::Failure;
use plugin_api::CancellationToken;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::SystemTime;
use uuid::Uuid;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Scheduled,
    Running,
    Retrying,
    Parked,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// Whether it starts by itself once its time has come.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Queued | Self::Scheduled | Self::Retrying)
    }
}

/// A task to be taken.
#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) id: Uuid,
    pub(super) task: String,
    /// Another plugin, whose tasks nobody runs here.
    pub(super) plugin: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) key: Option<String>,
    pub(super) due: SystemTime,
    pub(super) parent: Option<Uuid>,
    /// Ends the first attempt at its n-th await.
    pub(super) cut: Option<u32>,
}

/// A task that was taken.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) new: New,
    pub(super) state: State,
    pub(super) enqueued_at: SystemTime,
    pub(super) due: SystemTime,
    /// Attempts so far, and those of them that count towards the most that there may be.
    pub(super) attempt: u32,
    pub(super) counted: u32,
    pub(super) attempts: Vec<Value>,
    pub(super) result: Value,
    pub(super) error: Option<Failure>,
    pub(super) once: HashMap<String, Value>,
    pub(super) staged: Vec<New>,
    pub(super) cancellation: Option<CancellationToken>,
    pub(super) cancel_requested: bool,
}

impl Entry {
    pub(super) fn new(new: New, now: SystemTime) -> Self {
        let due = new.due;
        Self {
            new,
            state: if due > now { State::Scheduled } else { State::Queued },
            enqueued_at: now,
            due,
            attempt: 0,
            counted: 0,
            attempts: Vec::new(),
            result: Value::Null,
            error: None,
            once: HashMap::new(),
            staged: Vec::new(),
            cancellation: None,
            cancel_requested: false,
        }
    }

    /// What `GET /tasks/{id}` says.
    pub(super) fn view(&self, plugin: &str) -> Value {
        let error = self.error.as_ref().map(error_json);
        let mut view = json!({
            "id": self.new.id,
            "plugin": self.new.plugin.as_deref().unwrap_or(plugin),
            "task": self.new.task,
            // Its time has come, and its handler is about to start.
            "state": if self.state == State::Running && self.cancellation.is_none() {
                State::Queued.as_str()
            } else {
                self.state.as_str()
            },
            "attempt": self.attempt,
            "attempts": self.attempts,
            "enqueued_at": rfc3339(self.enqueued_at),
            "parent_id": self.new.parent,
            "next_at": self.state.waits().then(|| rfc3339(self.due)),
            "error": error,
        });
        if let Some(view) = view.as_object_mut() {
            view.retain(|_, value| !value.is_null());
            if self.state == State::Succeeded {
                view.insert("result".into(), self.result.clone());
            }
        }
        view
    }

    /// The body of the task that is run when this one is given up.
    pub(super) fn exhausted(&self, plugin: &str) -> Value {
        let error = self.error.clone().unwrap_or_default();
        json!({
            "id": self.new.id,
            "plugin": plugin,
            "task": self.new.task,
            "body": serde_json::from_slice::<Value>(&self.new.body).unwrap_or_default(),
            "reason": error.message,
            "code": error.code,
            "attempts": self.attempt,
            "enqueued_at": rfc3339(self.enqueued_at),
        })
    }
}

pub(super) fn error_json(error: &Failure) -> Value {
    json!({ "code": error.code, "message": error.message, "details": error.details })
}

/// What a batch was enqueued with: each task's name and body.
pub(super) type Said = Vec<(String, Vec<u8>)>;

/// All tasks.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tasks: HashMap<Uuid, Entry>,
    /// Idempotency keys, with the body that they were used for.
    pub(super) keys: HashMap<String, (Uuid, Vec<u8>)>,
    /// The same for tasks that were enqueued together, with all names and bodies.
    pub(super) batches: HashMap<String, (Vec<Uuid>, Said)>,
}

impl Ledger {
    /// The waiting task that is due first.
    pub(super) fn next(&self) -> Option<(SystemTime, Uuid)> {
        let waiting = self.tasks.values().filter(|task| task.state.waits() && task.new.plugin.is_none());
        waiting.map(|task| (task.due, task.new.id)).min()
    }
}
