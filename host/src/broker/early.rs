//! Due tasks that come before their time, which a pump keeps until then (see [`cardcage_protocol::delayed`]).
//!
//! Invariants: none goes on before the broker's clock has reached its time, however much that clock may be off as this host
//! knows it; after a step backward of that clock, for as long as nobody has measured it, that is the clock from before. What is kept is bounded, and holds up nothing that is due: it takes none of a pump's slots while there is room.

use std::sync::Arc;
use std::time::Duration;

use cardcage_protocol::delayed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Broker;
use super::delivery::Delivery;

/// What one pump keeps outside its slots.
const KEPT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// What a message counts for at least: so at most 2,048 are kept, what comes at 2,000 per second in a second.
const COUNTS_MIN_BYTES: usize = 16 * 1024;
/// What is further from its time than this was fired by no schedule of ours: somebody wrote it so.
pub(super) const EARLY_MAX: Duration = Duration::from_millis(2 * delayed::FIRES_EARLY_MS);

/// Room for tasks that are early.
#[derive(Debug, Clone)]
pub(super) struct EarlyRoom(Arc<Semaphore>);

/// A kept task's part of it.
#[derive(Debug)]
pub(super) struct Kept {
    _room: OwnedSemaphorePermit,
}

impl EarlyRoom {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(KEPT_MAX_BYTES)))
    }

    /// `None`: there is none left; it must be kept in a slot.
    pub(super) fn try_enter(&self, delivery: &Delivery) -> Option<Kept> {
        let counts = u32::try_from(delivery.payload().len().max(COUNTS_MIN_BYTES)).ok()?;
        Some(Kept { _room: self.0.clone().try_acquire_many_owned(counts).ok()? })
    }
}

/// How long a delivery that came at `received` has to wait for its time; `None`: it has come.
///
/// That the broker stored it when it fired tells the time of the very server whose clock fired it: what is known of the broker's
/// clock from before, or of another server of its cluster, may only shorten the wait.
pub(super) fn by(broker: &Broker, delivery: &Delivery, received: Instant) -> Option<Duration> {
    let due = delayed::due_at(delivery.headers())?;
    let since = u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX);
    let fired = delivery.stored_at.unix_ms().saturating_add(since);
    let reached = if broker.knows_time() { broker.reached_unix_ms() } else { 0 };
    let left = due.unix_ms().saturating_sub(fired.max(reached));
    (left > 0).then(|| Duration::from_millis(left))
}
