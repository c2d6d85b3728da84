//! The routing table: built once from the plugin set, never changed.
//!
//! Deliberate restrictions: a path template has one owner; two plugins with routes for one path are refused at load,
//! by the loader, so that a worker and `check` refuse them too; a template's parameters match one segment, or with `{*rest}` the rest.

use crate::loader::{Description, Identity, Placement, Plugin, RouteDescription};
use crate::terms::Terms;
use cardcage_protocol::{Name, RESERVED_SEGMENTS, Subjects};
use http::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plugin as it is mounted.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Name, version, major.
    pub identity: Identity,
    /// What it declares.
    pub description: Arc<Description>,
    /// Where it is mounted, as in `/orders`.
    pub prefix: String,
    /// The operator's placement for all of its `worker` and `inline` routes.
    pub placement: Option<Placement>,
    /// The operator's placement of single routes, by `METHOD /path`; [`super::override_faults`] finds none in them.
    pub routes: BTreeMap<String, Placement>,
    /// The loaded plugin, for inline handlers.
    pub plugin: Option<Arc<Plugin>>,
}

impl Mounted {
    /// Where a route's handler runs: as the operator wants it, else as its author does.
    #[must_use]
    pub fn placement_of(&self, route: &RouteDescription) -> Placement {
        placement_of(route, self.placement, &self.routes)
    }
}

/// Where a route's handler runs, by the operator's word for the plugin and for single routes.
#[must_use]
pub fn placement_of(
    route: &RouteDescription,
    plugin: Option<Placement>,
    routes: &BTreeMap<String, Placement>,
) -> Placement {
    let key = format!("{} {}", route.method, route.path);
    match (route.placement, routes.get(&key).copied().or(plugin)) {
        // It runs nowhere, so there is nothing to move.
        (Placement::Enqueue, _) => Placement::Enqueue,
        (_, Some(chosen)) => chosen,
        (declared, None) => declared,
    }
}

/// A task that a route enqueues, with the schema its body is held against.
#[derive(Debug)]
pub struct EnqueueTarget {
    /// The task.
    pub task: Name,
    /// The compiled schema.
    pub schema: jsonschema::Validator,
    /// What its declaration asks for.
    pub terms: Terms,
}

/// One method of one path.
#[derive(Debug)]
pub struct Route {
    /// The plugin.
    pub identity: Identity,
    /// What the plugin declares.
    pub description: RouteDescription,
    /// Its place in the description.
    pub index: u32,
    /// Where the handler runs.
    pub placement: Placement,
    /// Bytes of the path that the plugin does not see.
    pub prefix_len: usize,
    /// For `worker`: the call's subject.
    pub subject: String,
    /// For `worker`: the route as a subject token.
    pub name: Name,
    /// For `inline`.
    pub plugin: Option<Arc<Plugin>>,
    /// For `enqueue`.
    pub enqueue: Option<EnqueueTarget>,
}

#[derive(Debug, Default)]
struct Methods {
    routes: Vec<(Method, Arc<Route>)>,
    allow: String,
}

/// The answer to a lookup.
#[derive(Debug)]
pub enum Matched<'a> {
    /// This route.
    Route(&'a Arc<Route>),
    /// The path exists, with these methods.
    Methods(&'a str),
    /// No such path.
    Nothing,
}

/// The routing table.
#[derive(Debug)]
pub struct Router {
    paths: matchit::Router<Methods>,
}

/// Why the table cannot be built. Names the plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{plugin}`: {fault}")]
pub struct BuildError {
    /// The plugin.
    pub plugin: String,
    /// What is wrong and what to do.
    pub fault: String,
}

impl Router {
    /// Builds the table.
    ///
    /// # Errors
    /// A reserved prefix, a template that cannot be routed, a schema that cannot be compiled, or a conflict between
    /// templates.
    pub fn build(mounted: &[Mounted], subjects: &Subjects) -> Result<Self, BuildError> {
        let mut paths: BTreeMap<String, Methods> = BTreeMap::new();
        for plugin in mounted {
            let fail = |fault: String| BuildError { plugin: plugin.identity.name.to_string(), fault };
            let prefix = plugin.prefix.trim_end_matches('/');
            let first = prefix.trim_start_matches('/').split('/').next().unwrap_or_default();
            if RESERVED_SEGMENTS.contains(&first) {
                return Err(fail(format!("the prefix {prefix} belongs to the host; set another `prefix`")));
            }
            for route in &plugin.description.routes {
                let path = format!("{prefix}{}", route.path);
                let top = path.trim_start_matches('/').split('/').next().unwrap_or_default();
                if RESERVED_SEGMENTS.contains(&top) || top.starts_with('{') {
                    return Err(fail(format!(
                        "the route {path} would cover paths of the host; set a `prefix`"
                    )));
                }
                let method = Method::from_bytes(route.method.as_bytes()).map_err(|e| fail(e.to_string()))?;
                let built = Arc::new(one(plugin, route, prefix.len(), subjects).map_err(fail)?);
                let methods = paths.entry(path.clone()).or_default();
                if methods.routes.iter().any(|(known, _)| *known == method) {
                    return Err(fail(format!("the route {method} {path} is taken; set another `prefix`")));
                }
                methods.routes.push((method, built));
            }
        }
        let mut router = matchit::Router::new();
        for (path, mut methods) in paths {
            let plugin =
                methods.routes.first().map(|(_, route)| route.identity.name.to_string()).unwrap_or_default();
            methods.allow = allow(&methods.routes);
            router.insert(path.clone(), methods).map_err(|error| BuildError {
                plugin,
                fault: format!("the route {path} cannot be routed ({error}); set another `prefix`"),
            })?;
        }
        Ok(Self { paths: router })
    }

    /// Finds the route of a request.
    pub fn find(&self, method: &Method, path: &str) -> Matched<'_> {
        let Ok(found) = self.paths.at(path) else { return Matched::Nothing };
        let methods = found.value;
        let by = |wanted: &Method| {
            methods.routes.iter().find(|(method, _)| method == wanted).map(|(_, route)| route)
        };
        // HEAD is answered by GET, as axum does inside the plugin.
        let head = || (*method == Method::HEAD).then(|| by(&Method::GET)).flatten();
        by(method).or_else(head).map_or(Matched::Methods(&methods.allow), Matched::Route)
    }
}

fn allow(routes: &[(Method, Arc<Route>)]) -> String {
    let mut names: Vec<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.join(", ")
}

fn one(
    plugin: &Mounted,
    route: &RouteDescription,
    prefix_len: usize,
    subjects: &Subjects,
) -> Result<Route, String> {
    let placement = plugin.placement_of(route);
    let name = Name::new(&route.name).map_err(|error| error.to_string())?;
    let plugin_name = Name::new(&plugin.identity.name).map_err(|error| error.to_string())?;
    let enqueue = match (&route.task, placement) {
        (Some(task), Placement::Enqueue) => Some(target(plugin, task)?),
        _ => None,
    };
    Ok(Route {
        identity: plugin.identity.clone(),
        description: route.clone(),
        index: plugin.description.route_index(&route.name).unwrap_or(u32::MAX),
        placement,
        prefix_len,
        subject: subjects.call(&plugin_name, plugin.identity.major, &name),
        name,
        plugin: plugin.plugin.clone(),
        enqueue,
    })
}

fn target(plugin: &Mounted, task: &str) -> Result<EnqueueTarget, String> {
    let declared = plugin.description.tasks.iter().find(|known| known.name == task);
    let schema = declared.map(|known| &known.input_schema);
    let schema = jsonschema::validator_for(schema.unwrap_or(&Value::Bool(true))).map_err(|error| {
        format!("the schema of the task `{task}` cannot be compiled ({error}); mend the plugin")
    })?;
    let terms = declared.map(Terms::of).unwrap_or_default();
    Ok(EnqueueTarget { task: Name::new(task).map_err(|error| error.to_string())?, schema, terms })
}
