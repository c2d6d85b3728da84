//! What an API that answered offers now, and no worker that answered can run.
//!
//! A task needs a live worker of its plugin's major that knows it and reads its bodies, a route one that has it where the API
//! sends it. What an instance has not told, for it is older, is held against nobody.
//!
//! What it refuses: it judges no versions. Two minor versions beside each other are no fault while each task and route has
//! somebody who runs it.

use std::collections::BTreeSet;

use cardcage_protocol::presence::{Presence, PresentPlugin};
use cardcage_protocol::{InstanceId, Name};
use serde::Serialize;

use super::bodies::{Fit, Schemas};

/// Why nobody runs it. The names are part of the JSON and only ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    /// No live worker has the plugin's major.
    NoWorker,
    /// Those that have it take no work.
    TakesNothing,
    /// Those that have it are quarantined.
    Quarantined,
    /// Those that have it do not know this task, or this route.
    NotThere,
    /// They have the route somewhere else, where a call that is sent to them does not find it.
    OtherPath,
    /// They know the task, and do not read all bodies that are accepted for it.
    BodyUnfit,
}

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Task,
    Route,
}

/// Why nobody runs one task or route, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    pub(super) kind: Kind,
    pub(super) name: Name,
    pub(super) code: Code,
    /// The versions of this major at live workers that take work, or where none does at all that have it.
    pub(super) workers: BTreeSet<String>,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// What one API offers of one plugin, and nobody runs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Drift {
    pub(super) instance: InstanceId,
    pub(super) plugin: Name,
    pub(super) version: String,
    /// Tasks that it accepts, and nobody takes: they wait.
    pub(super) tasks: Vec<Name>,
    /// Routes that it forwards, by name.
    pub(super) routes: Vec<Name>,
    /// Tasks of which it accepts bodies that nobody reads: those are parked.
    pub(super) unfit: Vec<Name>,
    /// Why, for each of them.
    pub(super) reasons: Vec<Reason>,
}

/// A task whose schemas differ between an API and the workers, and could not be held against each other.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct NotCompared {
    pub(super) instance: InstanceId,
    pub(super) plugin: Name,
    pub(super) version: String,
    pub(super) task: Name,
}

/// All that was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) drift: Vec<Drift>,
    pub(super) not_compared: Vec<NotCompared>,
}

/// Looks for it.
pub(super) fn find(apis: &[Presence], workers: &[Presence], schemas: &Schemas) -> Found {
    let mut found = Found::default();
    // One that drains takes nothing any more.
    for api in apis.iter().filter(|api| api.status == "serving") {
        for plugin in &api.plugins {
            found.add(api, &Offer::new(plugin, workers), schemas);
        }
    }
    found
}

impl Found {
    fn add(&mut self, api: &Presence, offer: &Offer<'_>, schemas: &Schemas) {
        let plugin = offer.plugin;
        let mut reasons = Vec::new();
        for task in &plugin.tasks {
            match offer.task(task, schemas) {
                Ok(true) => {}
                Ok(false) => self.not_compared.push(NotCompared {
                    instance: api.instance.clone(),
                    plugin: plugin.name.clone(),
                    version: plugin.version.clone(),
                    task: task.clone(),
                }),
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.extend(plugin.routes.iter().filter_map(|route| offer.route(route)));
        if reasons.is_empty() {
            return;
        }
        let names = |of: fn(&Reason) -> bool| -> Vec<Name> {
            reasons.iter().filter(|reason| of(reason)).map(|reason| reason.name.clone()).collect()
        };
        self.drift.push(Drift {
            instance: api.instance.clone(),
            plugin: plugin.name.clone(),
            version: plugin.version.clone(),
            tasks: names(|reason| reason.kind == Kind::Task && reason.code != Code::BodyUnfit),
            routes: names(|reason| reason.kind == Kind::Route),
            unfit: names(|reason| reason.code == Code::BodyUnfit),
            reasons,
        });
    }
}

/// A plugin as an API has it, beside all that live workers have of its major.
struct Offer<'a> {
    plugin: &'a PresentPlugin,
    /// With whether the worker takes work.
    there: Vec<(&'a PresentPlugin, bool)>,
    takers: Vec<&'a PresentPlugin>,
}

impl<'a> Offer<'a> {
    fn new(plugin: &'a PresentPlugin, workers: &'a [Presence]) -> Self {
        let has = |one: &&PresentPlugin| one.name == plugin.name && one.major == plugin.major;
        let of = |worker: &'a Presence| {
            worker.plugins.iter().filter(has).map(|one| (one, worker.consuming)).collect::<Vec<_>>()
        };
        let there: Vec<(&PresentPlugin, bool)> = workers.iter().flat_map(of).collect();
        let takes = |(one, consuming): &(&'a PresentPlugin, bool)| {
            (*consuming && one.quarantined_at.is_none()).then_some(*one)
        };
        let takers = there.iter().filter_map(takes).collect();
        Self { plugin, there, takers }
    }

    /// Whether the task is known to have somebody who reads all that is accepted for it; false where it cannot be said.
    fn task(&self, task: &Name, schemas: &Schemas) -> Result<bool, Reason> {
        let knowing: Vec<_> = self.takers.iter().filter(|one| one.tasks.contains(task)).collect();
        if knowing.is_empty() {
            return Err(self.absent(Kind::Task, task));
        }
        let mut unfit = None;
        let mut is_compared = true;
        for one in knowing {
            match schemas.fit(self.plugin, one, task) {
                Fit::Reads => return Ok(true),
                Fit::NotCompared => is_compared = false,
                Fit::Unfit(misfit) => unfit = unfit.or(Some((misfit, &one.version))),
            }
        }
        match unfit {
            Some((misfit, version)) if is_compared => {
                let why = format!("of its body {misfit} by {version}; such a task is parked");
                Err(self.reason(Kind::Task, task, Code::BodyUnfit, why, self.roll_workers()))
            }
            _ => Ok(false),
        }
    }

    /// Why nobody answers calls of the route; `None` where somebody does.
    fn route(&self, route: &Name) -> Option<Reason> {
        let having: Vec<_> = self.takers.iter().filter(|one| one.routes.contains(route)).collect();
        if having.is_empty() {
            return Some(self.absent(Kind::Route, route));
        }
        let here = self.plugin.path(route)?;
        // The first of them that does not answer; nothing is said against those that have not told.
        let mut elsewhere = None;
        for one in having {
            let there = one.path(route).filter(|there| !is_same_path(here, there))?;
            elsewhere = elsewhere.or(Some((there, &one.version)));
        }
        let (there, version) = elsewhere?;
        let why = format!("it is {here} here, and {there} in {version}; such a call gets 404 or 405");
        Some(self.reason(Kind::Route, route, Code::OtherPath, why, self.roll_workers()))
    }

    /// Nobody who takes work knows it.
    fn absent(&self, kind: Kind, name: &Name) -> Reason {
        let PresentPlugin { name: plugin, major, version, .. } = self.plugin;
        let versions = self.versions().into_iter().collect::<Vec<_>>().join(", ");
        let (code, why, remedy) = if self.there.is_empty() {
            let why = format!("no live worker has {plugin} v{major}");
            (Code::NoWorker, why, format!("start workers with {plugin} {version}"))
        } else if !self.takers.is_empty() {
            (Code::NotThere, format!("not known to {versions}"), self.roll_workers())
        } else if self.there.iter().any(|(one, _)| one.quarantined_at.is_some()) {
            let remedy = format!(
                "deploy a version that does not crash, or lift it with `cardcage plugin release {plugin}`"
            );
            (Code::Quarantined, format!("{plugin} {versions} is quarantined"), remedy)
        } else {
            let why = format!("workers with {plugin} {versions} take nothing now");
            (Code::TakesNothing, why, "wait until they are ready, or see `/readyz?verbose` of theirs".into())
        };
        self.reason(kind, name, code, why, remedy)
    }

    fn roll_workers(&self) -> String {
        let PresentPlugin { name, version, .. } = self.plugin;
        format!("bring workers to {name} {version}, and in a roll-out workers before API instances")
    }

    fn versions(&self) -> BTreeSet<String> {
        let taking = self.takers.iter().copied();
        let all = self.there.iter().map(|(one, _)| *one).filter(|_| self.takers.is_empty());
        taking.chain(all).map(|one| one.version.clone()).collect()
    }

    fn reason(&self, kind: Kind, name: &Name, code: Code, why: String, remedy: String) -> Reason {
        Reason { kind, name: name.clone(), code, workers: self.versions(), why, remedy }
    }
}

/// Whether both find each other's calls. What a parameter is called is no part of a path.
fn is_same_path(one: &str, other: &str) -> bool {
    let shape = |path: &str| -> Vec<String> {
        let segment = |segment: &str| match (segment.starts_with("{*"), segment.starts_with('{')) {
            (true, _) => "{*}".to_owned(),
            (false, true) => "{}".to_owned(),
            (false, false) => segment.to_owned(),
        };
        path.split('/').map(segment).collect()
    };
    shape(one) == shape(other)
}
