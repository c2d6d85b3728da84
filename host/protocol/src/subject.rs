//! Every subject, stream, consumer and bucket name, each exactly once.
//!
//! Nobody else in the project formats a subject. What is written here can be read back here.
//!
//! Invariants: everything begins with the namespace; a task's id is the last token of its subjects, so that a queued
//! task can be found without a second write.

mod buckets;
mod calls;
mod records;
mod tasks;
#[cfg(test)]
mod tests;

use crate::address::{SubjectError, TaskAddress, push_u32};
use crate::name::Namespace;

/// The queue group in which workers share calls.
pub const WORKERS_GROUP: &str = "workers";

/// All names of one namespace. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Subjects {
    ns: Namespace,
}

impl Subjects {
    /// The names of `namespace`.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self { ns: namespace }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    fn with_address(&self, space: &str, address: &TaskAddress) -> String {
        let TaskAddress { plugin, major, task, priority, id } = address;
        let mut subject = String::with_capacity(160);
        // Plain appends: this runs for every task, and `write!` costs three times as much.
        for part in [self.ns.as_str(), ".", space, ".", plugin.as_str(), ".v"] {
            subject.push_str(part);
        }
        push_u32(&mut subject, *major);
        for part in [".", task.as_str(), ".", priority.token(), ".", id.encode(&mut [0; 36])] {
            subject.push_str(part);
        }
        subject
    }

    fn parse(&self, space: &str, subject: &str) -> Result<TaskAddress, SubjectError> {
        let error = || SubjectError { subject: subject.chars().take(400).collect() };
        self.tail(space, subject).ok_or_else(error)?.parse().map_err(|_| error())
    }

    fn tail<'a>(&self, space: &str, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(self.ns.as_str())?.strip_prefix('.')?;
        rest.strip_prefix(space)?.strip_prefix('.')
    }
}
