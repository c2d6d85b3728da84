//! Tasks that were cancelled while they were not here: their deliveries may be on the way.
//!
//! Invariants: nothing is remembered for longer than [`REMEMBERED_FOR`], nor more than [`REMEMBERED_MAX`]; asking costs the
//! same however many there are.

use cardcage_protocol::TaskId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long a cancellation is remembered: what is on its way arrives within the time of a publish and a pull.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);
/// At most so many; the oldest go first.
const REMEMBERED_MAX: usize = 10_000;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Cancellations {
    /// Oldest first. A task that is cancelled again keeps its place.
    order: VecDeque<TaskId>,
    at: HashMap<TaskId, Instant>,
}

impl Cancellations {
    pub(super) fn remember(&mut self, id: TaskId) {
        self.forget_old();
        if self.at.contains_key(&id) {
            return;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.at.remove(&oldest);
        }
        self.order.push_back(id);
        self.at.insert(id, Instant::now());
    }

    pub(super) fn contains(&mut self, id: TaskId) -> bool {
        self.forget_old();
        self.at.contains_key(&id)
    }

    fn forget_old(&mut self) {
        while let Some(oldest) = self.order.front() {
            if self.at.get(oldest).is_some_and(|at| at.elapsed() <= REMEMBERED_FOR) {
                return;
            }
            self.at.remove(oldest);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cancellations_are_remembered_for_two_minutes_and_the_oldest_give_way() {
        let mut cancelled = Cancellations::default();
        let (first, second) = (TaskId::generate(), TaskId::generate());
        cancelled.remember(first);
        tokio::time::advance(REMEMBERED_FOR).await;
        cancelled.remember(second);
        assert!(cancelled.contains(first) && cancelled.contains(second));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!cancelled.contains(first) && cancelled.contains(second));
        (1..REMEMBERED_MAX).for_each(|_| cancelled.remember(TaskId::generate()));
        assert!(cancelled.contains(second));
        cancelled.remember(first);
        assert!(!cancelled.contains(second) && cancelled.contains(first));
        assert_eq!((cancelled.order.len(), cancelled.at.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
