//! Names of calls, and of what is asked of hosts.

use super::Subjects;
use crate::id::{CallId, InstanceId, TaskId};
use crate::name::Name;

impl Subjects {
    /// The subject of calls to one route.
    #[must_use]
    pub fn call(&self, plugin: &Name, major: u32, route: &Name) -> String {
        format!("{}.call.{plugin}.v{major}.{route}", self.ns)
    }

    /// All calls to one plugin major: what a worker's child subscribes to.
    #[must_use]
    pub fn calls_of_plugin(&self, plugin: &Name, major: u32) -> String {
        format!("{}.call.{plugin}.v{major}.*", self.ns)
    }

    /// Frames and credits of one call, addressed to one process.
    #[must_use]
    pub fn callio(&self, receiver: &InstanceId, call: CallId) -> String {
        format!("{}.callio.{receiver}.{call}", self.ns)
    }

    /// All frames and credits addressed to one process.
    #[must_use]
    pub fn callio_of_instance(&self, receiver: &InstanceId) -> String {
        format!("{}.callio.{receiver}.*", self.ns)
    }

    /// Reads the call id of a frame's subject.
    #[must_use]
    pub fn parse_callio(&self, subject: &str) -> Option<CallId> {
        let (_instance, call) = self.tail("callio", subject)?.split_once('.')?;
        call.parse().ok()
    }

    /// Cancels one call.
    #[must_use]
    pub fn callctl(&self, call: CallId) -> String {
        format!("{}.callctl.{call}", self.ns)
    }

    /// All cancellations.
    #[must_use]
    pub fn callctls(&self) -> String {
        format!("{}.callctl.*", self.ns)
    }

    /// Reads the call id of a cancellation's subject.
    #[must_use]
    pub fn parse_callctl(&self, subject: &str) -> Option<CallId> {
        self.tail("callctl", subject)?.parse().ok()
    }

    /// Asks who holds a task; only the holder answers.
    #[must_use]
    pub fn find(&self) -> String {
        format!("{}.find", self.ns)
    }

    /// What one connection says to itself, by way of the broker: an echo means that the broker is alive.
    #[must_use]
    pub fn pulse(&self, connection: &str) -> String {
        format!("{}.pulse.{connection}", self.ns)
    }

    /// Tells the holder of a task that it was cancelled; only the holder answers.
    #[must_use]
    pub fn cancel(&self) -> String {
        format!("{}.cancel", self.ns)
    }

    /// Asks which workers are there; every worker's supervisor answers.
    #[must_use]
    pub fn presence(&self) -> String {
        format!("{}.presence", self.ns)
    }

    /// Asks which API instances are there; every API's supervisor answers. A subject of its own: who asks for workers learns
    /// from the broker that there are none.
    #[must_use]
    pub fn api_presence(&self) -> String {
        format!("{}.presence_api", self.ns)
    }

    /// A live event: lossy by design.
    #[must_use]
    pub fn event(&self, kind: &Name) -> String {
        format!("{}.event.{kind}", self.ns)
    }

    /// Live events of one task, such as its progress: lossy by design.
    #[must_use]
    pub fn task_event(&self, id: TaskId) -> String {
        format!("{}.event.task.{id}", self.ns)
    }
}
