//! Finds a handler that holds its thread past its time limit.
//!
//! A handler that waits is dropped at its limit, and gone with its next poll. One that blocks or computes has no next
//! poll: its thread stays marked as polling it, and what else is to run on that thread waits. Only the end of its
//! process ends it.
//!
//! Invariants: a handler is overdue only after its limit and [`PATIENCE`], however long it holds its thread before; one
//! whose limit was never seen is judged by none.
//!
//! What it refuses: it ends nothing.

use crate::crash::{Board, Entry};
use std::collections::HashMap;
use std::time::Duration;

/// How often the board is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Time a handler has to notice that it was dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handler that holds its thread past its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Its entry, as it was last seen.
    pub(super) entry: Entry,
    /// Whether the host still waits for it: it is polled on the very thread that would give it up.
    pub(super) is_held: bool,
}

/// Remembers what is being polled, from look to look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By thread and poll: the entry as it was first seen. A later attempt of the same task is another poll.
    known: HashMap<(u32, u64), Entry>,
}

impl Watch {
    /// The first handler that is overdue.
    pub(super) fn look(&mut self, board: &Board, now_unix_ms: u64) -> Option<Overdue> {
        let polling = board.polling();
        if polling.is_empty() {
            self.known.clear();
            return None;
        }
        let live = board.live();
        self.known.retain(|key, _| polling.iter().any(|thread| (thread.tid, thread.poll) == *key));
        for thread in &polling {
            let key = (thread.tid, thread.poll);
            // The same task may wait beside its attempt, as a delivery that came again.
            let entry = live.iter().find(|entry| entry.id == thread.id && is_running(entry));
            if let Some(entry) = entry.filter(|_| !self.known.contains_key(&key)) {
                self.known.insert(key, entry.clone());
            }
            let Some(entry) = self.known.get(&key) else { continue };
            let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(0);
            if now_unix_ms > entry.hard_deadline_unix_ms.saturating_add(patience) {
                let is_held = live.iter().any(|held| held == entry);
                return Some(Overdue { entry: entry.clone(), is_held });
            }
        }
        None
    }
}

fn is_running(entry: &Entry) -> bool {
    !entry.kind.is_task() || entry.attempt > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Kind;

    #[test]
    fn thread_that_polls_past_the_limit_is_overdue_whether_or_not_the_host_still_waits() {
        let board = Board::create().unwrap();
        let mut watch = Watch::default();
        let slot = board.thread_slot().unwrap();
        let claim = board.claim(Kind::Task, [1; 16], "ack", "chaos", "short", 1, 10_000).unwrap();
        slot.enter(1, [1; 16]);
        assert_eq!(watch.look(&board, 11_000), None, "it has a moment to notice");
        assert!(watch.look(&board, 11_001).unwrap().is_held);
        drop(claim);
        let overdue = watch.look(&board, 11_001).unwrap();
        assert_eq!((overdue.entry.name.as_str(), overdue.is_held), ("short", false));
        let retry = board.claim(Kind::Task, [1; 16], "ack", "chaos", "short", 2, 90_000).unwrap();
        assert_eq!(watch.look(&board, 11_001).unwrap().entry.attempt, 1, "its next attempt waits behind it");
        drop(retry);
        slot.leave();
        assert_eq!(watch.look(&board, 11_001), None, "it came back");
        slot.enter(1, [1; 16]);
        assert_eq!(watch.look(&board, 99_999), None, "nothing is known of its limit");
    }
}
