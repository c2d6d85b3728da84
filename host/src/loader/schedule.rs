//! A plugin's schedules: what it declares, and what its operator lays over it.
//!
//! Invariant: what passes the checks here the broker accepts, so a mistake is told at load and not at three in the morning.

use super::description::{Description, TaskDescription};
use crate::config::ScheduleOverrides;
use crate::terms::Terms;
use cardcage_protocol::schedule::SCHEDULE_BODY_MAX_BYTES;
use cardcage_protocol::{Cadence, Missed, Name, Overlap, ScheduleDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A schedule, as it is declared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduleDescription {
    /// Its name, unique in the plugin.
    pub name: String,
    /// The task.
    pub task: String,
    /// The interval.
    #[serde(default)]
    pub every: Option<String>,
    /// The cron expression.
    #[serde(default)]
    pub cron: Option<String>,
    /// Whose clocks the cron expression means.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// While an earlier task has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// When no worker was there.
    #[serde(default)]
    pub missed: Missed,
    /// The task's body.
    #[serde(default)]
    pub body: Value,
    /// Why the body could not be written.
    #[serde(default)]
    pub body_fault: Option<String>,
    /// Its operator has switched it off.
    #[serde(default)]
    pub disabled: bool,
}

impl ScheduleDescription {
    /// What is wrong with it, as the end of a sentence that starts with the file.
    pub(super) fn check(&self, tasks: &[TaskDescription]) -> Result<(), String> {
        let Self { name, task, .. } = self;
        if !super::inspect::is_name(name) {
            return Err(format!("declares a schedule `{name}`, which is no name"));
        }
        let Some(task) = tasks.iter().find(|known| known.name == *task) else {
            return Err(format!(
                "declares the schedule `{name}` for the task `{task}`, which it does not have"
            ));
        };
        if let Err(error) = self.cadence() {
            return Err(format!("declares the schedule `{name}` wrongly: {error}"));
        }
        if let Some(fault) = &self.body_fault {
            return Err(format!("declares the schedule `{name}` with a body that is no JSON ({fault})"));
        }
        let bytes = self.body.to_string().len();
        if bytes > SCHEDULE_BODY_MAX_BYTES {
            return Err(format!(
                "declares the schedule `{name}` with a body of {bytes} bytes; at most {SCHEDULE_BODY_MAX_BYTES} are accepted"
            ));
        }
        let schema = jsonschema::validator_for(&task.input_schema);
        match schema.as_ref().map(|schema| schema.validate(&self.body)) {
            Ok(Err(error)) => Err(format!(
                "declares the schedule `{name}` with a body that its task `{}` does not accept ({error})",
                task.name
            )),
            _ => Ok(()),
        }
    }

    fn cadence(&self) -> Result<Cadence, cardcage_protocol::CadenceError> {
        Cadence::parse(self.every.as_deref(), self.cron.as_deref(), self.time_zone.as_deref())
    }

    fn lay_over(&mut self, over: &ScheduleOverrides) {
        if over.every.is_some() {
            (self.cron, self.time_zone) = (None, None);
            self.every.clone_from(&over.every);
        }
        if over.cron.is_some() {
            self.every = None;
            self.cron.clone_from(&over.cron);
        }
        if over.time_zone.is_some() {
            self.time_zone.clone_from(&over.time_zone);
        }
        if let Some(enabled) = over.enabled {
            self.disabled = !enabled;
        }
    }
}

impl Description {
    /// Lays the operator's word over the author's schedules. What is wrong with it, [`schedule_faults`] tells.
    pub(crate) fn lay_over_schedules(&mut self, overrides: &BTreeMap<String, ScheduleOverrides>) {
        for schedule in &mut self.schedules {
            if let Some(over) = overrides.get(&schedule.name) {
                schedule.lay_over(over);
            }
        }
    }

    /// What the broker is to hold: the schedules, by name.
    #[must_use]
    pub fn schedule_definitions(&self) -> BTreeMap<Name, ScheduleDefinition> {
        self.schedules.iter().filter_map(|schedule| self.definition(schedule)).collect()
    }

    fn definition(&self, schedule: &ScheduleDescription) -> Option<(Name, ScheduleDefinition)> {
        let task = self.tasks.iter().find(|task| task.name == schedule.task)?;
        let terms = Terms::of(task);
        let keys = terms.keys(schedule.body.to_string().as_bytes());
        let definition = ScheduleDefinition {
            task: Name::new(&schedule.task).ok()?,
            major: self.major(),
            every: schedule.every.clone(),
            cron: schedule.cron.clone(),
            time_zone: schedule.time_zone.clone(),
            overlap: schedule.overlap,
            missed: schedule.missed,
            body: schedule.body.clone(),
            expires_ms: task.expires_ms,
            unique_key: keys.unique,
            serial_key: keys.serial,
            disabled: schedule.disabled,
        };
        Some((Name::new(&schedule.name).ok()?, definition))
    }
}

/// One sentence for each entry of `plugins.<name>.schedules` that cannot be meant.
#[must_use]
pub fn schedule_faults(
    name: &str,
    overrides: &BTreeMap<String, ScheduleOverrides>,
    description: &Description,
) -> Vec<String> {
    let fault = |(schedule, over): (&String, &ScheduleOverrides)| {
        let at = format!("`plugins.{name}.schedules.{schedule}`");
        let Some(declared) = description.schedules.iter().find(|declared| declared.name == *schedule) else {
            let names: Vec<String> =
                description.schedules.iter().map(|declared| format!("`{}`", declared.name)).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Some(format!("{at} names no schedule of the plugin; it has {known}"));
        };
        let mut laid_over = declared.clone();
        laid_over.lay_over(over);
        laid_over.cadence().err().map(|error| format!("{at} cannot be laid over the schedule: {error}"))
    };
    overrides.iter().filter_map(fault).collect()
}
