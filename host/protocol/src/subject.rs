//! Every subject, stream, consumer and bucket name, each exactly once.
//!
//! Nobody else in the project formats a subject. What is written here can be read back here.
//!
//! Invariants: everything begins with the namespace; a task's id is the last token of its subjects, so that a queued
//! task can be found without a second write.

use crate::address::{Priority, SubjectError, TaskAddress, push_u32};
use crate::id::{CallId, InstanceId, TaskId};
use crate::name::{Name, Namespace};

/// The queue group in which workers share calls.
pub const WORKERS_GROUP: &str = "workers";

/// All names of one namespace. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Subjects {
    ns: Namespace,
}

impl Subjects {
    /// The names of `namespace`.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self { ns: namespace }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

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

    /// All due tasks of a plugin: the filter of its pump.
    #[must_use]
    pub fn dues_of_plugin(&self, plugin: &Name) -> String {
        format!("{}.due.{plugin}.>", self.ns)
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

    /// Operators' live controls.
    #[must_use]
    pub fn controls_bucket(&self) -> String {
        format!("{}_CONTROLS", self.ns)
    }

    // Calls.

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

    fn with_address(&self, space: &str, address: &TaskAddress) -> String {
        let TaskAddress { plugin, major, task, priority, id } = address;
        let mut subject = String::with_capacity(160);
        // Plain appends: this runs for every task, and `write!` costs three times as much.
        for part in [self.ns.as_str(), ".", space, ".", plugin.as_str(), ".v"] {
            subject.push_str(part);
        }
        push_u32(&mut subject, *major);
        for part in [".", task.as_str(), ".", priority.token(), ".", id.encode(&mut [0; 36])] {
            subject.push_str(part);
        }
        subject
    }

    fn parse(&self, space: &str, subject: &str) -> Result<TaskAddress, SubjectError> {
        let error = || SubjectError { subject: subject.chars().take(400).collect() };
        self.tail(space, subject).ok_or_else(error)?.parse().map_err(|_| error())
    }

    fn tail<'a>(&self, space: &str, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(self.ns.as_str())?.strip_prefix('.')?;
        rest.strip_prefix(space)?.strip_prefix('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Priority;

    fn address() -> TaskAddress {
        TaskAddress {
            plugin: "orders".parse().unwrap(),
            major: 12,
            task: "fulfil".parse().unwrap(),
            priority: Priority::Normal,
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        }
    }

    #[test]
    fn task_subjects_read_back() {
        let subjects = Subjects::default();
        let subject = subjects.task(&address());
        assert_eq!(subject, "cardcage.task.orders.v12.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057");
        assert_eq!(subjects.parse_task(&subject), Ok(address()));
        let at = address();
        let filter = subjects.lane_filter(&at.plugin, at.major, &at.task, Priority::Low);
        assert_eq!(subjects.parse_task_filter(&filter), Some((at.plugin, at.major, at.task, Priority::Low)));
        assert_eq!(subjects.parse_due(&subjects.due(&address())), Ok(address()));
        assert!(subjects.parse_due(&subject).is_err());
        let line = subjects.line("abc", &address());
        assert_eq!((subjects.parse_line(&line), subjects.key_of_line(&line)), (Ok(address()), Some("abc")));
        assert!(subjects.parse_line(&subject).is_err());
        assert!(Subjects::new("other".parse().unwrap()).parse_task(&subject).is_err());
        for bad in [
            "cardcage.task.orders.v1.fulfil.p5",
            "cardcage.task.orders.v01.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057",
            "cardcage.task.orders.v1.fulfil.p4.01890a5d-ac96-774b-bcce-b302099a8057",
            "cardcage.task.orders.v1.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057.x",
        ] {
            assert!(subjects.parse_task(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_as_documented() {
        let s = Subjects::default();
        let (plugin, task): (Name, Name) = ("orders".parse().unwrap(), "fulfil".parse().unwrap());
        assert_eq!(s.tasks_stream(&plugin), "cardcage_TASKS_orders");
        assert_eq!(s.task_consumer(&plugin, 1, &task), "orders_v1_fulfil");
        assert_eq!(s.task_filter(&plugin, 1, &task), "cardcage.task.orders.v1.fulfil.*.*");
        assert_eq!(s.lane_consumer(&plugin, 1, &task, Priority::Normal), "orders_v1_fulfil");
        assert_eq!(s.lane_consumer(&plugin, 1, &task, Priority::Low), "orders_v1_fulfil_LOW");
        assert_eq!(s.lane_filter(&plugin, 1, &task, Priority::High), "cardcage.task.orders.v1.fulfil.p1.*");
        assert_eq!(s.done_mapping(), "cardcage.done.{{wildcard(1)}}");
        assert_eq!(s.call(&plugin, 3, &task), "cardcage.call.orders.v3.fulfil");
    }

    #[test]
    fn call_subjects_read_back() {
        let s = Subjects::default();
        let call = CallId::generate();
        let instance = InstanceId::generate("worker").unwrap();
        assert_eq!(s.parse_callio(&s.callio(&instance, call)), Some(call));
        assert_eq!(s.parse_callctl(&s.callctl(call)), Some(call));
        assert_eq!(s.parse_callctl("cardcage.callctl.x"), None);
    }

    #[test]
    fn dead_letters_subjects_read_back() {
        let (s, at) = (Subjects::default(), address());
        let subject = s.dead(&at.plugin, &at.task, at.id);
        assert_eq!(s.parse_dead(&subject), Some((at.plugin.clone(), at.task.clone(), at.id)));
        assert_eq!(s.parse_dead(&format!("{subject}.x")), None);
        assert_eq!(s.deads_of(Some(&at.plugin), None), "cardcage.dead.orders.*.*");
    }
}
