//! How long a connection has been without a request.
//!
//! hyper's own limit on a request's head begins when it knows which HTTP is spoken, and does not exist for HTTP/2: a
//! peer that says nothing would keep its connection, and with enough of them everybody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What happens on one connection. Clones tell of the same one.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    began: Instant,
    under_way: AtomicUsize,
    /// HTTP/2, as its requests have shown.
    is_multiplexed: AtomicBool,
    /// When the last request ended, in milliseconds since `began`.
    ended_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Counts {
            began: Instant::now(),
            under_way: AtomicUsize::new(0),
            is_multiplexed: AtomicBool::new(false),
            ended_ms: AtomicU64::new(0),
        }))
    }

    /// A request is here, until what this answers is dropped.
    pub(super) fn begin(&self, is_multiplexed: bool) -> Busy {
        if is_multiplexed {
            self.0.is_multiplexed.store(true, Ordering::Relaxed);
        }
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether requests overlap on it.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.0.is_multiplexed.load(Ordering::Relaxed)
    }

    /// Waits until there has been no request for so long.
    pub(super) async fn idle_for(&self, limit: Duration) {
        let mut left = limit;
        loop {
            sleep(left).await;
            left = match self.0.under_way.load(Ordering::Relaxed) {
                0 => (self.0.ended_at() + limit).saturating_duration_since(Instant::now()),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
        }
    }
}

impl Counts {
    fn ended_at(&self) -> Instant {
        self.began + Duration::from_millis(self.ended_ms.load(Ordering::Relaxed))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        let counts = &self.0.0;
        let ended_ms = u64::try_from(counts.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        counts.ended_ms.store(ended_ms, Ordering::Relaxed);
        counts.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_its_last_requests_end_on() {
        let (activity, began) = (Activity::new(), Instant::now());
        let limit = Duration::from_secs(10);
        let busy = activity.begin(false);
        let ends = async {
            sleep(Duration::from_secs(35)).await;
            drop(busy);
        };
        tokio::join!(activity.idle_for(limit), ends);
        let idle_at = began.elapsed().as_secs();
        assert!((45..=46).contains(&idle_at), "{idle_at}");
    }
}
