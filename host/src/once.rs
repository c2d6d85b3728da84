//! Recording what a task's handler has done outside, so that its next attempt does not do it again.
//!
//! # Invariants
//! * What is recorded under a key stays: whoever comes second gets it, also an attempt whose lease was lost, for what it
//!   did has been done.
//! * An attempt that is known to be over is told so before it does anything.
//!
//! # What it refuses
//! It does not make an effect happen once: a process that dies between effect and record leaves no record. Whoever gets
//! the effect must be given a key that makes its repeat harmless (`ctx.once_key`).

use crate::broker::{Broker, Error, key_hash};
use cardcage_protocol::{Problem, ProblemCode, TaskId, limits};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;

/// An effect that has happened is worth waiting for the broker.
const RECORD_WITHIN: Duration = Duration::from_secs(60);
/// Pause before the next try.
const AGAIN: Duration = Duration::from_millis(500);

/// What stands under a key.
#[derive(Debug, Default, Serialize)]
pub struct Recorded {
    /// Whether an attempt had recorded something before.
    found: bool,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
}

impl From<Option<Box<RawValue>>> for Recorded {
    fn from(value: Option<Box<RawValue>>) -> Self {
        Self { found: value.is_some(), value }
    }
}

/// Looks for what an earlier attempt recorded.
///
/// # Errors
/// The broker cannot be asked; the key is none, or one too many; or the attempt is over.
pub async fn look(broker: &Broker, id: TaskId, attempt: u32, key: &str) -> Result<Recorded, Problem> {
    let hash = hash(id, key)?;
    let failed = |error: Error| problem(&error);
    if let Some(value) = broker.recorded_once(id, &hash).await.map_err(failed)? {
        return Ok(Some(value).into());
    }
    let (record, keys) = tokio::join!(broker.read_record(id), broker.count_once(id));
    if let Some((record, _)) = record.map_err(failed)? {
        let later = record.attempts.last().is_some_and(|last| last.n > attempt);
        if later || record.state.is_final() {
            let detail = format!("Attempt {attempt} is over: its worker lost the task. Nothing was done.");
            return Err(Problem::new(ProblemCode::TaskEnded).detail(detail));
        }
    }
    if keys.map_err(failed)? >= limits::ONCE_KEYS_MAX {
        let detail = format!("A task does at most {} things once.", limits::ONCE_KEYS_MAX);
        return Err(Problem::new(ProblemCode::MalformedRequest).detail(detail));
    }
    Ok(Recorded::default())
}

/// Records what was done, and answers what stands there if that is something else.
///
/// # Errors
/// The value is too large, or the broker is away for so long that the attempt must go on without.
pub async fn keep(
    broker: &Broker,
    id: TaskId,
    attempt: u32,
    key: &str,
    value: &RawValue,
) -> Result<Recorded, Problem> {
    let hash = hash(id, key)?;
    if value.get().len() > limits::ONCE_VALUE_MAX_BYTES {
        let detail = format!("What is recorded once has at most {} bytes.", limits::ONCE_VALUE_MAX_BYTES);
        return Err(Problem::new(ProblemCode::MalformedRequest).detail(detail));
    }
    let end = Instant::now() + RECORD_WITHIN;
    loop {
        match broker.record_once(id, &hash, attempt, value).await {
            Ok(theirs) => return Ok(theirs.into()),
            Err(error) if error.problem_code().is_retryable() && Instant::now() < end => {
                tracing::debug!(task = %id, %error, "what a task did once is not recorded yet");
                tokio::time::sleep(AGAIN).await;
                let _ = broker.wait_connected(end.saturating_duration_since(Instant::now())).await;
            }
            Err(error) => return Err(problem(&error)),
        }
    }
}

fn hash(id: TaskId, key: &str) -> Result<String, Problem> {
    if key.is_empty() || key.len() > limits::TASK_KEY_MAX_BYTES {
        let detail = format!("The key of what is done once has 1 to {} bytes.", limits::TASK_KEY_MAX_BYTES);
        return Err(Problem::new(ProblemCode::MalformedRequest).detail(detail));
    }
    Ok(key_hash(&["once", &id.to_string(), key]))
}

fn problem(error: &Error) -> Problem {
    let code = error.problem_code();
    if code == ProblemCode::Internal {
        tracing::error!(%error, "what a task does once can be neither read nor recorded");
    }
    Problem::new(code)
}
