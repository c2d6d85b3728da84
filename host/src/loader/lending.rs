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

use crate::crash::Board;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// One per thread that may be lent.
    places: Box<[Place]>,
    looks: AtomicU64,
    held_up: AtomicUsize,
    ended_in_place: AtomicU64,
    /// By the numbers that the board has the plugins by.
    borrowers: Mutex<BTreeMap<u32, Borrower>>,
}

/// A thread that may be lent.
#[derive(Debug, Default)]
struct Place {
    /// 0 while it is not, else when it was, in looks.
    since: AtomicU64,
    /// To which plugin it was lent the last time.
    plugin: AtomicU32,
    /// The loan that was told of, by its `since`.
    told: AtomicU64,
}

/// A plugin that threads are lent to.
#[derive(Debug)]
struct Borrower {
    name: String,
    version: String,
    board: Option<Board>,
    /// How often it held one up.
    times: u64,
}

impl Lending {
    /// Lends no thread ever.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self::of(0))
    }

    fn of(threads: usize) -> Self {
        let places = (0..threads).map(|_| Place::default()).collect();
        let (looks, held_up, ended_in_place) = (AtomicU64::new(1), AtomicUsize::new(0), AtomicU64::new(0));
        Self { places, looks, held_up, ended_in_place, borrowers: Mutex::default() }
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

    fn borrowers(&self) -> MutexGuard<'_, BTreeMap<u32, Borrower>> {
        // Nothing that holds the lock panics.
        self.borrowers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who it is that threads are lent to under this number.
    pub(super) fn introduce(&self, plugin: u32, name: &str, version: &str, board: Option<Board>) {
        let (name, version) = (name.to_owned(), version.to_owned());
        self.borrowers().insert(plugin, Borrower { name, version, board, times: 0 });
    }

    /// How often each plugin held a lent thread up.
    #[must_use]
    pub fn times(&self) -> Vec<(String, u64)> {
        self.borrowers().values().map(|one| (one.name.clone(), one.times)).collect()
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
        let mut held_up = 0;
        for place in &self.places {
            let since = place.since.load(Ordering::Acquire);
            if since == 0 || now <= since + 1 {
                continue;
            }
            held_up += 1;
            if place.told.swap(since, Ordering::Relaxed) != since {
                self.tell(place.plugin.load(Ordering::Relaxed));
            }
        }
        self.held_up.store(held_up, Ordering::Relaxed);
        held_up
    }

    /// Counts that a plugin holds a thread up, and says so.
    fn tell(&self, plugin: u32) {
        let mut borrowers = self.borrowers();
        let Some(borrower) = borrowers.get_mut(&plugin) else { return };
        borrower.times += 1;
        let held_by = borrower.board.map(|board| board.handlers_of(plugin)).unwrap_or_default();
        tracing::warn!(
            plugin = borrower.name,
            version = borrower.version,
            held_by = held_by.join(", "),
            "a plugin holds up a thread of the host that was lent for a short poll; blocking work belongs on `spawn_blocking`"
        );
    }

    /// Lends the calling thread to this plugin until the loan is dropped, if it can be spared.
    pub(super) fn lend(&self, plugin: u32) -> Option<Loan<'_>> {
        if self.held_up() > 0 {
            return None;
        }
        let now = self.looks.load(Ordering::Relaxed);
        let (taken, free) = (Ordering::Relaxed, Ordering::Relaxed);
        let place =
            self.places.iter().find(|place| place.since.compare_exchange(0, now, taken, free).is_ok())?;
        // Long before anybody asks: a loan is told of from the second look on.
        place.plugin.store(plugin, Ordering::Relaxed);
        LENT.set(true);
        Some(Loan(&place.since))
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
        let (first, second) = (lending.lend(1), lending.lend(1));
        assert!(first.is_some() && second.is_some() && lending.lend(1).is_none());
        drop(first);
        assert!(lending.lend(1).is_some());
        assert!(Lending::of(0).lend(1).is_none());
    }

    #[test]
    fn nothing_is_lent_while_a_lent_thread_is_held_up_and_who_holds_it_is_counted_once() {
        let lending = Lending::of(2);
        for (plugin, name) in [(1, "first"), (2, "second")] {
            lending.introduce(plugin, name, "1.0.0", None);
        }
        let (short, loan) = (lending.lend(1), lending.lend(2));
        assert_eq!(lending.look(), 0);
        drop(short);
        assert_eq!((lending.look(), lending.look()), (1, 1));
        assert!(lending.lend(1).is_none());
        drop(loan);
        assert_eq!(lending.look(), 0);
        assert!(lending.lend(1).is_some());
        assert_eq!(lending.times(), [("first".to_owned(), 0), ("second".to_owned(), 1)]);
    }

    #[test]
    fn what_a_lent_thread_spawns_runs_while_the_thread_is_still_held() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let lending = Lending::start(runtime.handle().clone()).unwrap();
        let handle = runtime.handle().clone();
        let blocked = runtime.spawn(async move {
            let _loan = lending.lend(1).unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            spawn(&handle, async move { sender.send(()).unwrap() });
            receiver.recv_timeout(Duration::from_secs(10)).is_ok()
        });
        assert!(runtime.block_on(blocked).unwrap());
    }
}
