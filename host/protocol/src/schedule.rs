//! What is stored of a schedule: its definition, who declared it, and whether it stands still.
//!
//! The broker keeps one message per schedule. While it is active, the broker copies this text into each firing: so a
//! firing says all that is needed to make a task of it, and is the slot of the definition that it carries.
//!
//! Invariants: the definition is what an author or operator declares and nothing else, so that hosts that agree never
//! rewrite, which would start an interval anew; a firing's task id depends on definition and slot alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cadence::{Cadence, CadenceError};
use crate::id::TaskId;
use crate::name::Name;
use crate::timestamp::Timestamp;

/// Largest body of a scheduled task: some firings of it may wait.
pub const SCHEDULE_BODY_MAX_BYTES: usize = 64 * 1024;

/// What becomes of a firing while the task of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It is queued all the same.
    Queue,
}

/// What becomes of slots that no worker took up in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The last of them is made up for, the others are left out.
    #[default]
    RunOnce,
    /// They are left out.
    Skip,
}

/// What is declared of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleDefinition {
    /// The task.
    pub task: Name,
    /// The major version whose task it is.
    pub major: u32,
    /// The interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Whose clocks the cron expression means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// While an earlier task runs.
    #[serde(default)]
    pub overlap: Overlap,
    /// When no worker was there.
    #[serde(default)]
    pub missed: Missed,
    /// The task's body.
    pub body: Value,
    /// How long each task may wait from its slot on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The unique key that the task has with this body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// The serial key that the task has with this body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<String>,
    /// Whether its operator has switched it off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

impl ScheduleDefinition {
    /// When it fires.
    ///
    /// # Errors
    /// [`CadenceError`], which declarations have been checked for.
    pub fn cadence(&self) -> Result<Cadence, CadenceError> {
        Cadence::parse(self.every.as_deref(), self.cron.as_deref(), self.time_zone.as_deref())
    }
}

/// One schedule as the broker keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Version of this form.
    pub v: u32,
    /// The plugin.
    pub plugin: Name,
    /// The schedule.
    pub name: Name,
    /// The version of the plugin that declared it.
    pub declared_by: String,
    /// When, by the broker's clock.
    pub declared_at: Timestamp,
    /// What it declared.
    pub definition: ScheduleDefinition,
    /// Since when an operator has it paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    /// Since when it stands still because no worker has its plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
}

impl ScheduleRecord {
    /// Whether the broker fires it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.definition.disabled && self.paused_at.is_none() && self.absent_since.is_none()
    }

    /// The task id of the slot before the one at `next`, by which the broker names a slot. Whoever computes it, and however
    /// often the broker fires the slot, it is the same; a changed definition has slots of its own.
    #[must_use]
    pub fn slot_task_id(&self, next: Timestamp) -> TaskId {
        let (at, next_ms) = (self.declared_at.unix_ms().to_be_bytes(), next.unix_ms().to_be_bytes());
        let parts: [&[u8]; 5] =
            [b"slot", self.plugin.as_str().as_bytes(), self.name.as_str().as_bytes(), &at, &next_ms];
        TaskId::derive_from(next.unix_ms(), &parts)
    }
}

/// What is remembered of a schedule's last firing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFiring {
    /// Version of this form.
    pub v: u32,
    /// The task that it became.
    pub task_id: TaskId,
    /// When the broker fired it.
    pub at: Timestamp,
    /// When a worker took it up.
    pub taken_up_at: Timestamp,
    /// The slot after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> ScheduleRecord {
        serde_json::from_value(json!({
            "v": 1,
            "plugin": "orders",
            "name": "reconcile",
            "declared_by": "1.2.0",
            "declared_at": "2026-01-31T12:00:00.000Z",
            "definition": { "task": "reconcile", "major": 1, "every": "5m", "body": { "all": true } },
        }))
        .unwrap()
    }

    #[test]
    fn the_stored_form_of_this_version_reads_back() {
        let record = record();
        assert_eq!((record.definition.overlap, record.definition.missed), (Overlap::Skip, Missed::RunOnce));
        assert!(record.is_active());
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(serde_json::from_value::<ScheduleRecord>(json).unwrap(), record);
    }

    #[test]
    fn slot_has_one_task_id_and_another_definition_another() {
        let (record, next) = (record(), "2026-01-31T12:05:00.000Z".parse().unwrap());
        let mut again = record.clone();
        again.paused_at = Some(next);
        assert_eq!(record.slot_task_id(next), again.slot_task_id(next));
        again.declared_at = next;
        assert_ne!(record.slot_task_id(next), again.slot_task_id(next));
        assert_ne!(record.slot_task_id(next), record.slot_task_id(next.plus_ms(1_000)));
    }
}
