//! One difference between what is deployed and what is to take its place.

use serde::Serialize;

/// What kind of difference. The names are part of the JSON and only ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    PluginRemoved,
    PluginNotCompared,
    RouteRemoved,
    RouteMoved,
    RouteChanged,
    RequestNarrowed,
    ResponseChanged,
    TaskRemoved,
    TaskSchemaNarrowed,
    TaskNotCompared,
    WaitingTasksUnfit,
    WaitingTasksOrphaned,
    DeadLettersUnfit,
    DeadLettersOrphaned,
    ParkedTasksFit,
    ScheduleRemoved,
    ScheduleChanged,
    NotAllSeen,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) plugin: String,
    pub(super) kind: Kind,
    /// The route, task or schedule.
    pub(super) of: String,
    /// Whether somebody who uses what is deployed, a task that waits, or the replay of a dead one would be let down.
    pub(super) breaks: bool,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn breaking(
        plugin: &str,
        kind: Kind,
        of: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { plugin: plugin.to_owned(), kind, of: of.into(), breaks: true, message: message.into() }
    }

    pub(super) fn note(plugin: &str, kind: Kind, of: impl Into<String>, message: impl Into<String>) -> Self {
        Self { breaks: false, ..Self::breaking(plugin, kind, of, message) }
    }
}
