//! What a plugin declares, as the host understands it: parsed once, checked once.

use super::neighbours::Need;
use super::schedule::ScheduleDescription;
use super::services::Identity;
use crate::broker::key_hash;
use crate::config::OnLost;
use cardcage_protocol::Rate;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Where a route's handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On a worker, the API instance forwarding the call.
    Worker,
    /// In the API instance's child.
    Inline,
    /// Nowhere: the host publishes the body as a task.
    Enqueue,
}

impl Placement {
    /// As written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Inline => "inline",
            Self::Enqueue => "enqueue",
        }
    }
}

/// A route, relative to its plugin's prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteDescription {
    /// The subject token: `[a-z0-9_-]{1,64}`, unique in the plugin.
    pub name: String,
    /// The method, upper case.
    pub method: String,
    /// The path template below the prefix, as in `/orders/{id}`.
    pub path: String,
    /// Where the author wants it to run.
    pub placement: Placement,
    /// For [`Placement::Enqueue`]: the task.
    pub task: Option<String>,
}

/// A task. Options that are `None` come from the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskDescription {
    /// The subject token.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the body.
    pub input_schema: Value,
    /// JSON Schema of the result.
    #[serde(default)]
    pub output_schema: Value,
    /// How many attempts at most.
    pub max_attempts: Option<u32>,
    /// The wait before the second attempt.
    pub backoff_initial_ms: Option<u64>,
    /// The longest wait between attempts.
    pub backoff_max_ms: Option<u64>,
    /// The hard limit of one attempt.
    pub timeout_ms: Option<u64>,
    /// When the handler is told that its attempt should come to an end.
    #[serde(default)]
    pub soft_timeout_ms: Option<u64>,
    /// How long its record is kept.
    pub result_ttl_s: Option<u64>,
    /// Handlers at the same time, per worker.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Handlers at the same time, over all workers.
    #[serde(default)]
    pub max_running: Option<u32>,
    /// Whether it has a queue for each priority.
    #[serde(default)]
    pub priorities: bool,
    /// Starts per second, minute or hour, over all workers.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// How long it may wait.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// The body's field, as `order.id`, of which one value is queued or running at a time.
    #[serde(default)]
    pub unique_key: Option<String>,
    /// The body's field of which one value is running at a time.
    #[serde(default)]
    pub serial_key: Option<String>,
    /// Whether it is tried again when its worker was lost.
    #[serde(default)]
    pub on_lost: Option<OnLost>,
    /// The task of the plugin that is run when it is given up.
    #[serde(default)]
    pub exhausted: Option<String>,
    /// Whether it can make bodies of its own of those that its schema does not accept.
    #[serde(default)]
    pub upcasts: bool,
}

impl TaskDescription {
    /// Names what can read a body, in this `version` of its plugin: two with the same name read the same bodies. That is
    /// the schema; where bodies are upcast the version as well, for only its code says which.
    #[must_use]
    pub fn reader_hash(&self, version: &str) -> String {
        // Members are sorted by their names, so the text is the same wherever it is written.
        let schema = self.input_schema.to_string();
        if self.upcasts { key_hash(&["schema", &schema, version]) } else { key_hash(&["schema", &schema]) }
    }

    /// Whether the body may have the field at this path, as far as its schema says.
    fn has_field(&self, path: &str) -> bool {
        let first = path.split('.').next().unwrap_or_default();
        let named = self.input_schema.get("properties").and_then(Value::as_object);
        !path.split('.').any(str::is_empty) && named.is_none_or(|fields| fields.contains_key(first))
    }
}

/// A plugin's paths and schemas for the merged OpenAPI document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OpenApiPart {
    /// Path → method → operation.
    #[serde(default)]
    pub paths: Map<String, Value>,
    /// Component schemas by name.
    #[serde(default)]
    pub schemas: Map<String, Value>,
}

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its routes.
    pub routes: Vec<RouteDescription>,
    /// Its tasks.
    pub tasks: Vec<TaskDescription>,
    /// Other plugins that it enqueues tasks for.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Its schedules.
    #[serde(default)]
    pub schedules: Vec<ScheduleDescription>,
    /// JSON Schema of its settings.
    #[serde(default)]
    pub config_schema: Option<Value>,
    /// Its part of the OpenAPI document.
    #[serde(default)]
    pub openapi: OpenApiPart,
}

impl Description {
    /// The most routes, the most tasks and the most schedules of one plugin.
    pub const ENTRIES_MAX: usize = 500;

    /// Reads and checks the JSON of `describe`.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that starts with the file.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let description: Self =
            serde_json::from_slice(json).map_err(|error| format!("describes itself wrongly ({error})"))?;
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<(), String> {
        let counts = [self.routes.len(), self.tasks.len(), self.schedules.len()];
        if counts.into_iter().any(|count| count > Self::ENTRIES_MAX) {
            return Err(format!("declares more than {} routes, tasks or schedules", Self::ENTRIES_MAX));
        }
        self.check_tasks()?;
        for need in &self.needs {
            if !super::inspect::is_name(&need.plugin) || need.plugin == self.name {
                return Err(format!(
                    "declares that it needs the plugin `{}`, which is itself or no name",
                    need.plugin
                ));
            }
        }
        let mut schedule_names = std::collections::HashSet::new();
        for schedule in &self.schedules {
            schedule.check(&self.tasks)?;
            if !schedule_names.insert(&schedule.name) {
                return Err(format!("declares the schedule `{}` twice", schedule.name));
            }
        }
        let mut route_names = std::collections::HashSet::new();
        for route in &self.routes {
            let shown = format!("{} {}", route.method, route.path);
            if !super::inspect::is_name(&route.name) || !route_names.insert(&route.name) {
                return Err(format!(
                    "declares the route {shown} with the name `{}`, which is taken or none",
                    route.name
                ));
            }
            if Method::from_bytes(route.method.as_bytes()).is_err() || !route.path.starts_with('/') {
                return Err(format!("declares the route {shown}, which is no method and path"));
            }
            let enqueues = route.placement == Placement::Enqueue;
            let known =
                route.task.as_ref().is_some_and(|task| self.tasks.iter().any(|known| known.name == *task));
            if enqueues && !known {
                let task = route.task.as_deref().unwrap_or("none");
                return Err(format!(
                    "declares the route {shown} for the task `{task}`, which it does not have"
                ));
            }
        }
        Ok(())
    }

    /// Whether the tasks fit together, also with what an operator lays over them.
    pub(super) fn check_tasks(&self) -> Result<(), String> {
        let mut names = std::collections::HashSet::new();
        for task in &self.tasks {
            if !super::inspect::is_name(&task.name) {
                return Err(format!("declares a task `{}`, which is no name", task.name));
            }
            if !names.insert(&task.name) {
                return Err(format!("declares the task `{}` twice", task.name));
            }
            if task.priorities && task.max_running.is_some() {
                return Err(format!(
                    "declares both priorities and max_running for the task `{}`: each priority has a queue of its own, \
                     and the cap is a queue's",
                    task.name
                ));
            }
            for (what, key) in [("unique", &task.unique_key), ("serial", &task.serial_key)] {
                if let Some(key) = key.as_deref().filter(|key| !task.has_field(key)) {
                    let name = &task.name;
                    return Err(format!(
                        "declares the {what} key `{key}` for the task `{name}`, whose body has no such field"
                    ));
                }
            }
        }
        super::exhausted::check(&self.tasks)
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            name: Arc::from(self.name.as_str()),
            version: Arc::from(self.version.as_str()),
            major: self.major(),
        }
    }

    /// The first number of its version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// A route's place in the list, which is how `call` names it at the boundary.
    #[must_use]
    pub fn route_index(&self, name: &str) -> Option<u32> {
        self.routes.iter().position(|route| route.name == name).and_then(|index| u32::try_from(index).ok())
    }

    /// A task's place in the list, which is how `task` names it at the boundary.
    #[must_use]
    pub fn task_index(&self, name: &str) -> Option<u32> {
        self.tasks.iter().position(|task| task.name == name).and_then(|index| u32::try_from(index).ok())
    }
}
