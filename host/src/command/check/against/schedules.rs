//! Schedules of a deployed version, held against the candidate's: what starts tasks by itself today and would not any more.

use super::finding::{Finding, Kind};
use crate::loader::{Description, ScheduleDescription};

/// When it fires, in words.
fn rhythm(schedule: &ScheduleDescription) -> String {
    let rhythm = schedule.every.as_deref().or(schedule.cron.as_deref()).unwrap_or_default();
    match &schedule.time_zone {
        Some(zone) => format!("{rhythm} ({zone})"),
        None => rhythm.to_owned(),
    }
}

/// What would become of those that fire.
pub(super) fn compare(plugin: &str, before: &Description, after: &Description) -> Vec<Finding> {
    let mut findings = Vec::new();
    for schedule in before.schedules.iter().filter(|schedule| !schedule.disabled) {
        let of = format!("schedule {}", schedule.name);
        let task = &schedule.task;
        match after.schedules.iter().find(|one| one.name == schedule.name) {
            None => {
                let message = format!("is gone: nothing starts {task} by itself any more");
                findings.push(Finding::breaking(plugin, Kind::ScheduleRemoved, of, message));
            }
            Some(new) if new.disabled => {
                let message =
                    format!("is switched off by the configuration: nothing starts {task} by itself");
                findings.push(Finding::note(plugin, Kind::ScheduleChanged, of, message));
            }
            Some(new) if (rhythm(new), &new.task) != (rhythm(schedule), task) => {
                let message =
                    format!("was {} of {task}, and is {} of {}", rhythm(schedule), rhythm(new), new.task);
                findings.push(Finding::note(plugin, Kind::ScheduleChanged, of, message));
            }
            Some(_) => {}
        }
    }
    findings
}
