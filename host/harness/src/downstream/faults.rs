//! How a fake service misbehaves: for the next requests, or for good for one key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and does nothing.
    Status(u16),
    /// Does what was asked and then answers with this status: the answer that lies.
    StatusAfterWork(u16),
    /// Answers nothing until [`Faults::clear`], then behaves.
    Stall,
}

/// The faults of one fake service. A key's fault goes before the queue of next ones.
#[derive(Debug)]
pub struct Faults {
    plan: Mutex<Plan>,
    cleared: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Plan {
    next: VecDeque<Fault>,
    by_key: HashMap<String, Fault>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { plan: Mutex::default(), cleared: watch::Sender::new(0) }
    }

    /// The next `times` requests meet `fault`.
    pub fn next(&self, times: usize, fault: Fault) {
        self.plan().next.extend(std::iter::repeat_n(fault, times));
    }

    /// Every request about `key` meets `fault` until [`Faults::clear`].
    pub fn always(&self, key: &str, fault: Fault) {
        self.plan().by_key.insert(key.to_owned(), fault);
    }

    /// From now on everything behaves; stalled requests go on.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
        self.cleared.send_modify(|times| *times += 1);
    }

    /// The fault for a request about `key`, taken from the queue; returns only after a stall is over.
    pub(crate) async fn meet(&self, key: &str) -> Option<Fault> {
        let mut cleared = self.cleared.subscribe();
        let fault = {
            let mut plan = self.plan();
            plan.by_key.get(key).copied().or_else(|| plan.next.pop_front())
        };
        if fault == Some(Fault::Stall) {
            // It fails only when the service is gone, and then nobody is waiting.
            let _ = cleared.changed().await;
            return None;
        }
        fault
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
