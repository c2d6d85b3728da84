//! How a plugin's slots are shared by its tasks.
//!
//! A pull that stands at the broker reserves slots, for its deliveries may come at any moment. So an idle task reserves
//! only its floor; a busy one takes what nobody else has, and gives back what is over its fair share as soon as another
//! one waits.
//!
//! Invariant: the shares of all tasks are never more than the slots.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A task counts as wanting for so long after it last had no slot left.
const WANTS_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Share {
    slots: usize,
    /// The most that it may have.
    max: usize,
    wanted_at: Option<Instant>,
}

#[derive(Debug)]
struct State {
    free: usize,
    shares: Vec<Share>,
}

/// The slots of one plugin.
#[derive(Debug)]
pub(super) struct Slots {
    floor: usize,
    total: usize,
    state: Mutex<State>,
    freed: Notify,
}

impl Slots {
    /// `total` slots for as many tasks as there are `maxima`: the most that each may have, at least one. Every task
    /// begins with its floor.
    pub(super) fn new(total: usize, maxima: &[usize]) -> Self {
        let tasks = maxima.len().max(1);
        let total = total.max(tasks);
        let floor = if tasks == 1 { total } else { (total / (2 * tasks)).max(1) };
        let share =
            |max: &usize| Share { slots: floor.min((*max).max(1)), max: (*max).max(1), wanted_at: None };
        let shares: Vec<_> = maxima.iter().map(share).collect();
        let given: usize = shares.iter().map(|share| share.slots).sum();
        let state = Mutex::new(State { free: total.saturating_sub(given), shares });
        Self { floor, total, state, freed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is only one task, which has nothing to share.
    pub(super) fn is_unshared(&self) -> bool {
        self.lock().shares.len() <= 1
    }

    /// Says that `task` has no slot left, and gives it up to `wish` more.
    pub(super) fn take(&self, task: usize, wish: usize) -> usize {
        let now = Instant::now();
        let mut state = self.lock();
        let Some(share) = state.shares.get_mut(task) else { return 0 };
        share.wanted_at = Some(now);
        let (slots, share_max) = (share.slots, share.max);
        let room = state.fair(self, now).min(share_max).saturating_sub(slots);
        let granted = wish.min(room).min(state.free);
        state.free -= granted;
        if let Some(share) = state.shares.get_mut(task) {
            share.slots += granted;
        }
        granted
    }

    /// How many slots `task` has over its fair share while another one waits for them.
    pub(super) fn excess(&self, task: usize) -> usize {
        let now = Instant::now();
        let state = self.lock();
        let others = state.shares.iter().enumerate().any(|(n, share)| n != task && share.wants(now));
        let Some(share) = state.shares.get(task) else { return 0 };
        if !others || state.free > 0 {
            return 0;
        }
        let keeps = if share.wants(now) { state.fair(self, now) } else { self.floor };
        share.slots.saturating_sub(keeps)
    }

    /// Gives slots of `task` back.
    pub(super) fn give(&self, task: usize, slots: usize) {
        let mut state = self.lock();
        let Some(share) = state.shares.get_mut(task) else { return };
        let slots = slots.min(share.slots);
        share.slots -= slots;
        state.free += slots;
        drop(state);
        self.freed.notify_waiters();
    }

    /// Waits until slots become free. A hint: whoever waits looks from time to time all the same.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The slots of `task`.
    pub(super) fn share(&self, task: usize) -> usize {
        self.lock().shares.get(task).map_or(0, |share| share.slots)
    }
}

impl State {
    /// The most that one wanting task may have: an equal part of what the idle ones leave, and what those leave that may
    /// not have so many.
    fn fair(&self, slots: &Slots, now: Instant) -> usize {
        let kept = |share: &Share| share.max.min(slots.floor);
        let idle: usize = self.shares.iter().filter(|share| !share.wants(now)).map(kept).sum();
        let mut left = slots.total.saturating_sub(idle);
        let mut wanting: Vec<usize> =
            self.shares.iter().filter(|share| share.wants(now)).map(|share| share.max).collect();
        wanting.sort_unstable();
        let mut part = left;
        for (place, max) in wanting.iter().enumerate() {
            part = left / (wanting.len() - place);
            left = left.saturating_sub(part.min(*max));
        }
        part.max(slots.floor)
    }
}

impl Share {
    fn wants(&self, now: Instant) -> bool {
        self.wanted_at.is_some_and(|at| now.saturating_duration_since(at) < WANTS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_busy_task_takes_all_but_the_floors_and_gives_back_when_another_one_waits() {
        let slots = Slots::new(64, &[64; 4]);
        assert_eq!(slots.share(3), 8);
        assert_eq!(slots.take(0, 1000), 32);
        assert_eq!(slots.share(0), 40);
        assert_eq!(slots.excess(0), 0, "nobody else wants any");
        assert_eq!(slots.take(1, 8), 0, "nothing is free");
        // Two want, two idle: (64 - 16) / 2.
        assert_eq!(slots.excess(0), 16);
        slots.give(0, 16);
        assert_eq!(slots.take(1, 100), 16);
        assert_eq!((slots.share(0), slots.share(1)), (24, 24));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(slots.take(1, 100), 0);
        assert_eq!(slots.excess(0), 16, "the first one is idle now, and keeps its floor");
    }

    #[test]
    fn one_task_has_all_slots_and_every_task_has_one() {
        assert_eq!(Slots::new(64, &[64]).share(0), 64);
        assert_eq!(Slots::new(2, &[2; 10]).share(9), 1);
        assert_eq!(Slots::new(2, &[2; 10]).lock().free, 0);
    }

    #[test]
    fn no_task_gets_more_slots_than_it_may_have() {
        let slots = Slots::new(64, &[3, 64]);
        assert_eq!((slots.share(0), slots.share(1)), (3, 16));
        assert_eq!(slots.take(0, 100), 0);
        assert_eq!(slots.take(1, 100), 45, "what the other one may not have is free");
        assert_eq!(Slots::new(64, &[2]).share(0), 2);
    }
}
