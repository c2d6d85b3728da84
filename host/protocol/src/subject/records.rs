//! Names of what is recorded of tasks: outcomes, dead letters, parked tasks.

use super::Subjects;
use crate::id::TaskId;
use crate::name::Name;

impl Subjects {
    // Records.

    /// The stream of task records.
    #[must_use]
    pub fn state_stream(&self) -> String {
        format!("{}_STATE", self.ns)
    }

    /// The subject of one task's record.
    #[must_use]
    pub fn state(&self, id: TaskId) -> String {
        format!("{}.state.{id}", self.ns)
    }

    /// All records.
    #[must_use]
    pub fn states(&self) -> String {
        format!("{}.state.*", self.ns)
    }

    /// The note that one task's record owes publishes. It stands beside the records and is not republished.
    #[must_use]
    pub fn owed(&self, id: TaskId) -> String {
        format!("{}.owed.{id}", self.ns)
    }

    /// All such notes.
    #[must_use]
    pub fn all_owed(&self) -> String {
        format!("{}.owed.*", self.ns)
    }

    /// Reads the task of such a note.
    #[must_use]
    pub fn parse_owed(&self, subject: &str) -> Option<TaskId> {
        self.tail("owed", subject)?.parse().ok()
    }

    /// Where the stored records of one task are republished. Waiters listen here, never on the record's own subject,
    /// which also carries refused writes.
    #[must_use]
    pub fn done(&self, id: TaskId) -> String {
        format!("{}.done.{id}", self.ns)
    }

    /// Where the stored records of all tasks are republished.
    #[must_use]
    pub fn dones(&self) -> String {
        format!("{}.done.*", self.ns)
    }

    /// The destination that the record stream republishes to, in NATS' mapping syntax.
    #[must_use]
    pub fn done_mapping(&self) -> String {
        format!("{}.done.{{{{wildcard(1)}}}}", self.ns)
    }

    // Dead letters and parked tasks.

    /// The stream of dead letters.
    #[must_use]
    pub fn dead_stream(&self) -> String {
        format!("{}_DEAD", self.ns)
    }

    /// The subject of one dead letter.
    #[must_use]
    pub fn dead(&self, plugin: &Name, task: &Name, id: TaskId) -> String {
        format!("{}.dead.{plugin}.{task}.{id}", self.ns)
    }

    /// The dead letters of one plugin, of one task, or of all where neither is named.
    #[must_use]
    pub fn deads_of(&self, plugin: Option<&Name>, task: Option<&Name>) -> String {
        let token = |name: Option<&Name>| name.map_or("*", Name::as_str).to_owned();
        format!("{}.dead.{}.{}.*", self.ns, token(plugin), token(task))
    }

    /// Finds one dead letter of any plugin.
    #[must_use]
    pub fn dead_by_id(&self, id: TaskId) -> String {
        format!("{}.dead.*.*.{id}", self.ns)
    }

    /// Reads a dead letter's subject: plugin, task and id.
    #[must_use]
    pub fn parse_dead(&self, subject: &str) -> Option<(Name, Name, TaskId)> {
        let mut tokens = self.tail("dead", subject)?.split('.');
        let read = (tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?);
        tokens.next().is_none().then_some(read)
    }

    /// All dead letters.
    #[must_use]
    pub fn deads(&self) -> String {
        format!("{}.dead.>", self.ns)
    }

    /// The stream of tasks parked for their schema.
    #[must_use]
    pub fn parked_stream(&self) -> String {
        format!("{}_PARKED", self.ns)
    }

    /// The subject of one parked task.
    #[must_use]
    pub fn parked(&self, plugin: &Name, task: &Name, id: TaskId) -> String {
        format!("{}.parked.{plugin}.{task}.{id}", self.ns)
    }

    /// The parked tasks of one plugin's task.
    #[must_use]
    pub fn parked_of(&self, plugin: &Name, task: &Name) -> String {
        format!("{}.parked.{plugin}.{task}.*", self.ns)
    }

    /// Finds one parked task of any plugin.
    #[must_use]
    pub fn parked_by_id(&self, id: TaskId) -> String {
        format!("{}.parked.*.*.{id}", self.ns)
    }

    /// All parked tasks.
    #[must_use]
    pub fn all_parked(&self) -> String {
        format!("{}.parked.>", self.ns)
    }
}
