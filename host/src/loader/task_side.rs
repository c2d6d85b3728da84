//! The host's side of one attempt: where its handler brings the outcome. A file with `unsafe`.
//!
//! # Invariants
//! * No function here panics or blocks; each may be called from any plugin thread.
//! * A [`TaskToken`] points to a counted reference that `task_release` gives back.
//!
//! # What it refuses
//! It draws no conclusion from an outcome: that is the worker's.

use super::answer::Outcome;
use super::lock::lock;
use bytes::Bytes;
use cardcage_abi::{TaskReply, TaskToken, code};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// The host's side of one attempt.
pub(super) struct TaskSide {
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl TaskSide {
    pub(super) fn token(outcome: oneshot::Sender<Outcome>) -> TaskToken {
        TaskToken(Arc::into_raw(Arc::new(Self { outcome: Mutex::new(Some(outcome)) })).cast())
    }
}

pub(super) extern "C" fn task_complete(token: TaskToken, reply: TaskReply) {
    // SAFETY: made by `TaskSide::token` and not yet released. OWNERSHIP: borrowed. THREADS: `TaskSide` is `Sync`.
    let side = unsafe { &*token.0.cast::<TaskSide>() };
    let Some(sender) = lock(&side.outcome).take() else { return };
    let value = Bytes::from_owner(reply.value);
    let outcome = match reply.code {
        code::TASK_SUCCEEDED => Outcome::Succeeded(value),
        code::TASK_RETRY => Outcome::Retry(value),
        code::TASK_RETRY_AFTER => Outcome::RetryAfter(reply.delay_ms, value),
        code::TASK_FAILED => Outcome::Failed(value),
        code::TASK_DISCARDED => Outcome::Discarded(value),
        code::TASK_UNDECODABLE => Outcome::Undecodable(value),
        _ => Outcome::Panicked(value),
    };
    // Nobody listens any more where the attempt was given up.
    let _ = sender.send(outcome);
}

pub(super) extern "C" fn task_release(token: TaskToken) {
    // SAFETY: made by `TaskSide::token`; the plugin gives its one reference back, once.
    // OWNERSHIP: taken here. THREADS: `TaskSide` is `Send + Sync`.
    drop(unsafe { Arc::from_raw(token.0.cast::<TaskSide>()) });
}
