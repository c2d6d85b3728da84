//! Which slots of the board are free, so that a claim costs nanoseconds and never a scan.
//!
//! A stack, because the slot released last is the one whose cache lines are still warm. Lock-free: the
//! head carries a tag that changes with every operation, so that a head which was popped and pushed
//! back in between (ABA) is noticed.
//!
//! The list is private to the process that claims; it is not in the shared memory, where a plugin's
//! wild write could send a claimer round a cycle for ever and where a reader has no use for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The end of the list: no slot has this index.
const NONE: u32 = u32::MAX;

/// A lock-free stack of slot indices.
#[derive(Debug)]
pub(super) struct FreeList {
    /// Upper half: tag; lower half: index of the top slot, or `NONE`.
    head: AtomicU64,
    /// For each slot, the one below it.
    below: Box<[AtomicU32]>,
}

fn head(tag: u64, index: u32) -> u64 {
    (tag << 32) | u64::from(index)
}

impl FreeList {
    /// A list in which the slots `0..count` are free; slot 0 is popped first.
    pub(super) fn full(count: u32) -> Self {
        let below = (1..=count).map(|next| AtomicU32::new(if next == count { NONE } else { next })).collect();
        Self { head: AtomicU64::new(head(0, if count == 0 { NONE } else { 0 })), below }
    }

    /// Takes a free slot; `None` when all are taken.
    pub(super) fn pop(&self) -> Option<u32> {
        let mut seen = self.head.load(Ordering::Acquire);
        loop {
            // The lower half is the index: the cut is meant.
            let index = seen as u32;
            // `NONE` is out of bounds, so an empty list ends here.
            let next = self.below.get(index as usize)?.load(Ordering::Relaxed);
            let wanted = head((seen >> 32).wrapping_add(1), next);
            match self.head.compare_exchange_weak(seen, wanted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives a slot back. The caller holds it, so it is on the list at most once.
    pub(super) fn push(&self, index: u32) {
        let Some(below) = self.below.get(index as usize) else { return };
        let mut seen = self.head.load(Ordering::Relaxed);
        loop {
            below.store(seen as u32, Ordering::Relaxed);
            let wanted = head((seen >> 32).wrapping_add(1), index);
            match self.head.compare_exchange_weak(seen, wanted, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_slot_is_handed_out_once_and_then_none() {
        let list = FreeList::full(3);
        assert_eq!([list.pop(), list.pop(), list.pop(), list.pop()], [Some(0), Some(1), Some(2), None]);
        list.push(1);
        assert_eq!([list.pop(), list.pop()], [Some(1), None]);
        assert_eq!(FreeList::full(0).pop(), None);
    }

    #[test]
    fn threads_never_hold_the_same_slot() {
        let list = FreeList::full(8);
        let held: Vec<AtomicBool> = (0..8).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        let Some(index) = list.pop() else { continue };
                        assert!(!held[index as usize].swap(true, Ordering::SeqCst), "two hold {index}");
                        held[index as usize].store(false, Ordering::SeqCst);
                        list.push(index);
                    }
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| list.pop()).count(), 8);
    }
}
