//! Host threads lent to plugins for one short poll.
//!
//! A handler that is known to be short is polled on the thread that brought its request, which saves two wake-ups
//! (decision 9). Which handlers those are is the SDK's to say; how many threads the host can do without is said here.
//!
//! # Invariants
//! * One thread of the host's runtime is never lent, so a handler that blocks in place stops nobody else.
//! * While a lent thread is held up, no other is lent: the plugins' own threads do the work until it is back.
//! * From a lent thread nothing is put into the runtime's local queue, where it would wait for the handler that
//!   waits for it ([`spawn`]).
//!
//! # What it refuses
//! It interrupts nobody: what blocks for ever keeps its thread until the process ends.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How often lent threads are looked at. One that is lent over two looks is held up.
const LOOK: Duration = Duration::from_millis(25);

thread_local! {
    static LENT: Cell<bool> = const { Cell::new(false) };
}

/// The threads that may be lent at the same time.
#[derive(Debug)]
pub struct Lending {
    /// One per thread that may be lent: 0 while it is not, else when it was, in looks.
    loans: Box<[AtomicU64]>,
    looks: AtomicU64,
    held_up: AtomicUsize,
    ended_in_place: AtomicU64,
}

impl Lending {
    /// Lends no thread ever.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self::of(0))
    }

    fn of(threads: usize) -> Self {
        let loans = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let (looks, held_up, ended_in_place) = (AtomicU64::new(1), AtomicUsize::new(0), AtomicU64::new(0));
        Self { loans, looks, held_up, ended_in_place }
    }

    /// Lends the threads of this runtime, all but one, and starts the thread that watches them.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(runtime: Handle) -> std::io::Result<Arc<Self>> {
        let threads = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => 0,
            _ => runtime.metrics().num_workers().saturating_sub(1),
        };
        let lending = Arc::new(Self::of(threads));
        if threads > 0 {
            let watched = Arc::downgrade(&lending);
            std::thread::Builder::new().name("lending".into()).spawn(move || {
                loop {
                    std::thread::sleep(LOOK);
                    let Some(lending) = watched.upgrade() else { return };
                    if lending.look() > 0 {
                        // The thread that is held up may be the one that waited for the sockets; another takes over
                        // only when it wakes up.
                        runtime.spawn(std::future::ready(()));
                    }
                }
            })?;
        }
        Ok(lending)
    }

    /// How many handlers ended with a poll on a lent thread.
    #[must_use]
    pub fn ended_in_place(&self) -> u64 {
        self.ended_in_place.load(Ordering::Relaxed)
    }

    pub(super) fn count_ended_in_place(&self) {
        self.ended_in_place.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lent threads were held up at the last look.
    #[must_use]
    pub fn held_up(&self) -> usize {
        self.held_up.load(Ordering::Relaxed)
    }

    /// Looks for lent threads that are held up, and says how many are.
    fn look(&self) -> usize {
        let now = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let held_up = |loan: &AtomicU64| {
            let since = loan.load(Ordering::Relaxed);
            since != 0 && now > since + 1
        };
        let held_up = self.loans.iter().filter(|loan| held_up(loan)).count();
        if held_up > self.held_up() {
            tracing::warn!("a plugin holds up a thread of the host that was lent for a short poll");
        }
        self.held_up.store(held_up, Ordering::Relaxed);
        held_up
    }

    /// Lends the calling thread until the loan is dropped, if it can be spared.
    pub(super) fn lend(&self) -> Option<Loan<'_>> {
        if self.held_up() > 0 {
            return None;
        }
        let now = self.looks.load(Ordering::Relaxed);
        let loan = self
            .loans
            .iter()
            .find(|loan| loan.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok())?;
        LENT.set(true);
        Some(Loan(loan))
    }
}

/// A thread on loan.
#[derive(Debug)]
pub(super) struct Loan<'a>(&'a AtomicU64);

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        LENT.set(false);
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Spawns what a plugin's thread asks for.
pub(super) fn spawn<F>(runtime: &Handle, work: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if LENT.get() {
        // Gives the thread's queue to another one, so that the work does not wait for the handler that asked for it.
        // Costs a hop, in a case that costs the handler its place here.
        tokio::task::block_in_place(|| runtime.spawn(work));
    } else {
        runtime.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_are_lent_as_can_be_spared() {
        let lending = Lending::of(2);
        let (first, second) = (lending.lend(), lending.lend());
        assert!(first.is_some() && second.is_some() && lending.lend().is_none());
        drop(first);
        assert!(lending.lend().is_some());
        assert!(Lending::of(0).lend().is_none());
    }

    #[test]
    fn nothing_is_lent_while_a_lent_thread_is_held_up() {
        let lending = Lending::of(2);
        let loan = lending.lend();
        assert_eq!(lending.look(), 0);
        assert_eq!(lending.look(), 1);
        assert!(lending.lend().is_none());
        drop(loan);
        assert_eq!(lending.look(), 0);
        assert!(lending.lend().is_some());
    }

    #[test]
    fn what_a_lent_thread_spawns_runs_while_the_thread_is_still_held() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let lending = Lending::start(runtime.handle().clone()).unwrap();
        let handle = runtime.handle().clone();
        let blocked = runtime.spawn(async move {
            let _loan = lending.lend().unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            spawn(&handle, async move { sender.send(()).unwrap() });
            receiver.recv_timeout(Duration::from_secs(10)).is_ok()
        });
        assert!(runtime.block_on(blocked).unwrap());
    }
}
