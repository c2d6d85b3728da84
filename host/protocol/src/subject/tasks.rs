//! Names of tasks on their way: ready, delayed, or a slot of a schedule.

use super::Subjects;
use crate::address::{Priority, SubjectError, TaskAddress};
use crate::id::TaskId;
use crate::name::Name;

impl Subjects {
    // Ready tasks.

    /// The subject of a ready task.
    #[must_use]
    pub fn task(&self, address: &TaskAddress) -> String {
        self.with_address("task", address)
    }

    /// What a plugin's stream of ready tasks takes.
    #[must_use]
    pub fn tasks_of_plugin(&self, plugin: &Name) -> String {
        format!("{}.task.{plugin}.>", self.ns)
    }

    /// The ready tasks of one plugin, of all majors; with `task`, those with this name.
    #[must_use]
    pub fn tasks_of(&self, plugin: &Name, task: Option<&Name>) -> String {
        match task {
            None => self.tasks_of_plugin(plugin),
            Some(task) => format!("{}.task.{plugin}.*.{task}.*.*", self.ns),
        }
    }

    /// The ready tasks of one plugin major and task, of all priorities.
    #[must_use]
    pub fn task_filter(&self, plugin: &Name, major: u32, task: &Name) -> String {
        format!("{}.task.{plugin}.v{major}.{task}.*.*", self.ns)
    }

    /// What the consumer of one plugin major, task and priority takes.
    #[must_use]
    pub fn lane_filter(&self, plugin: &Name, major: u32, task: &Name, priority: Priority) -> String {
        format!("{}.task.{plugin}.v{major}.{task}.{}.*", self.ns, priority.token())
    }

    /// Finds one queued task of any plugin, wherever it stands.
    #[must_use]
    pub fn task_by_id(&self, id: TaskId) -> String {
        format!("{}.task.*.*.*.*.{id}", self.ns)
    }

    /// The stream of a plugin's ready tasks.
    #[must_use]
    pub fn tasks_stream(&self, plugin: &Name) -> String {
        format!("{}{plugin}", self.tasks_stream_prefix())
    }

    /// What the names of all task streams begin with; the rest is the plugin's name.
    #[must_use]
    pub fn tasks_stream_prefix(&self) -> String {
        format!("{}_TASKS_", self.ns)
    }

    /// The durable consumer of one plugin major and task, on the plugin's stream.
    #[must_use]
    pub fn task_consumer(&self, plugin: &Name, major: u32, task: &Name) -> String {
        format!("{plugin}_v{major}_{task}")
    }

    /// The same for one priority. The capitals keep it apart from the consumer of a task whose name ends so.
    #[must_use]
    pub fn lane_consumer(&self, plugin: &Name, major: u32, task: &Name, priority: Priority) -> String {
        let base = self.task_consumer(plugin, major, task);
        match priority {
            Priority::Normal => base,
            Priority::High => base + "_HIGH",
            Priority::Low => base + "_LOW",
        }
    }

    /// All ready tasks of all plugins.
    #[must_use]
    pub fn tasks(&self) -> String {
        format!("{}.task.>", self.ns)
    }

    /// Reads the plugin, major, task and priority of a consumer's filter.
    #[must_use]
    pub fn parse_task_filter(&self, filter: &str) -> Option<(Name, u32, Name, Priority)> {
        let mut tokens = self.tail("task", filter)?.split('.');
        let plugin = tokens.next()?.parse().ok()?;
        let major = tokens.next()?.strip_prefix('v')?.parse().ok()?;
        let task = tokens.next()?.parse().ok()?;
        Some((plugin, major, task, Priority::from_token(tokens.next()?)?))
    }

    /// Reads a ready task's subject.
    ///
    /// # Errors
    /// [`SubjectError`] when the subject is none of this namespace or malformed.
    pub fn parse_task(&self, subject: &str) -> Result<TaskAddress, SubjectError> {
        self.parse("task", subject)
    }

    // Delayed tasks.

    /// The stream of delayed and due tasks.
    #[must_use]
    pub fn schedule_stream(&self) -> String {
        format!("{}_SCHEDULE", self.ns)
    }

    /// The subject at which one task waits for its time.
    #[must_use]
    pub fn schedule(&self, plugin: &Name, id: TaskId) -> String {
        format!("{}.schedule.{plugin}.{id}", self.ns)
    }

    /// All delayed tasks.
    #[must_use]
    pub fn schedules(&self) -> String {
        format!("{}.schedule.>", self.ns)
    }

    /// The delayed tasks of one plugin.
    #[must_use]
    pub fn schedules_of(&self, plugin: &Name) -> String {
        format!("{}.schedule.{plugin}.*", self.ns)
    }

    /// Finds one delayed task of any plugin.
    #[must_use]
    pub fn schedule_by_id(&self, id: TaskId) -> String {
        format!("{}.schedule.*.{id}", self.ns)
    }

    /// The subject that a delayed task fires into.
    #[must_use]
    pub fn due(&self, address: &TaskAddress) -> String {
        self.with_address("due", address)
    }

    /// The durable consumer of a plugin's pump.
    #[must_use]
    pub fn pump_consumer(&self, plugin: &Name) -> String {
        format!("pump_{plugin}")
    }

    /// All due tasks.
    #[must_use]
    pub fn dues(&self) -> String {
        format!("{}.due.>", self.ns)
    }

    /// The due tasks of one plugin.
    #[must_use]
    pub fn dues_of(&self, plugin: &Name) -> String {
        format!("{}.due.{plugin}.>", self.ns)
    }

    /// Finds one due task of any plugin.
    #[must_use]
    pub fn due_by_id(&self, id: TaskId) -> String {
        format!("{}.due.*.*.*.*.{id}", self.ns)
    }

    /// Reads a due task's subject.
    ///
    /// # Errors
    /// [`SubjectError`] when the subject is none of this namespace or malformed.
    pub fn parse_due(&self, subject: &str) -> Result<TaskAddress, SubjectError> {
        self.parse("due", subject)
    }

    // Schedules that plugins declare.

    /// The stream of declared schedules and their firings.
    #[must_use]
    pub fn recurring_stream(&self) -> String {
        format!("{}_RECURRING", self.ns)
    }

    /// Where one schedule is kept.
    #[must_use]
    pub fn recurring(&self, plugin: &Name, schedule: &Name) -> String {
        format!("{}.recurring.{plugin}.{schedule}", self.ns)
    }

    /// The schedules of one plugin, or of all.
    #[must_use]
    pub fn recurring_of(&self, plugin: Option<&Name>) -> String {
        format!("{}.recurring.{}.*", self.ns, plugin.map_or("*", Name::as_str))
    }

    /// What a schedule fires into.
    #[must_use]
    pub fn slot(&self, plugin: &Name, schedule: &Name) -> String {
        format!("{}.slot.{plugin}.{schedule}", self.ns)
    }

    /// The firings of one plugin's schedules, or of all.
    #[must_use]
    pub fn slots_of(&self, plugin: Option<&Name>) -> String {
        format!("{}.slot.{}.*", self.ns, plugin.map_or("*", Name::as_str))
    }

    /// The durable consumer that takes a plugin's firings.
    #[must_use]
    pub fn slots_consumer(&self, plugin: &Name) -> String {
        format!("slots_{plugin}")
    }

    /// What is remembered of a schedule's last firing.
    #[must_use]
    pub fn last_firing(&self, plugin: &Name, schedule: &Name) -> String {
        format!("$KV.{}_LIMITS.firing.{plugin}.{schedule}", self.ns)
    }

    /// Says, for as long as it is there, that workers have had this plugin lately.
    #[must_use]
    pub fn seen(&self, plugin: &Name) -> String {
        format!("$KV.{}_LIMITS.seen.{plugin}", self.ns)
    }
}
