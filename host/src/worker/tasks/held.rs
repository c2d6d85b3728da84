//! Which tasks are here, and how to tell one of them to stop or that it was cancelled.
//!
//! A cancellation that comes for a task that is not here is remembered for a while (`cancellations`): its delivery may be
//! on the way, and a first delivery would be run without a look at its record.
//!
//! Invariants: one entry per task id; it is there from the reception of a delivery until its last write.

use super::cancellations::Cancellations;
use super::progress::{EVENT_EVERY, Progress};
use super::staging::Staged;
use cardcage_protocol::{TaskId, Timestamp};
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Which of a task's messages a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// The attempt that it is for.
    pub(super) attempt: u32,
    /// Where it stands in its stream.
    pub(super) sequence: u64,
}

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
    message: Message,
    since_unix_ms: AtomicU64,
    attempt: AtomicU32,
    stopped: AtomicBool,
    cancelled: AtomicBool,
    /// Its handler does something once, of which an entry is kept until the task has ended.
    does_once: AtomicBool,
    waker: AtomicWaker,
    progress: Mutex<Reported>,
    /// What the attempt enqueues.
    pub(super) staged: Staged,
}

/// What the handler last said of its progress, and when an event told of it.
#[derive(Debug, Default)]
struct Reported {
    last: Option<Progress>,
    told_at: Option<Instant>,
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

    pub(super) fn note_once(&self) {
        self.does_once.store(true, Ordering::Release);
    }

    pub(super) fn does_once(&self) -> bool {
        self.does_once.load(Ordering::Acquire)
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
    /// Cancelled while they were not here.
    cancelled: Cancellations,
    /// Messages that wait for another one of their task.
    waiting: usize,
}

/// All tasks that are here.
#[derive(Debug, Default)]
pub(super) struct HeldTasks {
    inner: Mutex<Inner>,
    /// Told of each task that goes while a message waits.
    gone: Notify,
}

impl HeldTasks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a task until the hold is dropped.
    ///
    /// # Errors
    /// It is here already, as this message.
    pub(super) fn enter(&self, id: TaskId, message: Message, since: Timestamp) -> Result<Hold<'_>, Message> {
        let mut inner = self.lock();
        let (stopped, cancelled) = (inner.stopping, inner.cancelled.contains(id));
        let free = match inner.tasks.entry(id) {
            Entry::Occupied(here) => return Err(here.get().message),
            Entry::Vacant(free) => free,
        };
        let holding = Arc::new(Holding {
            message,
            since_unix_ms: AtomicU64::new(since.unix_ms()),
            attempt: AtomicU32::new(message.attempt),
            stopped: AtomicBool::new(stopped),
            cancelled: AtomicBool::new(cancelled),
            does_once: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            progress: Mutex::default(),
            staged: Staged::default(),
        });
        free.insert(holding.clone());
        drop(inner);
        Ok(Hold { tasks: self, id, holding })
    }

    /// Enters a task as soon as what is here of it has gone.
    pub(super) async fn enter_next(
        &self,
        id: TaskId,
        message: Message,
        now: impl Fn() -> Timestamp,
    ) -> Hold<'_> {
        let _waiting = Waiting::new(self);
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            // Before the look, so that nothing that goes in between is missed.
            gone.as_mut().enable();
            if let Ok(hold) = self.enter(id, message, now()) {
                return hold;
            }
            gone.await;
        }
    }

    /// A task that is here.
    pub(super) fn holding(&self, id: TaskId) -> Option<Arc<Holding>> {
        self.lock().tasks.get(&id).cloned()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<Held> {
        self.lock().tasks.get(&id).map(|holding| holding.view())
    }

    /// Tells whoever holds the task that it was cancelled, and what is known of that attempt; `None` when it is not here.
    pub(super) fn cancel(&self, id: TaskId) -> Option<Held> {
        let mut inner = self.lock();
        let Some(holding) = inner.tasks.get(&id).cloned() else {
            inner.cancelled.remember(id);
            return None;
        };
        drop(inner);
        holding.cancel();
        Some(holding.view())
    }

    /// What the handler of a task that is here last said of its progress.
    pub(super) fn progress(&self, id: TaskId) -> Option<Progress> {
        let holding = self.lock().tasks.get(&id).cloned()?;
        holding.progress.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// Keeps what the handler of this attempt says of its progress. Whether an event is to tell of it.
    pub(super) fn note(&self, id: TaskId, attempt: u32, progress: Progress) -> bool {
        let Some(holding) = self.lock().tasks.get(&id).cloned() else { return false };
        if holding.attempt.load(Ordering::Relaxed) != attempt {
            return false;
        }
        let mut reported = holding.progress.lock().unwrap_or_else(PoisonError::into_inner);
        reported.last = Some(progress);
        let is_due = reported.told_at.is_none_or(|at| at.elapsed() >= EVENT_EVERY);
        if is_due {
            reported.told_at = Some(Instant::now());
        }
        is_due
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
        let mut inner = self.tasks.lock();
        inner.tasks.remove(&self.id);
        let is_awaited = inner.waiting > 0;
        drop(inner);
        if is_awaited {
            self.tasks.gone.notify_waiters();
        }
    }
}

/// A message that waits, as long as it does.
struct Waiting<'a>(&'a HeldTasks);

impl<'a> Waiting<'a> {
    fn new(tasks: &'a HeldTasks) -> Self {
        tasks.lock().waiting += 1;
        Self(tasks)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.waiting = inner.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attempt: u32, sequence: u64) -> Message {
        Message { attempt, sequence }
    }

    #[tokio::test]
    async fn next_message_of_a_task_enters_when_the_one_before_has_gone() {
        let (held, id, now) = (HeldTasks::default(), TaskId::generate(), Timestamp::now());
        let first = held.enter(id, message(1, 7), now).unwrap();
        assert_eq!(held.enter(id, message(1, 7), now).unwrap_err(), message(1, 7));
        let next = held.enter_next(id, message(2, 9), || now);
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(first);
        let next = next.await;
        assert_eq!((next.holding.message, held.lock().waiting), (message(2, 9), 0));
        drop(next);
        assert_eq!(held.len(), 0);
    }

    #[tokio::test]
    async fn who_enters_after_the_stop_or_a_cancellation_is_told_at_once() {
        let (held, id, now) = (HeldTasks::default(), TaskId::generate(), Timestamp::now());
        assert_eq!(held.cancel(id), None);
        assert_eq!(held.enter(id, message(1, 1), now).unwrap().holding.signalled().await, Signal::Cancelled);
        held.stop_all();
        let late = held.enter(id, message(1, 1), now).unwrap();
        assert_eq!(late.holding.signalled().await, Signal::Stopped);
    }
}
