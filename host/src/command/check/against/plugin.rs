//! One deployed plugin version, held against the candidate's: what it serves, takes and starts, piece by piece.

use super::Candidate;
use super::finding::{Finding, Kind};
use super::routes::{self, Served, Sites};
use super::schedules;
use super::tasks::judge_task;
use crate::deployed::Deployed;
use crate::loader::Description;
use cardcage_protocol::Timestamp;

/// Routes, tasks and schedules of one deployed version.
pub(super) fn judge_plugin(
    deployed: &Deployed,
    broker_was_asked: bool,
    candidate: &Candidate<'_>,
    sites: &Sites<'_>,
) -> Vec<Finding> {
    let before = &deployed.description;
    let plugin = before.name.as_str();
    if !candidate.settings.plugins.contains_key(plugin) {
        return judge_removed(deployed, broker_was_asked, sites);
    }
    let Some(after) = candidate.descriptions.get(plugin) else {
        let message = "was refused, so it could not be compared";
        return vec![Finding::breaking(plugin, Kind::PluginNotCompared, "", message)];
    };
    // A major that stays beside the new one takes its tasks as it did.
    let stays =
        candidate.previous.iter().find(|one| one.name == before.name && one.major() == before.major());
    let taker = stays.copied().unwrap_or(after);
    let mut findings = judge_pieces(deployed, sites, after, taker, broker_was_asked);
    if deployed.is_cut {
        let message = format!(
            "the OpenAPI document of {} was too long to be kept: its routes are compared by method and path alone",
            before.version
        );
        findings.push(Finding::note(plugin, Kind::NotAllSeen, "", message));
    }
    findings
}

/// Routes held against what is served, tasks against `taker`, schedules against `after`.
fn judge_pieces(
    deployed: &Deployed,
    sites: &Sites<'_>,
    after: &Description,
    taker: &Description,
    broker_was_asked: bool,
) -> Vec<Finding> {
    let before = &deployed.description;
    let plugin = before.name.as_str();
    let served = Served::new(&deployed.prefix, before);
    let mut findings = routes::compare(plugin, &served, sites, deployed.is_cut);
    for task in &before.tasks {
        findings.extend(judge_task(plugin, task, taker, broker_was_asked));
    }
    findings.extend(schedules::compare(plugin, before, after));
    findings
}

/// What breaks where the very same takes its place: nothing may, whatever it says. For [`crate::fuzz`].
pub(crate) fn breaks_itself(prefix: &str, description: &Description) -> Vec<String> {
    let deployed = Deployed::new(prefix, description.clone(), Timestamp::now());
    let sites = Sites::new([(prefix, description)]);
    let findings = judge_pieces(&deployed, &sites, description, description, false);
    findings.into_iter().filter(|finding| finding.breaks).map(|finding| finding.message).collect()
}

/// One that goes altogether, and by name what goes with it: it is missed as if each had been taken out alone. Routes may have
/// moved to another plugin.
fn judge_removed(deployed: &Deployed, broker_was_asked: bool, sites: &Sites<'_>) -> Vec<Finding> {
    let before = &deployed.description;
    let plugin = before.name.as_str();
    let nothing = Description {
        routes: Vec::new(),
        tasks: Vec::new(),
        schedules: Vec::new(),
        openapi: Default::default(),
        ..before.clone()
    };
    let mut findings = judge_pieces(deployed, sites, &nothing, &nothing, broker_was_asked);
    let routes = findings.iter().filter(|finding| finding.kind == Kind::RouteRemoved).count();
    let tasks = before.tasks.len();
    let schedules = before.schedules.iter().filter(|schedule| !schedule.disabled).count();
    let message = format!(
        "is not in the configuration: {routes} routes, {tasks} tasks and {schedules} schedules go with it"
    );
    findings.push(match routes + tasks + schedules {
        // Nobody misses its name.
        0 if !before.routes.is_empty() => {
            let message = "is not in the configuration, and other plugins serve all its routes";
            Finding::note(plugin, Kind::PluginRemoved, "", message)
        }
        _ => Finding::breaking(plugin, Kind::PluginRemoved, "", message),
    });
    findings
}
