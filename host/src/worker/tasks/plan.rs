//! What is to be written, in which order: the answer of every decision.

use cardcage_protocol::{FollowUp, StagedTask, State, TaskRecord};
use std::time::Duration;

/// Writes in their order: the record, then what it owes, then the word to the broker.
#[derive(Debug)]
pub(super) struct Plan {
    /// The fenced record; `None` where it stands already, or where there is none to be.
    pub(super) write: Option<Write>,
    /// Idempotent publishes.
    pub(super) then: Vec<FollowUp>,
    /// The last word.
    pub(super) last: Last,
}

/// A record, and the sequence that the last one must stand at (0: there is none).
#[derive(Debug)]
pub(super) struct Write {
    pub(super) record: TaskRecord,
    pub(super) fence: u64,
    /// How long it is kept, where that is not as long as records are.
    pub(super) ttl: Option<Duration>,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Remove it.
    Done,
    /// Give it to somebody else now.
    HandBack,
}

impl Plan {
    /// Removes the delivery and writes nothing.
    pub(super) fn done() -> Self {
        Self { write: None, then: Vec::new(), last: Last::Done }
    }

    /// Publishes what is owed, and removes the delivery.
    pub(super) fn redo(owed: &[FollowUp]) -> Self {
        Self { then: owed.to_vec(), ..Self::done() }
    }

    /// Keeps a final record for this long only, where something is said.
    pub(super) fn kept_for(mut self, ttl: Option<Duration>) -> Self {
        if let Some(write) = self.write.as_mut().filter(|write| write.record.state.is_final()) {
            write.ttl = ttl;
        }
        self
    }

    /// A success brings what its attempt enqueued; whatever else an attempt comes to drops it.
    pub(super) fn with_children(mut self, children: &[StagedTask]) -> Self {
        if let Some(write) = self.write.as_mut().filter(|write| write.record.state == State::Succeeded)
            && !children.is_empty()
        {
            write.record.children = children.to_vec();
            write.record.follow_up.push(FollowUp::Children);
            self.then.push(FollowUp::Children);
        }
        self
    }

    /// Writes the record, publishes what it owes, and removes the delivery.
    pub(super) fn record(record: TaskRecord, fence: u64) -> Self {
        Self {
            then: record.follow_up.clone(),
            write: Some(Write { record, fence, ttl: None }),
            last: Last::Done,
        }
    }
}
