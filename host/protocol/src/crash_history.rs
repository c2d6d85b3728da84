//! What is stored of one plugin version's crashes, and when they are too many. Pure.
//!
//! A task that crashes its worker is given up after some tries. A plugin version of which one task after the other does
//! that takes the worker from everybody else for as long as tasks come: it is *quarantined*. The history belongs to the
//! version, so that another one is free from its first start.
//!
//! Invariants: a task counts once, however often it crashed; a quarantine ends only by a release, never by time or by
//! further crashes.

use crate::id::{InstanceId, TaskId};
use crate::name::Name;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// The crashes that are kept at most; the oldest go first.
pub const CRASHES_MAX: usize = 100;

/// One task's crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Which task.
    pub task_id: TaskId,
    /// Its name.
    pub task: Name,
    /// When, by the broker's clock.
    pub at: Timestamp,
    /// Whose child died.
    pub worker: InstanceId,
    /// How, such as `died of SIGSEGV`.
    pub how: String,
}

/// When crashes are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// So many different tasks; 0: never.
    pub after: u32,
    /// Within so many milliseconds.
    pub window_ms: u64,
}

/// The crashes of one plugin version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashHistory {
    /// Version of this record; today 1.
    pub v: u32,
    /// The plugin.
    pub plugin: Name,
    /// Its version.
    pub version: String,
    /// Its crashes, a task's latest one, oldest first.
    #[serde(default)]
    pub crashes: Vec<Crash>,
    /// Since when it is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_at: Option<Timestamp>,
}

impl CrashHistory {
    /// A version that has not crashed.
    #[must_use]
    pub fn new(plugin: Name, version: &str) -> Self {
        Self { v: 1, plugin, version: version.to_owned(), crashes: Vec::new(), quarantined_at: None }
    }

    /// Adds a crash; true where it is one too many.
    pub fn note(&mut self, crash: Crash, policy: QuarantinePolicy) -> bool {
        let now = crash.at;
        self.crashes.retain(|known| known.task_id != crash.task_id);
        if self.quarantined_at.is_none() {
            // What led to a quarantine stays as its reason.
            self.crashes.retain(|known| now.unix_ms().saturating_sub(known.at.unix_ms()) <= policy.window_ms);
        }
        self.crashes.push(crash);
        let over = self.crashes.len().saturating_sub(CRASHES_MAX);
        self.crashes.drain(..over);
        let tasks = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        let too_many = policy.after > 0 && tasks >= policy.after && self.quarantined_at.is_none();
        if too_many {
            self.quarantined_at = Some(now);
        }
        too_many
    }

    /// The first number of the version.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }

    /// Why it is quarantined, as the rest of a sentence that begins with the plugin.
    #[must_use]
    pub fn reason(&self) -> String {
        let last =
            self.crashes.last().map(|crash| format!(", the last time in {} ({})", crash.task, crash.how));
        format!("it crashed its worker in {} different tasks{}", self.crashes.len(), last.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: QuarantinePolicy = QuarantinePolicy { after: 3, window_ms: 1_000 };

    fn crash(id: TaskId, at_ms: u64) -> Crash {
        Crash {
            task_id: id,
            task: "fulfil".parse().unwrap(),
            at: Timestamp::from_unix_ms(at_ms),
            worker: InstanceId::new("worker-1").unwrap(),
            how: "died of SIGSEGV".into(),
        }
    }

    fn history() -> CrashHistory {
        CrashHistory::new("orders".parse().unwrap(), "1.2.3")
    }

    #[test]
    fn different_tasks_within_the_window_are_too_many_and_one_task_never_is() {
        let (one, mut history) = (TaskId::generate(), history());
        for at in 0..10 {
            assert!(!history.note(crash(one, at), POLICY));
        }
        assert_eq!(history.crashes.len(), 1);
        assert!(!history.note(crash(TaskId::generate(), 500), POLICY));
        assert!(!history.note(crash(TaskId::generate(), 1_020), POLICY), "the first one is long ago");
        assert!(history.note(crash(TaskId::generate(), 1_030), POLICY));
        assert_eq!(history.quarantined_at, Some(Timestamp::from_unix_ms(1_030)));
        assert_eq!(
            history.reason(),
            "it crashed its worker in 3 different tasks, the last time in fulfil (died of SIGSEGV)"
        );
    }

    #[test]
    fn quarantine_stands_whatever_comes_after_and_its_history_is_bounded() {
        let mut history = history();
        for at in 0..300 {
            history.note(crash(TaskId::generate(), at * 100_000), QuarantinePolicy { after: 1, ..POLICY });
        }
        assert_eq!(
            (history.quarantined_at, history.crashes.len()),
            (Some(Timestamp::from_unix_ms(0)), CRASHES_MAX)
        );
    }

    #[test]
    fn no_crash_is_too_many_where_the_limit_is_zero() {
        let mut history = history();
        let never = QuarantinePolicy { after: 0, ..POLICY };
        assert!((0..50).all(|_| !history.note(crash(TaskId::generate(), 1), never)));
    }

    #[test]
    fn a_later_hosts_history_reads() {
        let json = r#"{"v":1,"plugin":"orders","version":"1.2.3","later":true}"#;
        let read: CrashHistory = serde_json::from_str(json).unwrap();
        assert_eq!((read.major(), read.quarantined_at), (Some(1), None));
    }
}
