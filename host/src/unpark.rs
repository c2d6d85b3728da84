//! Brings a parked task back into its queue. Used by workers that can read it, and by the command.
//!
//! The record is written first, fenced: it says `queued`, so that of any number of processes that are at it one goes on.
//! Then the message is published into the queue, and removed from among the parked ones last. Whoever finds a parked
//! message later, because somebody was killed in between, learns from the record and the queue what is missing.
//!
//! # Invariants
//! * A parked message is removed only when its task stands in its queue, has gone on from there, or has ended.
//! * A task that was cancelled while it was parked ends `cancelled`, and does not come back.
//!
//! # What it refuses
//! It judges no body: whether a version can read the task is its caller's question.

use crate::broker::{Broker, Error, ParkedTask};
use crate::failpoint::{Point, reach};
use cardcage_protocol::{State, TaskEnvelope, TaskError, TaskRecord, Timestamp};
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
        None => (TaskRecord::new(&envelope(task), State::Parked), 0),
    };
    match record.state {
        State::Parked => {
            let mut record =
                if record.cancel_requested_at.is_some() { cancelled(record, now) } else { queued(record) };
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
            if is_queued(broker, &record).await? {
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

/// Whether the task has come back to its queue. The message that was parked may still be there, unacknowledged: whoever
/// gets it drops it, so it counts for nothing and may as well go now.
async fn is_queued(broker: &Broker, record: &TaskRecord) -> Result<bool, Error> {
    let parked = record.parked.as_ref().map(|parked| parked.message);
    for _ in 0..2 {
        match broker.find_queued(record.id).await? {
            Some(waiting) if Some(waiting.sequence) == parked => broker.remove_queued(&waiting).await?,
            found => return Ok(found.is_some()),
        };
    }
    Ok(false)
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

/// The envelope; for what is none, one that says what is known.
fn envelope(task: &ParkedTask) -> TaskEnvelope {
    task.envelope.clone().unwrap_or_else(|| {
        TaskEnvelope::new(task.address.clone(), "unknown".into(), task.parked_at, task.body.clone())
    })
}
