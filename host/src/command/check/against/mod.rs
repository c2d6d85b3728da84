//! `cardcage check --against DEPLOYED`: what would break if this plugin set took the place of what is deployed?
//!
//! ```text
//! broker: which versions do live workers have? ─▶ how do they describe themselves? ─┐
//! or a saved set                                                                    ├▶ routes, tasks, schedules
//! the candidate's descriptions ─────────────────────────────────────────────────────┘
//! broker: bodies of tasks that wait or are dead ─▶ do they fit the candidate's schemas?
//! ```
//!
//! Invariants: nothing is changed at the broker; what could not be compared is told, never passed over as good.
//!
//! What it refuses to do: it does not judge whether a break is meant. A removed route is told as long as it is deployed.

mod comparison;
mod finding;
mod misfit;
mod plugin;
mod routes;
mod schedules;
mod schema;
mod tasks;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cardcage_protocol::Timestamp;
use cardcage_protocol::presence::{Presence, PresentPlugin, Question};
use serde::Serialize;
use serde_json::Value;

use crate::broker::{Broker, Error};
use crate::cli::Against;
use crate::command::output;
use crate::config::Settings;
use crate::deployed::{By, Deployed, SavedSet};
use crate::exit::Exit;
use crate::loader::Description;
use crate::regular_file;
use finding::{Finding, Kind};
pub(crate) use plugin::breaks_itself;
use plugin::judge_plugin;
use routes::Sites;
use tasks::judge_tasks;
use waiting::{Count, Group, Waiting};

/// The source that is no file.
const BROKER: &str = "broker";
/// The largest saved set that is read: 64 MiB.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// The first thing that fits the schema `sent` and not `taken`, in words for whoever runs both; `None` where nothing is known to.
pub(in crate::command) fn first_misfit(sent: &Value, taken: &Value) -> Option<String> {
    let told = comparison::misfits(schema::Schema::whole(sent), schema::Schema::whole(taken));
    told.first().map(misfit::Misfit::for_both)
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct AgainstReport {
    /// `broker`, or the file.
    source: String,
    /// What is deployed: plugin and version.
    deployed: Vec<Version>,
    findings: Vec<Finding>,
    /// Tasks that wait, and dead letters; `None` where no broker was asked.
    tasks: Option<Vec<Tasks>>,
    /// How many findings break somebody.
    breaks: usize,
    /// Why nothing could be compared.
    fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Version {
    plugin: String,
    version: String,
}

impl Version {
    fn of(deployed: &Deployed) -> Self {
        let Description { name, version, .. } = &deployed.description;
        Self { plugin: name.clone(), version: version.clone() }
    }

    fn present(plugin: &PresentPlugin) -> Self {
        Self { plugin: plugin.name.to_string(), version: plugin.version.clone() }
    }
}

#[derive(Debug, Serialize)]
struct Tasks {
    #[serde(flatten)]
    group: Group,
    #[serde(flatten)]
    count: Count,
}

/// The candidate: prefix and description of each plugin that could be described, and the names of all in the configuration.
/// Only what is current has routes and schedules; tasks are taken by previous libraries too.
pub(super) struct Candidate<'a> {
    pub(super) settings: &'a Settings,
    pub(super) descriptions: &'a BTreeMap<String, Description>,
    /// What its previous libraries declare.
    pub(super) previous: &'a [&'a Description],
}

impl AgainstReport {
    fn new(source: String) -> Self {
        Self { source, deployed: Vec::new(), findings: Vec::new(), tasks: None, breaks: 0, fault: None }
    }

    /// What it comes to.
    pub(super) fn exit(&self) -> Exit {
        match (&self.fault, self.breaks) {
            (Some(_), _) if self.source == BROKER => Exit::Unavailable,
            (Some(_), _) => Exit::Usage,
            (None, 0) => Exit::Success,
            (None, _) => Exit::Breaks,
        }
    }
}

/// Compares. Without a broker there is nothing to hold against `broker`, and the fault says so.
pub(super) async fn compare(
    against: &Against,
    broker: Option<&Broker>,
    candidate: &Candidate<'_>,
) -> AgainstReport {
    match against {
        Against::File(path) => {
            let mut report = AgainstReport::new(path.display().to_string());
            match read(path) {
                Ok(deployed) => report.judge(&Found { deployed, ..Found::default() }, candidate),
                Err(fault) => report.fault = Some(fault),
            }
            report
        }
        Against::Broker => {
            let mut report = AgainstReport::new(BROKER.to_owned());
            let Some(broker) = broker else {
                report.fault =
                    Some("the broker has not told what is deployed, for it could not be asked".into());
                return report;
            };
            match ask(broker, candidate).await {
                Ok(found) => report.judge(&found, candidate),
                Err(error) => {
                    report.fault = Some(format!("the broker could not be read: {error}; try again"))
                }
            }
            report
        }
    }
}

/// Reads a saved set.
fn read(path: &Path) -> Result<Vec<Deployed>, String> {
    let shown = path.display();
    let unreadable = |error: &dyn std::fmt::Display| {
        format!("{shown} cannot be read ({error}); write one with `cardcage check --save-manifest FILE`")
    };
    let text = regular_file::bytes(path, FILE_MAX_BYTES).map_err(|error| unreadable(&error))?;
    let saved: SavedSet = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
    if saved.v != 1 {
        return Err(unreadable(&format!("it is of version {}, and this cardcage knows version 1", saved.v)));
    }
    Ok(saved.plugins)
}

/// Writes the candidate for a later comparison.
pub(super) fn save(path: &Path, candidate: &Candidate<'_>) -> std::io::Result<()> {
    let prefix =
        |name: &str| candidate.settings.plugins.get(name).map_or("", |plugin| plugin.prefix.as_str());
    let now = Timestamp::now();
    let plugins = candidate.descriptions.iter();
    let plugins =
        plugins.map(|(name, description)| Deployed::new(prefix(name), description.clone(), now)).collect();
    let saved = SavedSet { v: 1, cardcage: env!("CARGO_PKG_VERSION").to_owned(), plugins };
    let mut text = serde_json::to_vec_pretty(&saved)?;
    text.push(b'\n');
    std::fs::write(path, text)
}

/// What is deployed.
#[derive(Default)]
struct Found {
    deployed: Vec<Deployed>,
    /// Those that workers have as previous libraries alone: they have neither routes nor schedules that could be missed.
    only_previous: BTreeSet<Version>,
    /// Those that instances have, and that have not told how they describe themselves.
    undescribed: BTreeSet<Version>,
    /// What waits; `None` where no broker was asked.
    waiting: Option<Waiting>,
}

async fn ask(broker: &Broker, candidate: &Candidate<'_>) -> Result<Found, Error> {
    let (mut described, offered, workers, apis) = tokio::try_join!(
        broker.deployed(By::Worker),
        broker.deployed(By::Api),
        broker.ask_workers(Question::default()),
        broker.ask_apis(Question::default()),
    )?;
    let live = |is_previous: bool| -> BTreeSet<Version> {
        let plugins = workers.iter().flat_map(|worker| &worker.plugins);
        let plugins = plugins.filter(|plugin| plugin.is_previous == is_previous);
        plugins.map(Version::present).collect()
    };
    let (current, previous) = (live(false), live(true));
    let mut live = &current | &previous;
    let alone = alone(&apis, &live, &described);
    described.extend(offered.into_iter().filter(|one| alone.contains(&Version::of(one))));
    live.extend(alone);
    let takers = candidate.descriptions.values().chain(candidate.previous.iter().copied());
    let deployed = pick(described, &live);
    let today = deployed.iter().map(|one| &one.description);
    let waiting = waiting::count(broker, today, takers).await?;
    let told: BTreeSet<Version> = deployed.iter().map(Version::of).collect();
    Ok(Found {
        undescribed: &live - &told,
        deployed,
        only_previous: &previous - &current,
        waiting: Some(waiting),
    })
}

/// The plugins of live API instances that no worker has, nor had: their routes run inline, or their workers are still to come.
fn alone(apis: &[Presence], live: &BTreeSet<Version>, described: &[Deployed]) -> BTreeSet<Version> {
    let is_known = |name: &str| {
        live.iter().any(|one| one.plugin == name) || described.iter().any(|one| one.description.name == name)
    };
    let offered = apis.iter().flat_map(|api| &api.plugins);
    offered.filter(|plugin| !is_known(plugin.name.as_str())).map(Version::present).collect()
}

/// Of each plugin the versions that live instances have; where none has it, the one that was there last.
fn pick(mut described: Vec<Deployed>, live: &BTreeSet<Version>) -> Vec<Deployed> {
    described.sort_by_key(|one| std::cmp::Reverse(one.said_at));
    let mut picked: Vec<Deployed> = Vec::new();
    for one in described {
        let (plugin, version) = (&one.description.name, &one.description.version);
        let is_live = live.contains(&Version { plugin: plugin.clone(), version: version.clone() });
        let any_live = live.iter().any(|live| live.plugin == *plugin);
        let is_latest = !picked.iter().any(|other| other.description.name == *plugin);
        if is_live || (!any_live && is_latest) {
            picked.push(one);
        }
    }
    picked.sort_by(|a, b| {
        (&a.description.name, &a.description.version).cmp(&(&b.description.name, &b.description.version))
    });
    picked
}

impl AgainstReport {
    fn judge(&mut self, found: &Found, candidate: &Candidate<'_>) {
        let Found { deployed, only_previous, undescribed, waiting } = found;
        let waiting = waiting.as_ref();
        let prefix = |name: &String| candidate.settings.plugins.get(name).map(|one| one.prefix.as_str());
        let served = candidate.descriptions.iter();
        let sites = Sites::new(served.filter_map(|(name, one)| Some((prefix(name)?, one))));
        for Version { plugin, version } in undescribed {
            let message = format!(
                "{version} runs on an instance that has not told how it describes itself: try again, or wait until its instances are ready"
            );
            self.findings.push(Finding::breaking(plugin, Kind::PluginNotCompared, "", message));
        }
        for one in deployed {
            let version = Version::of(one);
            if !only_previous.contains(&version) {
                self.findings.extend(judge_plugin(one, waiting.is_some(), candidate, &sites));
            }
            self.deployed.push(version);
        }
        if let Some(waiting) = waiting {
            for (group, count) in &waiting.counts {
                self.findings.extend(judge_tasks(group, count, deployed, candidate));
            }
            if waiting.unreadable > 0 {
                let message = format!(
                    "{} messages are no tasks that can be read, and were not compared",
                    waiting.unreadable
                );
                self.findings.push(Finding::note("", Kind::NotAllSeen, "", message));
            }
            if !waiting.is_complete {
                let message = "more tasks wait than were looked at: the counts are of the latest ones";
                self.findings.push(Finding::note("", Kind::NotAllSeen, "", message));
            }
            let tasks = waiting.counts.iter();
            self.tasks = Some(
                tasks.map(|(group, count)| Tasks { group: group.clone(), count: count.clone() }).collect(),
            );
        }
        // What two deployed versions have in common is told once.
        self.findings.sort_by(|a, b| b.breaks.cmp(&a.breaks).then_with(|| a.cmp(b)));
        self.findings.dedup();
        self.breaks = self.findings.iter().filter(|finding| finding.breaks).count();
    }

    /// For people.
    pub(super) fn section(&self) -> String {
        let source = output::shown(&self.source);
        if let Some(fault) = &self.fault {
            return format!("\nAgainst {source}: not compared\n  error: {}\n", output::shown(fault));
        }
        if self.deployed.is_empty() && self.findings.is_empty() {
            return format!("\nAgainst {source}: nothing is deployed there\n");
        }
        let deployed: Vec<String> = self
            .deployed
            .iter()
            .map(|one| format!("{} {}", one.plugin, output::shown(&one.version)))
            .collect();
        let verdict = match self.breaks {
            0 => "nothing breaks".to_owned(),
            1 => "1 thing breaks".to_owned(),
            more => format!("{more} things break"),
        };
        let mut text = format!("\nAgainst {source}: {verdict} ({})\n", deployed.join(", "));
        let mut table = output::table();
        for finding in &self.findings {
            table.add_row([
                if finding.breaks { "breaks" } else { "note" }.to_owned(),
                finding.plugin.clone(),
                output::shown(&finding.of),
                output::shown(&finding.message),
            ]);
        }
        for line in table.trim_fmt().lines() {
            text.push_str(&format!(" {line}\n"));
        }
        text
    }
}
