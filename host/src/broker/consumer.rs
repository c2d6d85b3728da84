//! Durable consumers: who takes what from a stream.
//!
//! One per plugin major and task, so that each has its own position, cap and pause switch; two more where a task declares
//! priorities, one for high and one for low, beside which the first one stays as it is; and one for each plugin's pump,
//! so that due tasks which find their queue full hold up no other plugin's.
//!
//! Refuses: changing an existing consumer, which other hosts may be using, in anything but its cap. The cap is part of
//! what a task declares, and declarations change from version to version while hosts of both run. So the consumer says
//! which version of the plugin its cap comes from; that version or a later one changes it, and says so in the log; an
//! earlier one takes it as it stands. What an operator has set while hosts run stands over all versions. See decision 14.

use std::time::Duration;

use cardcage_protocol::{Name, Priority, Subjects};
use serde_json::{Map, Value, json};

use super::api::{
    API_TIMEOUT, CONSUMER_EXISTS, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, differences, side_by_side,
};
use super::cap::{self, Verdict};
use super::{Broker, Difference, Error, Options, StreamSpec};

/// Deliveries that may be unacknowledged at the same time.
const CAP: &str = "max_ack_pending";
/// Pull requests that may wait at one consumer: two for each of 256 workers.
const MAX_WAITING: u32 = 512;

/// A durable pull consumer as it must be, and its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerSpec {
    /// Its name.
    pub name: String,
    /// The stream that it reads, created again should it vanish.
    pub stream: StreamSpec,
    config: Map<String, Value>,
    /// The version that may change the cap; `None`: nobody changes it.
    declared_by: Option<String>,
}

impl ConsumerSpec {
    /// The consumer of one plugin major and task, for tasks of normal priority.
    #[must_use]
    pub fn task(options: &Options, subjects: &Subjects, plugin: &Name, major: u32, task: &Name) -> Self {
        Self::lane(options, subjects, plugin, major, task, Priority::Normal)
    }

    /// The consumers of one plugin major and task: one, or where it declares priorities one for each, the most urgent
    /// first.
    #[must_use]
    pub fn of_task(
        options: &Options,
        subjects: &Subjects,
        plugin: &Name,
        major: u32,
        task: &Name,
        priorities: bool,
    ) -> Vec<Self> {
        let lanes = if priorities { &Priority::ALL[..] } else { &[Priority::Normal] };
        let lane = |lane: &Priority| Self::lane(options, subjects, plugin, major, task, *lane);
        lanes.iter().map(lane).collect()
    }

    fn lane(
        options: &Options,
        subjects: &Subjects,
        plugin: &Name,
        major: u32,
        task: &Name,
        priority: Priority,
    ) -> Self {
        let mut spec = Self::new(
            subjects.lane_consumer(plugin, major, task, priority),
            StreamSpec::tasks(options, subjects, plugin),
            subjects.lane_filter(plugin, major, task, priority),
            options.lease,
            options.ack_pending_max,
        );
        spec.declared_by = Some("0.0.0".to_owned());
        spec
    }

    /// Lets at most `max_running` deliveries be unacknowledged at the same time, as `version` of the plugin declares or
    /// its operator wants; `None`: as many as of any task.
    #[must_use]
    pub fn declared(mut self, version: &str, max_running: Option<u32>) -> Self {
        self.declared_by = Some(version.to_owned());
        if let Some(max_running) = max_running {
            self.config.insert(CAP.to_owned(), max_running.into());
        }
        self
    }

    /// Lets at most so many deliveries be unacknowledged at the same time, whatever any version declares.
    #[must_use]
    pub fn set_by_operator(mut self, max_running: u32) -> Self {
        self.declared_by = Some(cap::OPERATOR.to_owned());
        self.config.insert(CAP.to_owned(), max_running.into());
        self
    }

    /// All consumers of a plugin with these tasks, of which some declare priorities.
    #[must_use]
    pub fn all(
        options: &Options,
        subjects: &Subjects,
        plugin: &Name,
        major: u32,
        tasks: &[(Name, bool)],
    ) -> Vec<Self> {
        let tasks = tasks.iter().flat_map(|(task, priorities)| {
            Self::of_task(options, subjects, plugin, major, task, *priorities)
        });
        tasks.chain([Self::pump(options, subjects, plugin), Self::slots(options, subjects, plugin)]).collect()
    }

    /// The consumer of a plugin's pump.
    #[must_use]
    pub fn pump(options: &Options, subjects: &Subjects, plugin: &Name) -> Self {
        let stream = StreamSpec::schedule(options, subjects);
        let (name, filter) = (subjects.pump_consumer(plugin), subjects.dues_of(plugin));
        Self::new(name, stream, filter, options.lease, options.ack_pending_max)
    }

    /// The consumer of the firings of a plugin's schedules.
    #[must_use]
    pub fn slots(options: &Options, subjects: &Subjects, plugin: &Name) -> Self {
        let stream = StreamSpec::recurring(options, subjects);
        let (name, filter) = (subjects.slots_consumer(plugin), subjects.slots_of(Some(plugin)));
        Self::new(name, stream, filter, options.lease, options.ack_pending_max)
    }

    fn new(
        name: String,
        stream: StreamSpec,
        filter: String,
        ack_wait: Duration,
        ack_pending_max: u32,
    ) -> Self {
        let config = json!({
            "name": name,
            "durable_name": name,
            "filter_subject": filter,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": u64::try_from(ack_wait.as_nanos()).unwrap_or(u64::MAX),
            // The host counts attempts: the broker counts deliveries, of which some are no attempt.
            "max_deliver": -1,
            "max_ack_pending": ack_pending_max,
            "max_waiting": MAX_WAITING,
        });
        let config = match config {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        Self { name, stream, config, declared_by: None }
    }
}

impl Broker {
    /// Compares consumers that exist, and creates none.
    ///
    /// # Errors
    /// [`Error::Layout`] names all differences; [`Error::Unavailable`], [`Error::Refused`].
    pub async fn compare_consumers(&self, specs: &[ConsumerSpec]) -> Result<(), Error> {
        let found = side_by_side(specs.iter().map(|spec| self.consumer_differences(spec))).await?;
        let found: Vec<Difference> = found.into_iter().flatten().collect();
        if found.is_empty() { Ok(()) } else { Err(Error::Layout(found)) }
    }

    /// In what the consumer, if it exists, is another one.
    async fn consumer_differences(&self, spec: &ConsumerSpec) -> Result<Vec<Difference>, Error> {
        let info = format!("CONSUMER.INFO.{}.{}", spec.stream.name, spec.name);
        match self.api(&info, &json!(null), API_TIMEOUT).await {
            Ok(answer) => match compare(spec, &answer) {
                // A task's cap is no difference: whoever creates the consumer changes it, or takes it as it is.
                Err(Error::Layout(mut differences)) => {
                    differences.retain(|one| spec.declared_by.is_none() || one.field != CAP);
                    Ok(differences)
                }
                other => other.map(|()| Vec::new()),
            },
            Err(Error::Refused { code: STREAM_NOT_FOUND | CONSUMER_NOT_FOUND, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Creates a consumer, and its stream, if they are missing.
    ///
    /// # Errors
    /// [`Error::Layout`] when it exists with other settings; [`Error::Unavailable`], [`Error::Refused`].
    pub async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<(), Error> {
        let info = format!("CONSUMER.INFO.{}.{}", spec.stream.name, spec.name);
        match self.api(&info, &json!(null), API_TIMEOUT).await {
            Ok(answer) => return self.compare_or_cap(spec, &answer).await,
            Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => self.ensure_stream(&spec.stream).await?,
            Err(Error::Refused { code: CONSUMER_NOT_FOUND, .. }) => {}
            Err(error) => return Err(error),
        }
        let create = format!("CONSUMER.CREATE.{}.{}", spec.stream.name, spec.name);
        match self.api(&create, &spec.request("create"), API_TIMEOUT).await {
            Ok(answer) => compare(spec, &answer),
            // Another host was faster.
            Err(Error::Refused { code, .. }) if CONSUMER_EXISTS.contains(&code) => {
                let answer = self.api(&info, &json!(null), API_TIMEOUT).await?;
                self.compare_or_cap(spec, &answer).await
            }
            Err(error) => Err(error),
        }
    }

    /// Compares, and changes the cap where this host's version is the one to say.
    async fn compare_or_cap(&self, spec: &ConsumerSpec, answer: &Map<String, Value>) -> Result<(), Error> {
        let Some(ours) = &spec.declared_by else { return compare(spec, answer) };
        let have = answer.get("config").and_then(Value::as_object);
        let theirs = have.and_then(cap::declared_by);
        let (want, have) = (spec.config.get(CAP), have.and_then(|have| have.get(CAP)));
        let mut others = spec.clone();
        others.config.remove(CAP);
        compare(&others, answer)?;
        let consumer = &spec.name;
        match cap::judge(ours, theirs, want != have) {
            Verdict::Keep => Ok(()),
            Verdict::TakeTheirs => {
                let (cap, declared_by) = (have.map(Value::to_string), theirs);
                tracing::info!(
                    consumer,
                    cap,
                    declared_by,
                    "a task's cap stands as a later version declared it"
                );
                Ok(())
            }
            Verdict::Change => {
                let change = format!("CONSUMER.CREATE.{}.{}", spec.stream.name, spec.name);
                let answer = self.api(&change, &spec.request("update"), API_TIMEOUT).await?;
                if want != have {
                    let (from, to) = (have.map(Value::to_string), want.map(Value::to_string));
                    tracing::info!(consumer, from, to, declared_by = ours, "a task's cap was changed");
                }
                compare(spec, &answer)
            }
        }
    }
}

impl ConsumerSpec {
    fn request(&self, action: &str) -> Value {
        let mut config = self.config.clone();
        if let Some(version) = &self.declared_by {
            config.insert("metadata".to_owned(), json!({ cap::DECLARED_BY: version }));
        }
        json!({ "stream_name": self.stream.name, "config": config, "action": action })
    }
}

fn compare(spec: &ConsumerSpec, answer: &Map<String, Value>) -> Result<(), Error> {
    let empty = Map::new();
    let have = answer.get("config").and_then(Value::as_object).unwrap_or(&empty);
    let found = differences(&format!("{}/{}", spec.stream.name, spec.name), &spec.config, have);
    if found.is_empty() { Ok(()) } else { Err(Error::Layout(found)) }
}
