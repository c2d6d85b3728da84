//! The time after a start or a reconnect in which a first delivery may be none: a killed broker may deliver again what was finished
//! and acknowledged just before, and count from one. A host that has just started cannot know whether the broker has,
//! too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Knows whether the host started, or its connection came back, less than a lease ago.
#[derive(Debug)]
pub struct Settling {
    started: Instant,
    lease: Duration,
    /// The connection that is known.
    generation: AtomicU64,
    /// Milliseconds after `started`.
    until_ms: AtomicU64,
}

impl Settling {
    /// `generation` counts connections; 0 means that there was none yet.
    #[must_use]
    pub fn new(lease: Duration, generation: u64) -> Self {
        Self {
            started: Instant::now(),
            lease,
            generation: AtomicU64::new(generation),
            until_ms: AtomicU64::new(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Says whether the record must be read first. Asked with the connection's count at every delivery, so that no
    /// delivery of a new connection slips through before a watcher has noticed it.
    pub fn is_settling(&self, generation: u64) -> bool {
        let known = self.generation.load(Ordering::Acquire);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if generation != known {
            let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
            self.until_ms.store(now_ms.saturating_add(lease_ms), Ordering::Release);
            self.generation.store(generation, Ordering::Release);
        }
        now_ms < self.until_ms.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_are_read_for_one_lease_after_the_start_and_after_each_connect() {
        let lease = Duration::from_secs(30);
        let settling = Settling::new(lease, 0);
        assert!(settling.is_settling(0));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(!settling.is_settling(0));
        assert!(settling.is_settling(2));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(settling.is_settling(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!settling.is_settling(2));
        assert!(settling.is_settling(3), "and again");
    }
}
