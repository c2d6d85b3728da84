//! Counts since the start, for `/metrics`.

use cardcage_protocol::State;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of attempts and outcomes. Each only grows.
#[derive(Debug, Default)]
pub struct TaskCounters {
    /// Handlers started.
    pub started: AtomicU64,
    /// Tasks that ended `succeeded`.
    pub succeeded: AtomicU64,
    /// Tasks that ended `failed`.
    pub failed: AtomicU64,
    /// Tasks that ended `cancelled`.
    pub cancelled: AtomicU64,
    /// Tasks that ended `expired`.
    pub expired: AtomicU64,
    /// Tasks that were parked, because their bodies could not be decoded.
    pub parked: AtomicU64,
    /// Parked tasks that were brought back.
    pub unparked: AtomicU64,
    /// Attempts that are followed by another one.
    pub retried: AtomicU64,
    /// Earlier deliveries found lost with their workers.
    pub lost: AtomicU64,
    /// Completions refused because the attempt was no longer this worker's.
    pub refused: AtomicU64,
    /// Attempts handed back by a drain.
    pub interrupted: AtomicU64,
    /// Deliveries handed back unstarted.
    pub handed_back: AtomicU64,
    /// Outcomes given up because the broker was away for too long; their tasks run again.
    pub given_up: AtomicU64,
    /// Deliveries that nobody had been promised.
    pub unpromised: AtomicU64,
    /// Messages that were no envelope.
    pub unreadable: AtomicU64,
}

impl TaskCounters {
    /// Names and values, in a fixed order.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 15] {
        [
            ("started", &self.started),
            ("succeeded", &self.succeeded),
            ("failed", &self.failed),
            ("cancelled", &self.cancelled),
            ("expired", &self.expired),
            ("parked", &self.parked),
            ("unparked", &self.unparked),
            ("retried", &self.retried),
            ("lost", &self.lost),
            ("refused", &self.refused),
            ("interrupted", &self.interrupted),
            ("handed_back", &self.handed_back),
            ("given_up", &self.given_up),
            ("unpromised", &self.unpromised),
            ("unreadable", &self.unreadable),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Counts a record that was stored.
    pub(super) fn recorded(&self, state: State) {
        let count = match state {
            State::Succeeded => &self.succeeded,
            State::Failed => &self.failed,
            State::Cancelled => &self.cancelled,
            State::Expired => &self.expired,
            State::Retrying => &self.retried,
            State::Queued => &self.interrupted,
            State::Parked => &self.parked,
            State::Scheduled | State::Running => return,
        };
        bump(count);
    }
}

pub(super) fn bump(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
