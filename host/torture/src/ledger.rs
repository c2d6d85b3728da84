//! What callers sent and what they were promised.
//!
//! Invariant: an id stands here only if a caller read it in a 202.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cardcage_protocol::TaskId;

use crate::submission::Submission;

/// One submission's page.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) submission: Submission,
    /// Each id that was promised for it; two are one too many.
    pub(crate) promised: Vec<TaskId>,
    /// The API said 404 of a promised id.
    pub(crate) denials: u32,
}

#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<u64, Entry>,
    answers: BTreeMap<String, u64>,
}

/// The ledger; shared by all callers.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Pages>);

impl Ledger {
    /// A submission is about to be sent.
    pub(crate) fn open(&self, submission: &Submission) {
        let entry = Entry { submission: submission.clone(), promised: Vec::new(), denials: 0 };
        self.pages().entries.insert(submission.n, entry);
    }

    /// A submission got this answer.
    pub(crate) fn answered(&self, answer: String) {
        *self.pages().answers.entry(answer).or_default() += 1;
    }

    /// A caller read this id in a 202.
    pub(crate) fn promised(&self, n: u64, id: TaskId) {
        if let Some(entry) = self.pages().entries.get_mut(&n)
            && !entry.promised.contains(&id)
        {
            entry.promised.push(id);
        }
    }

    /// The API said 404 of a promised id.
    pub(crate) fn denied(&self, n: u64) {
        if let Some(entry) = self.pages().entries.get_mut(&n) {
            entry.denials += 1;
        }
    }

    /// Every page so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.pages().entries.values().cloned().collect()
    }

    /// Every answer to a submission, and how often it came.
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        self.pages().answers.clone()
    }

    /// A caller that panicked has left whole pages behind.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
