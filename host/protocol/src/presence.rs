//! What a worker, or an API instance, says when it is asked who is there.
//!
//! The question goes to `<ns>.presence`, or to `<ns>.presence_api`, with an empty body or a [`Question`]; every supervisor of
//! that role answers with one [`Presence`]. It is read by hosts and tools of neighbouring versions: unknown members are ignored, and members that
//! an older worker does not know have defaults.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, TaskId};
use crate::name::Name;
use crate::timestamp::Timestamp;

/// What may be asked for beyond the plain answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The attempts that the worker holds.
    #[serde(default)]
    pub running: bool,
    /// The routes whose handlers workers run.
    #[serde(default)]
    pub routes: bool,
    /// How the tasks' bodies are read.
    #[serde(default)]
    pub bodies: bool,
}

/// One live worker, or API instance; the latter takes no tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Version of this answer; today 1.
    pub v: u32,
    /// The instance.
    pub instance: InstanceId,
    /// The worker group that it is a process of, where its host has groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The machine's name.
    pub host: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// The version of cardcage.
    pub version: String,
    /// When the supervisor started.
    pub started_at: Timestamp,
    /// `starting`, `serving`, `draining` or `ended`.
    pub status: String,
    /// Whether it takes tasks.
    pub consuming: bool,
    /// Attempts under way.
    pub busy: usize,
    /// Attempts that it can run at the same time.
    pub slots: usize,
    /// What it has loaded.
    #[serde(default)]
    pub plugins: Vec<PresentPlugin>,
    /// The attempts that it holds, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<RunningTask>,
}

/// A plugin that an instance has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentPlugin {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: String,
    /// Its major version, which decides whose tasks it takes.
    pub major: u32,
    /// The names of its tasks.
    #[serde(default)]
    pub tasks: Vec<Name>,
    /// The names of its routes that run on workers, if they were asked for: those that a worker can run, or that an API
    /// forwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Name>,
    /// Where each of them is, if they were asked for. Without it nothing is known of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PresentPath>,
    /// How the body of each of its tasks is read, if it was asked for and fits into the answer. Without it nothing is known of
    /// that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bodies: Vec<PresentBody>,
    /// Its attempts under way.
    #[serde(default)]
    pub busy: usize,
    /// Its attempts that can run at the same time.
    #[serde(default)]
    pub slots: usize,
    /// It is a previous library of the plugin: another one is current there, whose routes and schedules hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_previous: bool,
    /// Since when this version is quarantined: it takes neither tasks nor calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_at: Option<Timestamp>,
}

/// Where a route is that runs on workers: they are sent the path, and look it up for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentPath {
    /// The route's name.
    pub route: Name,
    /// Method and path template below the plugin's prefix, as in `GET /orders/{id}`.
    pub at: String,
}

/// How the body of a task is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentBody {
    /// The task.
    pub task: Name,
    /// Hash of the schema that is asked of bodies. Two versions with the same one accept, and read, the same bodies.
    pub schema: String,
    /// Bodies that do not fit the schema may be upcast.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upcasts: bool,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The task.
    pub id: TaskId,
    /// Its plugin.
    pub plugin: Name,
    /// Its name.
    pub task: Name,
    /// The attempt's number; 0 while it waits there for its turn.
    pub attempt: u32,
    /// The attempt's hard limit, by the worker's clock; until then its lease is renewed.
    pub until: Timestamp,
}

impl Presence {
    /// Whether it takes the tasks of this plugin's major; with `task`, whether it knows that one.
    #[must_use]
    pub fn takes(&self, plugin: &Name, major: u32, task: Option<&Name>) -> bool {
        self.consuming
            && self.plugins.iter().any(|present| {
                present.name == *plugin
                    && present.major == major
                    && present.quarantined_at.is_none()
                    && task.is_none_or(|task| present.tasks.contains(task))
            })
    }
}

impl PresentPlugin {
    /// How it reads this task's body, as far as it has told.
    #[must_use]
    pub fn body(&self, task: &Name) -> Option<&PresentBody> {
        self.bodies.iter().find(|body| body.task == *task)
    }

    /// Where this route of it is, as far as it has told.
    #[must_use]
    pub fn path(&self, route: &Name) -> Option<&str> {
        self.paths.iter().find(|path| path.route == *route).map(|path| path.at.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_workers_answer_reads_with_defaults() {
        let json = r#"{"v":1,"instance":"worker-1","host":"h","pid":7,"version":"0.1.0","busy":0,"slots":64,
            "started_at":"2026-01-31T12:00:00.000Z","status":"serving","consuming":true,"later":1,
            "plugins":[{"name":"orders","version":"1.2.3","major":1,"tasks":["fulfil"]}]}"#;
        let presence: Presence = serde_json::from_str(json).unwrap();
        let (orders, fulfil): (Name, Name) = ("orders".parse().unwrap(), "fulfil".parse().unwrap());
        assert!(presence.takes(&orders, 1, None) && presence.takes(&orders, 1, Some(&fulfil)));
        assert!(!presence.takes(&orders, 2, None) && !presence.takes(&orders, 1, Some(&orders)));
        assert!(presence.running.is_empty());
        assert_eq!((presence.plugins[0].body(&fulfil), presence.plugins[0].path(&fulfil)), (None, None));
    }
}
