//! Brings a parked task back into its queue. Used by workers that can read it, and by the command.
//!
//! The record is written first, fenced: it says `queued`, so that of any number of processes that are at it one goes on.
//! Then the message is published into the queue, and removed from among the parked ones last. Whoever finds a parked
//! message later, because somebody was killed in between, learns from the record and the queue what is missing.
//!
//! # Invariants
//! * A parked message is removed only when its task stands in its queue, has gone on from there, or has ended.
//! * Only what the record's latest parking put there comes back: the broker may take an older one, which has come back
//!   before, for a duplicate.
//! * A task that was cancelled while it was parked ends `cancelled`, and does not come back.
//!
//! # What it refuses
//! It judges no body: whether a version can read the task is its caller's question.

use crate::broker::{Broker, Error, ParkedTask, Waiting};
use crate::failpoint::{Point, reach};
use cardcage_protocol::{Parking, State, TaskEnvelope, TaskError, TaskRecord, Timestamp};
use std::time::Duration;

/// Time for one publish into a queue.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a parked task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparked {
    /// It stands in its queue.
    Queued,
    /// It was there already, or has ended; only what was left of it is gone.
    Gone,
    /// Somebody else is at it in this moment.
    Busy,
}

/// Brings `task` back.
///
/// # Errors
/// [`Error::QueueFull`], [`Error::NoResponders`] when its plugin has no queue, [`Error::Unavailable`]; it is still parked,
/// and doing it again is harmless.
pub async fn unpark(broker: &Broker, task: &ParkedTask) -> Result<Unparked, Error> {
    let id = task.address.id;
    let now = Timestamp::from_unix_ms(broker.now_unix_ms());
    let (record, fence) = match broker.read_record(id).await? {
        Some((record, fence)) => (record, fence),
        // It was parked for longer than records are kept.
        None => (parked(task), 0),
    };
    if task.is_outdated(record.parked.as_ref()) {
        // Who brought this one back died before it was removed. The task has been parked anew since, or is about to be.
        broker.remove_parked(task).await?;
        return Ok(Unparked::Gone);
    }
    match record.state {
        State::Parked => {
            let mut record = back(record, now);
            match broker.write_record(&mut record, fence).await {
                Ok(_) => {}
                Err(Error::Conflict { .. }) => return Ok(Unparked::Busy),
                Err(error) => return Err(error),
            }
            if record.state.is_final() {
                broker.remove_parked(task).await?;
                return Ok(Unparked::Gone);
            }
        }
        // Somebody has got as far as the record, and perhaps no further.
        State::Queued => {
            if is_queued(broker, &record, task).await? {
                broker.remove_parked(task).await?;
                return Ok(Unparked::Gone);
            }
        }
        _ => {
            broker.remove_parked(task).await?;
            return Ok(Unparked::Gone);
        }
    }
    reach(Point::UnparkedRecord);
    broker.publish_unparked(task, PUBLISH_TIMEOUT).await?;
    reach(Point::UnparkedPublish);
    broker.remove_parked(task).await?;
    Ok(Unparked::Queued)
}

/// Whether the task has come back to its queue, or stands in line from there. What was parked may still be in the queue,
/// unacknowledged, and so may the message of an earlier attempt: whoever gets them drops them, so they count for nothing, and
/// what was parked may as well go now.
async fn is_queued(broker: &Broker, record: &TaskRecord, task: &ParkedTask) -> Result<bool, Error> {
    let attempt = task.envelope.as_ref().map_or(1, |envelope| envelope.attempt);
    let is_it =
        |waiting: &Waiting| waiting.envelope.as_ref().is_none_or(|envelope| envelope.attempt >= attempt);
    let mut is_there = false;
    for waiting in broker.queued_messages(&record.plugin, record.id).await? {
        if record.parked.as_ref().is_some_and(|parked| parked.has(waiting.sequence)) {
            broker.remove_queued(&waiting).await?;
        } else {
            is_there |= is_it(&waiting);
        }
    }
    Ok(is_there || broker.messages_in_line(record.id).await?.iter().any(is_it))
}

/// What a parked task's record becomes: it comes back, or ends where it was cancelled meanwhile.
pub(crate) fn back(record: TaskRecord, now: Timestamp) -> TaskRecord {
    if record.cancel_requested_at.is_some() { cancelled(record, now) } else { queued(record) }
}

/// The record of a task that comes back. Its attempts may end with one that counts, whose outcome was this message.
pub(crate) fn queued(mut record: TaskRecord) -> TaskRecord {
    if let Some(parked) = &mut record.parked {
        parked.back = true;
    }
    record.state = State::Queued;
    record.error = None;
    record.follow_up.clear();
    record
}

fn cancelled(mut record: TaskRecord, now: Timestamp) -> TaskRecord {
    record.state = State::Cancelled;
    record.finished_at = Some(now);
    record.follow_up.clear();
    record.error = Some(TaskError::new("cancelled", "the task was cancelled while it was parked", None));
    record
}

/// The record that a parked task had when it was parked, as far as it is known. Whoever parks it anew must know of this parking.
fn parked(task: &ParkedTask) -> TaskRecord {
    let mut record = TaskRecord::new(&envelope(task), State::Parked);
    record.parked = task.message.map(|message| Parking::of(message, task.schemas.clone(), None));
    record
}

/// The envelope; for what is none, one that says what is known.
fn envelope(task: &ParkedTask) -> TaskEnvelope {
    task.envelope.clone().unwrap_or_else(|| {
        TaskEnvelope::new(task.address.clone(), "unknown".into(), task.parked_at, task.body.clone())
    })
}
