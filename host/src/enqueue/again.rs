//! Accepting a task whose idempotency key was used before, by a request that was not told yes.
//!
//! That request's publish may have been stored in time, too late (a worker drops it, as its caller was refused), or
//! not at all. Only the first is a promise. A message that was stored too late still makes a publish of the same
//! message id a duplicate for two minutes, also when it has long been dropped: so a new try needs another message id,
//! and everyone who tries at the same time must use the same one. The key's record counts such tries, as *rounds*.
//!
//! # Invariants
//! * A round begins only after a message of the one before was stored and came to nothing, so no two rounds' messages
//!   can both be promised: what is still on its way belongs to a round whose message id is taken.
//! * Killed anywhere, the next repeat finds a round whose message is either found, or not stored yet.

use super::accept_by;
use crate::broker::{Broker, Error, KeyRecord, Place, Waiting};
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// Pause before looking again for what somebody else has just taken away.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What became of the earlier publishes.
pub(super) enum Standing {
    /// The task is there, and runs or has run.
    Promised,
    /// It is there, but whoever takes it drops it.
    TooLate(Box<Waiting>),
    /// There is none.
    Absent,
}

/// Publishes the task once more, `at` a time or at once, unless it is there. It is the caller's to end this at `until`.
pub(super) async fn publish(
    broker: &Broker,
    envelope: &mut TaskEnvelope,
    at: Option<Timestamp>,
    key_hash: &str,
    earlier: &KeyRecord,
    until: Instant,
) -> Result<(), Error> {
    let left = || until.saturating_duration_since(Instant::now());
    let mut key = earlier.clone();
    let mut round_is_used = false;
    loop {
        match standing(broker, envelope.id).await? {
            Standing::Promised => return Ok(()),
            // Whoever removes it begins the next round, and with it everyone else who saw it.
            Standing::TooLate(waiting) if broker.remove_queued(&waiting).await? => {
                key = broker.next_round(key_hash, &key, left()).await?;
            }
            Standing::TooLate(_) => tokio::time::sleep(LOOK_AGAIN).await,
            Standing::Absent if round_is_used => {
                key = broker.next_round(key_hash, &key, left()).await?;
            }
            Standing::Absent => {}
        }
        if let Some(at) = at {
            // A delayed task is in the queue long after its publish was accepted; and it replaces itself.
            envelope.accept_by = None;
            return broker.enqueue_delayed(envelope, at, left()).await.map(|_| ());
        }
        envelope.accept_by = accept_by(broker, left());
        if !broker.publish_task_in_round(envelope, key.round, left()).await?.duplicate {
            return Ok(());
        }
        round_is_used = true;
    }
}

/// Says whether a message of the task that was stored before will run: for a publish that was a duplicate and has no key
/// to count rounds by.
pub(super) async fn confirm(broker: &Broker, id: TaskId) -> Result<(), Error> {
    match standing(broker, id).await? {
        Standing::Promised => Ok(()),
        Standing::TooLate(_) | Standing::Absent => Err(Error::Unavailable {
            reason: "an earlier publish of the task came too late, and the broker takes it for this one"
                .into(),
            in_doubt: false,
        }),
    }
}

pub(super) async fn standing(broker: &Broker, id: TaskId) -> Result<Standing, Error> {
    Ok(match broker.find_task(id).await? {
        None => Standing::Absent,
        Some(Place::Queued(waiting)) if !is_promised(&waiting) => Standing::TooLate(waiting),
        Some(_) => Standing::Promised,
    })
}

fn is_promised(waiting: &Waiting) -> bool {
    // What cannot be read is judged by the worker, who keeps it as a dead letter.
    waiting.envelope.as_ref().zip(waiting.stored_at).is_none_or(|(envelope, at)| envelope.is_promised(at))
}
