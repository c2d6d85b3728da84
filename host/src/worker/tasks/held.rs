//! Which tasks are here, and how to tell one of them to stop.
//!
//! Invariant: one entry per task id; it is there from the reception of a delivery until its last write.

use cardcage_protocol::{TaskId, Timestamp};
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// What is known of a task that this worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Since when, by the broker's time.
    pub since: Timestamp,
    /// Which attempt.
    pub attempt: u32,
}

/// One task that is here.
#[derive(Debug)]
pub(super) struct Holding {
    since_unix_ms: AtomicU64,
    attempt: AtomicU32,
    stopped: AtomicBool,
    waker: AtomicWaker,
}

impl Holding {
    /// The attempt is known now, and starts.
    pub(super) fn started(&self, attempt: u32, since: Timestamp) {
        self.attempt.store(attempt, Ordering::Relaxed);
        self.since_unix_ms.store(since.unix_ms(), Ordering::Relaxed);
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits until the attempt is to stop. Only one waits at a time.
    pub(super) async fn stopped(&self) {
        poll_fn(|cx| {
            // Registered before the look, so that a stop in between wakes.
            self.waker.register(cx.waker());
            if self.stopped.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn view(&self) -> Held {
        Held {
            since: Timestamp::from_unix_ms(self.since_unix_ms.load(Ordering::Relaxed)),
            attempt: self.attempt.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    tasks: HashMap<TaskId, Arc<Holding>>,
    /// Whoever comes now is stopped at once.
    stopping: bool,
}

/// All tasks that are here.
#[derive(Debug, Default)]
pub(super) struct HeldTasks(Mutex<Inner>);

impl HeldTasks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a task until the hold is dropped; `None` when it is here already.
    pub(super) fn enter(&self, id: TaskId, attempt: u32, since: Timestamp) -> Option<Hold<'_>> {
        let holding = Arc::new(Holding {
            since_unix_ms: AtomicU64::new(since.unix_ms()),
            attempt: AtomicU32::new(attempt),
            stopped: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut inner = self.lock();
        let stopping = inner.stopping;
        match inner.tasks.entry(id) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(holding.clone()),
        };
        drop(inner);
        holding.stopped.store(stopping, Ordering::Release);
        Some(Hold { tasks: self, id, holding })
    }

    pub(super) fn get(&self, id: TaskId) -> Option<Held> {
        self.lock().tasks.get(&id).map(|holding| holding.view())
    }

    pub(super) fn len(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Stops every attempt, also those that come later.
    pub(super) fn stop_all(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        let all: Vec<_> = inner.tasks.values().cloned().collect();
        drop(inner);
        all.iter().for_each(|holding| holding.stop());
    }
}

/// The entry of one task; dropping it takes the task off the list.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    tasks: &'a HeldTasks,
    id: TaskId,
    pub(super) holding: Arc<Holding>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.tasks.lock().tasks.remove(&self.id);
    }
}
