//! Which context a plugin's thread is polling now.
//!
//! The SDK tells the host what it polls, around each poll, and the host marks it here: a thread-local
//! look-up and three stores. After a crash the supervisor reads which contexts were being polled.
//!
//! A mark is a hint, not a fact: a thread that was preempted between poll and mark leaves the last one
//! standing, and a plugin may write nonsense. Together with the number of the thread that crashed it names
//! the culprit; a task is given up only when it was named several times.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many threads can be watched at once; a thread beyond that polls unmarked.
pub const THREAD_SLOTS: usize = 256;

/// One thread's mark, in the shared memory. A cache line of its own, so that two threads' marks never
/// slow each other down.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ThreadSlot {
    /// The kernel's thread id; 0 while the slot is free.
    pub(super) tid: AtomicU32,
    /// The plugin's index in the child, counted from 1; 0 = not known.
    plugin: AtomicU32,
    /// The context that is being polled: its 16-byte id as two big-endian halves. Both 0 = none.
    context: [AtomicU64; 2],
    /// How many polls began on this thread: tells two polls of one context apart.
    polls: AtomicU64,
}

/// A thread that was marked as polling something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// The kernel's thread id.
    pub tid: u32,
    /// The plugin's index in the child, counted from 1; 0 = not known.
    pub plugin: u32,
    /// The id of the call or task.
    pub id: [u8; 16],
    /// Which poll of the thread's it is.
    pub poll: u64,
}

impl ThreadSlot {
    /// Marks the context as being polled.
    pub fn enter(&self, plugin: u32, id: [u8; 16]) {
        let id = u128::from_be_bytes(id);
        // Only this thread writes it.
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.plugin.store(plugin, Ordering::Relaxed);
        self.context[1].store(id as u64, Ordering::Relaxed);
        self.context[0].store((id >> 64) as u64, Ordering::Release);
    }

    /// Marks that nothing is being polled.
    pub fn leave(&self) {
        self.context[0].store(0, Ordering::Relaxed);
        self.context[1].store(0, Ordering::Release);
    }

    /// What the thread is polling, if its slot says so.
    pub(super) fn polling(&self) -> Option<Polling> {
        let tid = self.tid.load(Ordering::Acquire);
        let high = u128::from(self.context[0].load(Ordering::Acquire));
        let low = u128::from(self.context[1].load(Ordering::Relaxed));
        let id = (high << 64) | low;
        let plugin = self.plugin.load(Ordering::Relaxed);
        (tid != 0 && id != 0).then(|| Polling {
            tid,
            plugin,
            id: id.to_be_bytes(),
            poll: self.polls.load(Ordering::Relaxed),
        })
    }

    /// Frees the slot.
    pub(super) fn clear(&self) {
        self.leave();
        self.plugin.store(0, Ordering::Relaxed);
        self.tid.store(0, Ordering::Release);
    }
}

/// A thread's hold on its slot; freed by the thread's end, if that is an orderly one.
struct Held {
    slot: &'static ThreadSlot,
    culprit: &'static AtomicU32,
}

impl Drop for Held {
    fn drop(&mut self) {
        // A thread that ends in the middle of a poll has called `exit`: the supervisor shall read by whom.
        match self.slot.polling() {
            None => self.slot.clear(),
            // The first one counts: what a fault has noted stands.
            Some(polling) => {
                let (free, set) = (Ordering::Relaxed, Ordering::Release);
                let _ = self.culprit.compare_exchange(0, polling.tid, set, free);
            }
        }
    }
}

thread_local! {
    /// One slot per board: a process has one board, tests have several.
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// The slot among `slots` that the calling thread has; `None` where it has none yet, or is ending.
pub(super) fn held(slots: &'static [ThreadSlot]) -> Option<&'static ThreadSlot> {
    HELD.try_with(|held| {
        let range = slots.as_ptr_range();
        let held = held.try_borrow().ok()?;
        held.iter().find(|held| range.contains(&std::ptr::from_ref(held.slot))).map(|held| held.slot)
    })
    .ok()
    .flatten()
}

/// A free one of `slots` for the calling thread, which has none; `None` when all are taken or the thread is ending.
pub(super) fn claim(
    slots: &'static [ThreadSlot],
    culprit: &'static AtomicU32,
) -> Option<&'static ThreadSlot> {
    HELD.try_with(|held| {
        let mut held = held.try_borrow_mut().ok()?;
        let tid = super::fault::this_thread();
        let slot = slots
            .iter()
            .find(|slot| slot.tid.compare_exchange(0, tid, Ordering::AcqRel, Ordering::Relaxed).is_ok())?;
        held.push(Held { slot, culprit });
        Some(slot)
    })
    .ok()
    .flatten()
}
