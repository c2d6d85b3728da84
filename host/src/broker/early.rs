//! Due tasks that come before their time, which a pump keeps until then (see [`cardcage_protocol::delayed`]).
//!
//! Invariants: none goes on before the broker's clock has reached its time, however much that clock may be off as this host
//! knows it. What is kept is bounded, and holds up nothing that is due: it takes none of a pump's slots while there is room.

use std::sync::Arc;
use std::time::Duration;

use cardcage_protocol::delayed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Broker;
use super::delivery::Delivery;

/// What one pump keeps outside its slots.
const KEPT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// What a message counts for at least: so at most 2,048 are kept, what comes at 2,000 per second in a second.
const COUNTS_MIN_BYTES: usize = 16 * 1024;
/// What is further from its time than this came by no schedule of ours: a clock was set back, or somebody wrote it so.
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

/// How long a delivery has to wait for its time; `None`: it has come.
pub(super) fn by(broker: &Broker, delivery: &Delivery) -> Option<Duration> {
    let due = delayed::due_at(delivery.headers())?;
    let left = due.unix_ms().saturating_sub(broker.reached_unix_ms());
    (left > 0).then(|| Duration::from_millis(left))
}
