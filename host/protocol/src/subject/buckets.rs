//! Names of the buckets and of the lines of tasks that wait for their turn.

use super::Subjects;
use crate::address::{SubjectError, TaskAddress};
use crate::id::TaskId;
use crate::name::Name;

impl Subjects {
    // Buckets.

    /// Idempotency keys.
    #[must_use]
    pub fn idempotency_bucket(&self) -> String {
        format!("{}_IDEMPOTENCY", self.ns)
    }

    /// The stream behind the bucket of idempotency keys.
    #[must_use]
    pub fn idempotency_stream(&self) -> String {
        format!("KV_{}_IDEMPOTENCY", self.ns)
    }

    /// The subject of one idempotency key; `hash` is hexadecimal.
    #[must_use]
    pub fn idempotency_key(&self, hash: &str) -> String {
        format!("$KV.{}_IDEMPOTENCY.{hash}", self.ns)
    }

    /// All idempotency keys.
    #[must_use]
    pub fn idempotency_keys(&self) -> String {
        format!("$KV.{}_IDEMPOTENCY.>", self.ns)
    }

    /// The stream behind the bucket of limits that hold over all workers.
    #[must_use]
    pub fn limits_stream(&self) -> String {
        format!("KV_{}_LIMITS", self.ns)
    }

    /// All limits.
    #[must_use]
    pub fn limits(&self) -> String {
        format!("$KV.{}_LIMITS.>", self.ns)
    }

    /// When the next start of a task is free under its rate.
    #[must_use]
    pub fn rate(&self, plugin: &Name, task: &Name) -> String {
        format!("$KV.{}_LIMITS.rate.{plugin}.{task}", self.ns)
    }

    /// What an operator has set for a task.
    #[must_use]
    pub fn live_limits(&self, plugin: &Name, task: &Name) -> String {
        format!("$KV.{}_LIMITS.set.{plugin}.{task}", self.ns)
    }

    /// What operators have set for all tasks.
    #[must_use]
    pub fn all_live_limits(&self) -> String {
        format!("$KV.{}_LIMITS.set.*.*", self.ns)
    }

    /// The entry of one unique key; `hash` is hexadecimal.
    #[must_use]
    pub fn unique_key(&self, hash: &str) -> String {
        format!("$KV.{}_LIMITS.unique.{hash}", self.ns)
    }

    /// The lock of one serial key; `hash` is hexadecimal.
    #[must_use]
    pub fn lock(&self, hash: &str) -> String {
        format!("$KV.{}_LIMITS.serial.{hash}", self.ns)
    }

    /// What one task's attempts have recorded under a key; `hash` is hexadecimal, `*` all of them.
    #[must_use]
    pub fn once(&self, id: TaskId, hash: &str) -> String {
        format!("$KV.{}_LIMITS.once.{id}.{hash}", self.ns)
    }

    /// The entries of all unique keys.
    #[must_use]
    pub fn unique_keys(&self) -> String {
        format!("$KV.{}_LIMITS.unique.*", self.ns)
    }

    /// Says that a round of sweeping has been begun lately.
    #[must_use]
    pub fn sweep(&self) -> String {
        format!("$KV.{}_LIMITS.sweep", self.ns)
    }

    /// The locks of all serial keys.
    #[must_use]
    pub fn locks(&self) -> String {
        format!("$KV.{}_LIMITS.serial.*", self.ns)
    }

    /// The crashes of one plugin version. Of what a version may hold, only `.` and `+` mean something in a subject.
    #[must_use]
    pub fn crash_history(&self, plugin: &Name, version: &str) -> String {
        let version = version.replace('.', "_").replace('+', "=");
        format!("$KV.{}_LIMITS.crashes.{plugin}.{version}", self.ns)
    }

    /// The crashes of one plugin's versions, or of all plugins'.
    #[must_use]
    pub fn crash_histories(&self, plugin: Option<&Name>) -> String {
        let plugin = plugin.map_or("*", Name::as_str);
        format!("$KV.{}_LIMITS.crashes.{plugin}.*", self.ns)
    }

    /// How one plugin version describes itself, as a worker that has it said.
    #[must_use]
    pub fn deployed(&self, plugin: &Name, version: &str) -> String {
        let version = version.replace('.', "_").replace('+', "=");
        format!("$KV.{}_LIMITS.deployed.{plugin}.{version}", self.ns)
    }

    /// How all plugin versions describe themselves.
    #[must_use]
    pub fn all_deployed(&self) -> String {
        format!("$KV.{}_LIMITS.deployed.*.*", self.ns)
    }

    /// The same, as an API instance that accepts its tasks has it said: beside what workers have deployed.
    #[must_use]
    pub fn offered(&self, plugin: &Name, version: &str) -> String {
        format!("{}.api", self.deployed(plugin, version))
    }

    /// How all plugin versions describe themselves whose tasks API instances accept.
    #[must_use]
    pub fn all_offered(&self) -> String {
        format!("{}.api", self.all_deployed())
    }

    // Tasks that wait for their turn.

    /// The stream of tasks that wait for their serial key.
    #[must_use]
    pub fn lines_stream(&self) -> String {
        format!("{}_LINES", self.ns)
    }

    /// Where one task waits for its serial key; `hash` is hexadecimal.
    #[must_use]
    pub fn line(&self, hash: &str, address: &TaskAddress) -> String {
        self.with_address(&format!("line.{hash}"), address)
    }

    /// All tasks that wait for one serial key.
    #[must_use]
    pub fn line_of(&self, hash: &str) -> String {
        format!("{}.line.{hash}.>", self.ns)
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> String {
        format!("{}.line.>", self.ns)
    }

    /// All tasks of one plugin that wait for a serial key; with `task`, those with this name, of all majors.
    #[must_use]
    pub fn lines_of(&self, plugin: &Name, task: Option<&Name>) -> String {
        format!("{}.line.*.{plugin}.*.{}.*.*", self.ns, task.map_or("*", Name::as_str))
    }

    /// The tasks of one plugin major and task that wait for a serial key.
    #[must_use]
    pub fn lines_of_queue(&self, plugin: &Name, major: u32, task: &Name) -> String {
        format!("{}.line.*.{plugin}.v{major}.{task}.*.*", self.ns)
    }

    /// Finds one waiting task of any plugin.
    #[must_use]
    pub fn line_by_id(&self, id: TaskId) -> String {
        format!("{}.line.*.*.*.*.*.{id}", self.ns)
    }

    /// The hash of the key that a line's subject belongs to.
    #[must_use]
    pub fn key_of_line<'a>(&self, subject: &'a str) -> Option<&'a str> {
        self.tail("line", subject)?.split('.').next()
    }

    /// Reads a waiting task's subject.
    ///
    /// # Errors
    /// [`SubjectError`] when the subject is none of this namespace or malformed.
    pub fn parse_line(&self, subject: &str) -> Result<TaskAddress, SubjectError> {
        let error = || SubjectError { subject: subject.chars().take(400).collect() };
        let (_, address) =
            self.tail("line", subject).and_then(|tail| tail.split_once('.')).ok_or_else(error)?;
        address.parse().map_err(|_| error())
    }

    /// Reads the subject of a task that waits for a worker, in its queue or in a line.
    ///
    /// # Errors
    /// [`SubjectError`] when the subject is none of this namespace or malformed.
    pub fn parse_waiting(&self, subject: &str) -> Result<TaskAddress, SubjectError> {
        self.parse_task(subject).or_else(|_| self.parse_line(subject))
    }

    /// Operators' live controls.
    #[must_use]
    pub fn controls_bucket(&self) -> String {
        format!("{}_CONTROLS", self.ns)
    }
}
