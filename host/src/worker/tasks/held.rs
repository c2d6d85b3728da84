//! Which tasks are here, and how to tell one of them to stop or that it was cancelled.
//!
//! A cancellation that comes for a task that is not here is remembered for a while: its delivery may be on the way,
//! and a first delivery would be run without a look at its record.
//!
//! Invariants: one entry per task id; it is there from the reception of a delivery until its last write. What is
//! remembered is bounded.

use cardcage_protocol::{TaskId, Timestamp};
use futures_util::task::AtomicWaker;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How long a cancellation is remembered: what is on its way arrives within the time of a publish and a pull.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);
/// At most so many; the oldest go first.
const REMEMBERED_MAX: usize = 10_000;

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
    cancelled: AtomicBool,
    waker: AtomicWaker,
}

/// What comes from outside to an attempt under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The worker stops: hand back.
    Stopped,
    /// The task was cancelled.
    Cancelled,
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

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the task was cancelled, as far as this worker was told.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until the attempt is to stop, or the task is cancelled. Only one waits at a time.
    pub(super) async fn signalled(&self) -> Signal {
        poll_fn(|cx| {
            // Registered before the look, so that a signal in between wakes.
            self.waker.register(cx.waker());
            if self.stopped.load(Ordering::Acquire) {
                Poll::Ready(Signal::Stopped)
            } else if self.is_cancelled() {
                Poll::Ready(Signal::Cancelled)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Waits until the attempt is to stop, whether or not it was cancelled. Only one waits at a time.
    pub(super) async fn stopped(&self) {
        poll_fn(|cx| {
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
    /// Cancelled while they were not here, oldest first.
    cancelled: VecDeque<(TaskId, Instant)>,
}

impl Inner {
    fn was_cancelled(&mut self, id: TaskId) -> bool {
        while self.cancelled.front().is_some_and(|(_, at)| at.elapsed() > REMEMBERED_FOR) {
            self.cancelled.pop_front();
        }
        self.cancelled.iter().any(|(cancelled, _)| *cancelled == id)
    }
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
            cancelled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut inner = self.lock();
        let stopping = inner.stopping;
        // Nothing is remembered most of the time.
        let cancelled = !inner.cancelled.is_empty() && inner.was_cancelled(id);
        match inner.tasks.entry(id) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(holding.clone()),
        };
        drop(inner);
        if cancelled {
            holding.cancel();
        }
        holding.stopped.store(stopping, Ordering::Release);
        Some(Hold { tasks: self, id, holding })
    }

    pub(super) fn get(&self, id: TaskId) -> Option<Held> {
        self.lock().tasks.get(&id).map(|holding| holding.view())
    }

    /// Tells whoever holds the task that it was cancelled, and what is known of that attempt; `None` when it is not here.
    pub(super) fn cancel(&self, id: TaskId) -> Option<Held> {
        let mut inner = self.lock();
        let Some(holding) = inner.tasks.get(&id).cloned() else {
            if !inner.was_cancelled(id) {
                if inner.cancelled.len() >= REMEMBERED_MAX {
                    inner.cancelled.pop_front();
                }
                inner.cancelled.push_back((id, Instant::now()));
            }
            return None;
        };
        drop(inner);
        holding.cancel();
        Some(holding.view())
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
