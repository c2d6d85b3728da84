//! The end of a drain's grace, as the requests under way learn of it.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Comes once, and stays.
#[derive(Debug, Default)]
pub(super) struct Cutoff {
    has_come: AtomicBool,
    waiting: Notify,
}

impl Cutoff {
    /// Now.
    pub(super) fn now(&self) {
        self.has_come.store(true, Ordering::SeqCst);
        self.waiting.notify_waiters();
    }

    /// Waits for it.
    pub(super) async fn came(&self) {
        // Made before the look: what is notified in between reaches it.
        let notified = self.waiting.notified();
        if !self.has_come.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[tokio::test]
    async fn everyone_learns_of_it_who_waits_before_or_after() {
        let cutoff = Cutoff::default();
        let (mut one, mut other) = (Box::pin(cutoff.came()), Box::pin(cutoff.came()));
        assert_eq!(futures_util::poll!(&mut one), Poll::Pending);
        assert_eq!(futures_util::poll!(&mut other), Poll::Pending);
        cutoff.now();
        one.await;
        other.await;
        cutoff.came().await;
    }
}
