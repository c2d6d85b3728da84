//! Counts what became of the handlers of this process, so that a test can see from outside that one was cancelled.

use plugin_api::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
struct Counters {
    started: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
    panicked: AtomicU64,
    failed_until: AtomicU64,
}

/// The counters. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Counters>);

/// The counters as they stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// The process that counted.
    pub(crate) pid: u32,
    /// Handlers of `call`, `task` and `short` that began.
    pub(crate) started: u64,
    /// Those that came to their end, well or not.
    pub(crate) finished: u64,
    /// Those that were dropped before.
    pub(crate) cancelled: u64,
    /// Those that panicked.
    pub(crate) panicked: u64,
}

impl Seen {
    /// Counts a handler that begins.
    pub(crate) fn start(&self) -> Run {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        Run { seen: self.clone(), is_finished: false }
    }

    /// Counts the calls that fail until enough of them came.
    pub(crate) fn next_failure(&self) -> u64 {
        self.0.failed_until.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The counters now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            pid: std::process::id(),
            started: read(&self.0.started),
            finished: read(&self.0.finished),
            cancelled: read(&self.0.cancelled),
            panicked: read(&self.0.panicked),
        }
    }
}

/// One handler that runs. Dropped unfinished, it counts as cancelled, or as panicked.
#[derive(Debug)]
pub(crate) struct Run {
    seen: Seen,
    is_finished: bool,
}

impl Run {
    /// The handler came to its end.
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let counters = &self.seen.0;
        let counter = match (self.is_finished, std::thread::panicking()) {
            (true, _) => &counters.finished,
            (false, true) => &counters.panicked,
            (false, false) => &counters.cancelled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
