//! Cancelling a task, wherever it is and whether or not any worker lives. Used by the edge and by the command.
//!
//! The record is marked first, by compare-and-set: from then on whoever decides about the task sees it, so a canceller
//! that dies leaves a task that ends all the same. Then the holder is told. Where there is none, the outcome is written
//! here, under the fence of the mark, and only then the task's messages are removed.
//!
//! # Invariants
//! * A message is removed only after the outcome is stored: a task without one would never end.
//! * The keys of a task that is ended here are released here, or by a sweep.
//! * Any number of cancellers may be at it: each write is fenced, and each reads again after a refusal.
//! * What a running handler returns decides, as long as its worker answers.
//!
//! # What it refuses
//! It waits for no handler longer than its caller wants to: then the task is "requested", and its worker sees to the
//! rest.

use crate::broker::{Broker, Error, Place, Subscription, Waiting};
use bytes::Bytes;
use cardcage_protocol::{Cause, Name, State, TaskEnvelope, TaskError, TaskId, TaskRecord, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a running handler's end is waited for, by those who answer somebody within a second.
pub const HANDLER_WAIT: Duration = Duration::from_millis(500);

/// A holder answers within a round trip. One that has not by now may be none, which the queue knows.
const SOON: Duration = Duration::from_millis(250);
/// A holder of what was delivered that does not answer for so long is none.
const NO_HOLDER_AFTER: Duration = Duration::from_secs(1);
/// Pause before workers are asked again when none listens: after a broker's restart they come back one by one.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a holder's next record is waited for before it is asked whether it still holds the task.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often a refused write is tried anew. More means that something is wrong.
const ROUNDS: usize = 16;

/// How a cancellation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancellation {
    /// There is no such task.
    Unknown,
    /// It had ended, or ended otherwise meanwhile.
    Ended(State),
    /// It has ended `cancelled`.
    Done,
    /// Its worker knows; the handler is still at it.
    Requested,
}

/// Cancels a task, waiting for a running handler's end for `wait` at most.
///
/// # Errors
/// The broker cannot be asked. The mark may stand all the same; a repeat is harmless.
pub async fn cancel(broker: &Broker, id: TaskId, wait: Duration) -> Result<Cancellation, Error> {
    // Before the mark, so that no outcome that follows it is missed.
    let mut stored = broker.subscribe(broker.subjects().done(id)).await?;
    let end = Instant::now() + wait;
    let mut marked = false;
    let mut unheld_since: Option<Instant> = None;
    let mut refused = 0;
    loop {
        let (record, fence) = match mark(broker, id).await? {
            Mark::Nowhere => return Ok(Cancellation::Unknown),
            Mark::Ended(State::Cancelled) if marked => return Ok(Cancellation::Done),
            Mark::Ended(state) => return Ok(Cancellation::Ended(state)),
            Mark::Set(record, fence) => (record, fence),
        };
        marked = true;
        let asked_at = Instant::now();
        let patience =
            unheld_since.map_or(SOON, |since| NO_HOLDER_AFTER.saturating_sub(since.elapsed()).max(ASK_AGAIN));
        if broker.tell_cancelled(id, patience).await?.is_some() {
            unheld_since = None;
            if Instant::now() >= end {
                return Ok(Cancellation::Requested);
            }
            next_record(&mut stored, end.min(Instant::now() + LOOK_AGAIN)).await;
            continue;
        }
        // After the question: what is delivered from now on goes to a worker that has heard it, or that reads the mark.
        let is_silent = unheld_since.get_or_insert(asked_at).elapsed() >= NO_HOLDER_AFTER;
        // A broker that was killed may have forgotten a delivery that a record tells of.
        let is_open = record.attempts.iter().any(|attempt| attempt.cause.is_none());
        if !is_silent && (is_open || broker.was_delivered(&record.plugin, id).await?) {
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        }
        let plugin = record.plugin.clone();
        match broker.write_record(&mut ended(*record, now(broker)), fence).await {
            Ok(_) => {
                remove(broker, &plugin, id).await;
                return Ok(Cancellation::Done);
            }
            Err(conflict @ Error::Conflict { .. }) => {
                refused += 1;
                if refused >= ROUNDS {
                    return Err(conflict);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

enum Mark {
    Nowhere,
    Ended(State),
    /// The record with the mark, and its fence.
    Set(Box<TaskRecord>, u64),
}

/// Marks the record, making one where there is none.
async fn mark(broker: &Broker, id: TaskId) -> Result<Mark, Error> {
    let mut last = None;
    for _ in 0..ROUNDS {
        let (mut record, fence) = match broker.find_task(id).await? {
            None => return Ok(Mark::Nowhere),
            Some(Place::Recorded(record, _)) if record.state.is_final() => {
                return Ok(Mark::Ended(record.state));
            }
            Some(Place::Recorded(record, fence)) if record.cancel_requested_at.is_some() => {
                return Ok(Mark::Set(record, fence));
            }
            Some(Place::Recorded(record, fence)) => (record, fence),
            Some(Place::Queued(waiting) | Place::Due(waiting)) => (first(*waiting, State::Queued), 0),
            Some(Place::Parked(waiting)) => (first(*waiting, State::Parked), 0),
            Some(Place::Scheduled(waiting, at)) => {
                let mut record = first(*waiting, State::Scheduled);
                record.next_at = at;
                (record, 0)
            }
        };
        record.cancel_requested_at = Some(now(broker));
        match broker.write_record(&mut record, fence).await {
            Ok(fence) => return Ok(Mark::Set(record, fence)),
            Err(conflict @ Error::Conflict { .. }) => last = Some(conflict),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(Error::Conflict { last_sequence: None }))
}

/// The first record of a task that has none.
fn first(waiting: Waiting, state: State) -> Box<TaskRecord> {
    let Waiting { address, envelope, stored_at, .. } = waiting;
    // Of an envelope that cannot be read, its address and its age are known.
    let envelope = envelope.unwrap_or_else(|| {
        TaskEnvelope::new(
            address,
            Arc::from("unknown"),
            stored_at.unwrap_or_else(Timestamp::now),
            Bytes::new(),
        )
    });
    Box::new(TaskRecord::new(&envelope, state))
}

/// The record of a task that nobody holds. An attempt that nobody ended was lost with its worker, or will be refused.
fn ended(mut record: TaskRecord, now: Timestamp) -> TaskRecord {
    for attempt in record.attempts.iter_mut().filter(|attempt| attempt.cause.is_none()) {
        attempt.ended_at = Some(now);
        attempt.cause = Some(Cause::Cancelled);
        attempt.error =
            Some(TaskError::new("cancelled", "the task was cancelled, and its worker did not answer", None));
    }
    record.state = State::Cancelled;
    record.finished_at = Some(now);
    record.next_at = None;
    record.follow_up.clear();
    record.error = Some(TaskError::new("cancelled", "the task was cancelled", None));
    record
}

/// The message of a task, wherever it waits.
async fn envelope(broker: &Broker, id: TaskId) -> Result<Option<TaskEnvelope>, Error> {
    match broker.find_waiting(id).await? {
        Some(Place::Queued(waiting) | Place::Scheduled(waiting, _) | Place::Due(waiting)) => {
            Ok(waiting.envelope)
        }
        _ => Ok(broker.find_parked(id).await?.and_then(|parked| parked.envelope)),
    }
}

/// Removes what is left of a task that has ended, and releases its keys. What stays is found ended by whoever gets it.
async fn remove(broker: &Broker, plugin: &Name, id: TaskId) {
    // Its keys stand in its message only.
    let held = envelope(broker, id).await.unwrap_or_else(|error| {
        tracing::debug!(%error, task = %id, "the keys of a cancelled task are left to a sweep");
        None
    });
    if let Err(error) = broker.purge_task(plugin, id).await {
        tracing::debug!(%error, task = %id, "a cancelled task could not be removed from its queue");
    }
    if let Err(error) = broker.cancel_scheduled(plugin, id).await {
        tracing::debug!(%error, task = %id, "a cancelled task could not be removed from the schedule");
    }
    if let Err(error) = broker.purge_parked(id).await {
        tracing::debug!(%error, task = %id, "a cancelled task could not be removed from the parked ones");
    }
    if let Some(envelope) = held {
        broker.release_keys(&envelope).await;
    }
}

/// Waits until a record of the task is stored, or `until`.
async fn next_record(stored: &mut Subscription, until: Instant) {
    if let Ok(None) = tokio::time::timeout_at(until, stored.next()).await {
        // The connection is closed for good: what follows says so.
        tokio::time::sleep_until(until).await;
    }
}

fn now(broker: &Broker) -> Timestamp {
    Timestamp::from_unix_ms(broker.now_unix_ms())
}
