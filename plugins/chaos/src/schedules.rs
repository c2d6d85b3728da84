//! Schedules as a test wants them. The environment says which, because a plugin has no settings yet when it describes itself.

use crate::order::Order;
use crate::{App, chaos};
use plugin_api::prelude::*;
use std::collections::BTreeMap;

/// The environment variable that holds them: name to schedule, as JSON.
pub(crate) const SCHEDULES: &str = "CARDCAGE_CHAOS_SCHEDULES";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    every: Option<String>,
    cron: Option<String>,
    time_zone: Option<String>,
    #[serde(default)]
    overlap: Overlap,
    #[serde(default)]
    missed: Missed,
    /// The body of the task `chaos`.
    order: Order,
}

/// Declares what the environment says; nothing where it says nothing.
pub(crate) fn declare(plugin: Plugin<App>) -> Plugin<App> {
    match std::env::var(SCHEDULES) {
        Ok(json) => declare_as_told(plugin, &json),
        Err(_) => plugin,
    }
}

/// Declares what the text says.
pub(crate) fn declare_as_told(plugin: Plugin<App>, json: &str) -> Plugin<App> {
    let told: BTreeMap<String, Told> = serde_json::from_str(json)
        .unwrap_or_else(|error| unreadable(&format!("{SCHEDULES} is unreadable: {error}")));
    told.into_iter().fold(plugin, |plugin, (name, told)| {
        let schedule = match (told.every, told.cron) {
            (_, Some(cron)) => Schedule::cron(cron),
            (every, None) => Schedule::every(every.unwrap_or_default()),
        };
        let schedule = told.time_zone.into_iter().fold(schedule, Schedule::time_zone);
        plugin.schedule(&name, schedule.overlap(told.overlap).missed(told.missed), chaos, told.order)
    })
}

#[expect(clippy::panic, reason = "a test's mistake, which its author is to see")]
fn unreadable(text: &str) -> ! {
    panic!("{text}");
}
