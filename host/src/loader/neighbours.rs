//! What plugins have to do with each other: who needs whom, and whose tasks one may enqueue and whose routes call.
//!
//! # Invariants
//! * A plugin reaches only those that it declares (`needs`, `wants`), by name and major.
//! * What is enqueued for another plugin fits the schema of its task as this host knows it. Whether a worker is there
//!   that runs it is no matter: it waits in its queue like any other.
//! * Whom a started plugin needs has started too, or by another process of the host as another major ([`super::Beside`]).

use super::description::{Description, Placement, TaskDescription};
use super::refusal::{Code, Refusal};
use super::services::{CallTarget, EnqueueRequest, Identity};
use crate::terms::Terms;
use cardcage_abi::headers;
use cardcage_protocol::{Problem, ProblemCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Mistakes of a body that are told.
const MISTAKES_TOLD: usize = 8;

/// Another plugin that one enqueues tasks for, or calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Its name.
    pub plugin: String,
    /// Its major version.
    pub major: u32,
    /// The plugin starts without it too.
    #[serde(default)]
    pub optional: bool,
}

/// Those of `own` that cannot be loaded because another one that they need is neither among them nor `elsewhere` in this host,
/// and why, as the end of a sentence. One that falls out takes with it those that need it.
#[must_use]
pub fn unmet<'a>(
    own: impl IntoIterator<Item = &'a Description>,
    elsewhere: impl IntoIterator<Item = &'a Description>,
) -> BTreeMap<&'a str, String> {
    let own = own.into_iter().map(|one| (one, true));
    let mut there: Vec<(&Description, bool)> =
        own.chain(elsewhere.into_iter().map(|one| (one, false))).collect();
    let mut unmet = BTreeMap::new();
    loop {
        let missing = |one: &Description| {
            let is_met = |need: &&Need| {
                let is_it = |(other, _): &(&Description, bool)| {
                    other.name == need.plugin && other.major() == need.major
                };
                need.optional || there.iter().any(is_it)
            };
            one.needs.iter().find(|need| !is_met(need)).cloned()
        };
        let found = there.iter().enumerate().find_map(|(place, (one, _))| Some((place, missing(one)?)));
        let Some((place, need)) = found else { return unmet };
        let versions = there.iter().filter(|(other, _)| other.name == need.plugin);
        let versions: Vec<&str> = versions.map(|(other, _)| other.version.as_str()).collect();
        let instead = match versions.is_empty() {
            true => "this host does not have it".to_owned(),
            false => format!("this host has {}", versions.join(" and ")),
        };
        let fault = format!("needs the plugin `{}` v{}, and {instead}", need.plugin, need.major);
        let (one, is_own) = there.remove(place);
        if is_own {
            unmet.insert(one.name.as_str(), fault);
        }
    }
}

/// The refusal that follows.
#[must_use]
pub fn refusal(plugin: &str, library: &Path, fault: &str) -> Refusal {
    let remedy = "configure that plugin too, in the version that is needed and, in a worker, in the same group, or remove this one";
    Refusal::new(library, Code::NeedsPlugin, fault, remedy).of(plugin)
}

/// A plugin that others may reach.
#[derive(Debug)]
pub(super) struct Neighbour {
    identity: Identity,
    description: Arc<Description>,
    /// Of each of its tasks, once it was needed; `None`: the schema is none.
    schemas: Vec<OnceLock<Option<jsonschema::Validator>>>,
    /// Once one was called.
    routes: OnceLock<Routes>,
    /// It did not start.
    is_lost: AtomicBool,
}

impl Neighbour {
    pub(super) fn new(description: Arc<Description>) -> Self {
        let identity = description.identity();
        let schemas = description.tasks.iter().map(|_| OnceLock::new()).collect();
        Self { identity, description, schemas, routes: OnceLock::new(), is_lost: AtomicBool::new(false) }
    }
}

/// A plugin's paths, each with its routes' places in the description.
#[derive(Debug)]
struct Routes(matchit::Router<Vec<usize>>);

impl Routes {
    fn new(description: &Description) -> Self {
        let mut paths: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, route) in description.routes.iter().enumerate() {
            paths.entry(if route.path.is_empty() { "/" } else { &route.path }).or_default().push(place);
        }
        let mut router = matchit::Router::new();
        for (path, places) in paths {
            // The edge refuses to start with a plugin whose templates cannot be routed.
            if let Err(error) = router.insert(path, places) {
                tracing::error!(plugin = description.name, path, %error, "a path of a plugin cannot be routed");
            }
        }
        Self(router)
    }
}

/// Those that plugins can reach.
#[derive(Debug)]
pub(super) struct Neighbours {
    known: Vec<Neighbour>,
    /// See [`super::LoadOptions::is_alone`].
    is_alone: bool,
}

impl Neighbours {
    pub(super) fn new(known: Vec<Neighbour>, is_alone: bool) -> Self {
        Self { known, is_alone }
    }

    /// Whose task `own` enqueues for another plugin, and on which terms.
    pub(super) fn task(
        &self,
        own: &Description,
        request: &EnqueueRequest,
    ) -> Result<(Identity, Terms), Problem> {
        let (name, major) =
            (request.plugin.as_deref().unwrap_or_default(), request.major.unwrap_or_default());
        declared(own, name, major, "enqueues for")?;
        if self.is_alone {
            return Ok((Identity { name: Arc::from(name), version: Arc::from(""), major }, Terms::default()));
        }
        let neighbour = self.find(name, major)?;
        let tasks = neighbour.description.tasks.iter().zip(&neighbour.schemas);
        let (task, schema) =
            tasks.into_iter().find(|(task, _)| task.name == request.task).ok_or_else(|| {
                let version = &neighbour.identity.version;
                let detail = format!("The plugin `{name}` {version} has no task `{}`.", request.task);
                Problem::new(ProblemCode::PluginError).detail(detail)
            })?;
        fits(task, schema, &request.body)?;
        Ok((neighbour.identity.clone(), Terms::of(task)))
    }

    /// The route of another plugin that a call of `own` with this head goes to.
    pub(super) fn route(
        &self,
        own: &Description,
        target: &CallTarget,
        head: &[u8],
    ) -> Result<(Identity, String), Problem> {
        let (name, major) = (target.plugin.as_str(), target.major);
        declared(own, name, major, "calls")?;
        if self.is_alone {
            let identity = Identity { name: Arc::from(name), version: Arc::from(""), major };
            return Ok((identity, String::new()));
        }
        let neighbour = self.find(name, major)?;
        let text = |name| headers::get(head, name).and_then(|value| std::str::from_utf8(value).ok());
        let (method, path) =
            (text(headers::METHOD).unwrap_or_default(), text(headers::PATH).unwrap_or_default());
        let path = path.split('?').next().unwrap_or_default();
        let is_of = |of: &str| format!("The plugin `{name}` {} {of}.", neighbour.identity.version);
        let routes = neighbour.routes.get_or_init(|| Routes::new(&neighbour.description));
        let Ok(found) = routes.0.at(path) else {
            let detail = is_of(&format!("has no route for {path}, the path below its prefix"));
            return Err(Problem::new(ProblemCode::NoSuchRoute).detail(detail));
        };
        let routes = || found.value.iter().filter_map(|place| neighbour.description.routes.get(*place));
        let by = |method: &str| routes().find(|route| route.method == method);
        // HEAD is answered by GET, as axum does inside the plugin.
        let found = by(method).or_else(|| by("GET").filter(|_| method == "HEAD"));
        let route = found.ok_or_else(|| {
            let detail = is_of(&format!("has no {method} for {path}"));
            Problem::new(ProblemCode::MethodNotAllowed).detail(detail)
        })?;
        if let (Placement::Enqueue, Some(task)) = (route.placement, &route.task) {
            let detail =
                is_of(&format!("has no handler for {method} {path}: enqueue its task `{task}` instead"));
            return Err(Problem::new(ProblemCode::PluginError).detail(detail));
        }
        Ok((neighbour.identity.clone(), route.name.clone()))
    }

    /// One that did not start is reached no more.
    pub(super) fn lose(&self, description: &Description) {
        let is_it = |one: &&Neighbour| {
            *one.identity.name == *description.name && one.identity.major == description.major()
        };
        self.known.iter().filter(is_it).for_each(|one| one.is_lost.store(true, Ordering::Relaxed));
    }

    fn find(&self, name: &str, major: u32) -> Result<&Neighbour, Problem> {
        let is_meant = |one: &&Neighbour| {
            let is_lost = one.is_lost.load(Ordering::Relaxed);
            *one.identity.name == *name && one.identity.major == major && !is_lost
        };
        self.known.iter().find(is_meant).ok_or_else(|| {
            let detail = format!("The plugin `{name}` v{major} is not among those of this host.");
            Problem::new(ProblemCode::UnknownPlugin).detail(detail).retry_after_s(60)
        })
    }
}

/// `does`, as in `calls`: what it does with the other one.
fn declared(own: &Description, name: &str, major: u32, does: &str) -> Result<(), Problem> {
    if own.needs.iter().any(|need| need.plugin == name && need.major == major) {
        return Ok(());
    }
    tracing::error!(
        plugin = own.name,
        of = name,
        major,
        does,
        "a plugin reaches for one that it does not declare"
    );
    let detail = format!("It {does} `{name}` v{major}, which it declares neither by needs nor by wants.");
    Err(Problem::new(ProblemCode::PluginError).detail(detail))
}

fn fits(
    task: &TaskDescription,
    schema: &OnceLock<Option<jsonschema::Validator>>,
    body: &[u8],
) -> Result<(), Problem> {
    let schema = schema.get_or_init(|| jsonschema::validator_for(&task.input_schema).ok());
    let Some(schema) = schema else {
        let detail = format!("The schema of the task `{}` is no JSON Schema.", task.name);
        return Err(Problem::new(ProblemCode::PluginError).detail(detail));
    };
    let body: serde_json::Value = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemCode::MalformedRequest).detail(format!("The body is no JSON: {error}."))
    })?;
    // Masked: what is in a task is nobody's business who only gets the answer.
    let mistakes = schema.iter_errors(&body).take(MISTAKES_TOLD).map(|error| {
        let at = error.instance_path().to_string();
        format!("at {}: {}", if at.is_empty() { "the top" } else { &at }, error.masked())
    });
    let mistakes: Vec<String> = mistakes.collect();
    if mistakes.is_empty() {
        return Ok(());
    }
    let detail = format!("The body does not fit the task `{}`: {}.", task.name, mistakes.join("; "));
    Err(Problem::new(ProblemCode::InvalidBody).detail(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str, version: &str, needs: &[(&str, u32, bool)]) -> Description {
        let needs: Vec<Need> = needs
            .iter()
            .map(|(plugin, major, optional)| Need {
                plugin: (*plugin).to_owned(),
                major: *major,
                optional: *optional,
            })
            .collect();
        let json = serde_json::json!({
            "name": name, "version": version, "routes": [], "tasks": [], "needs": needs,
        });
        Description::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn who_needs_what_is_not_there_falls_out_and_takes_along_who_needs_it() {
        let all = [
            plugin("a", "1.0.0", &[("b", 2, false)]),
            plugin("b", "2.1.0", &[("c", 1, false)]),
            plugin("c", "2.0.0", &[("x", 1, true), ("d", 0, false)]),
            plugin("d", "0.3.0", &[("c", 2, false)]),
        ];
        let unmet = unmet(&all, []);
        assert_eq!(unmet.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(unmet["b"], "needs the plugin `c` v1, and this host has 2.0.0");
        assert_eq!(unmet["a"], "needs the plugin `b` v2, and this host does not have it");
    }

    #[test]
    fn another_process_of_the_host_meets_needs_unless_what_it_has_falls_out_itself() {
        let own = [plugin("a", "2.0.0", &[("b", 1, false)]), plugin("c", "1.0.0", &[("a", 3, false)])];
        let elsewhere = [plugin("a", "1.0.0", &[]), plugin("b", "1.4.0", &[])];
        let found = unmet(&own, &elsewhere);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found["c"], "needs the plugin `a` v3, and this host has 2.0.0 and 1.0.0");
        let broken = [plugin("a", "1.0.0", &[]), plugin("b", "1.4.0", &[("x", 1, false)])];
        assert_eq!(unmet(&own, &broken).keys().copied().collect::<Vec<_>>(), ["a", "c"]);
    }
}
