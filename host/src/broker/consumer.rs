//! Durable consumers: who takes what from a stream.
//!
//! One per plugin major and task, so that each has its own position, cap and pause switch, and one for each plugin's
//! pump, so that due tasks which find their queue full hold up no other plugin's.
//!
//! Refuses: changing an existing consumer, which other hosts may be using.

use std::time::Duration;

use cardcage_protocol::{Name, Subjects};
use serde_json::{Map, Value, json};

use super::api::{API_TIMEOUT, CONSUMER_EXISTS, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, differences};
use super::{Broker, Error, Options, StreamSpec};

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
}

impl ConsumerSpec {
    /// The consumer of one plugin major and task.
    #[must_use]
    pub fn task(options: &Options, subjects: &Subjects, plugin: &Name, major: u32, task: &Name) -> Self {
        Self::new(
            subjects.task_consumer(plugin, major, task),
            StreamSpec::tasks(options, subjects, plugin),
            subjects.task_filter(plugin, major, task),
            options.lease,
            options.ack_pending_max,
        )
    }

    /// All consumers of a plugin with these tasks.
    #[must_use]
    pub fn all(
        options: &Options,
        subjects: &Subjects,
        plugin: &Name,
        major: u32,
        tasks: &[Name],
    ) -> Vec<Self> {
        let tasks = tasks.iter().map(|task| Self::task(options, subjects, plugin, major, task));
        tasks.chain([Self::pump(options, subjects, plugin)]).collect()
    }

    /// The consumer of a plugin's pump.
    #[must_use]
    pub fn pump(options: &Options, subjects: &Subjects, plugin: &Name) -> Self {
        let stream = StreamSpec::schedule(options, subjects);
        let (name, filter) = (subjects.pump_consumer(plugin), subjects.dues_of_plugin(plugin));
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
        Self { name, stream, config }
    }
}

impl Broker {
    /// Compares consumers that exist, and creates none.
    ///
    /// # Errors
    /// [`Error::Layout`] names all differences; [`Error::Unavailable`], [`Error::Refused`].
    pub async fn compare_consumers(&self, specs: &[ConsumerSpec]) -> Result<(), Error> {
        let mut found = Vec::new();
        for spec in specs {
            let info = format!("CONSUMER.INFO.{}.{}", spec.stream.name, spec.name);
            match self.api(&info, &json!(null), API_TIMEOUT).await {
                Ok(answer) => match compare(spec, &answer) {
                    Err(Error::Layout(differences)) => found.extend(differences),
                    other => other?,
                },
                Err(Error::Refused { code: STREAM_NOT_FOUND | CONSUMER_NOT_FOUND, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() { Ok(()) } else { Err(Error::Layout(found)) }
    }

    /// Creates a consumer, and its stream, if they are missing.
    ///
    /// # Errors
    /// [`Error::Layout`] when it exists with other settings; [`Error::Unavailable`], [`Error::Refused`].
    pub async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<(), Error> {
        let info = format!("CONSUMER.INFO.{}.{}", spec.stream.name, spec.name);
        match self.api(&info, &json!(null), API_TIMEOUT).await {
            Ok(answer) => return compare(spec, &answer),
            Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => self.ensure_stream(&spec.stream).await?,
            Err(Error::Refused { code: CONSUMER_NOT_FOUND, .. }) => {}
            Err(error) => return Err(error),
        }
        let create = format!("CONSUMER.CREATE.{}.{}", spec.stream.name, spec.name);
        let request = json!({ "stream_name": spec.stream.name, "config": spec.config, "action": "create" });
        match self.api(&create, &request, API_TIMEOUT).await {
            Ok(answer) => compare(spec, &answer),
            // Another host was faster.
            Err(Error::Refused { code, .. }) if CONSUMER_EXISTS.contains(&code) => {
                compare(spec, &self.api(&info, &json!(null), API_TIMEOUT).await?)
            }
            Err(error) => Err(error),
        }
    }
}

fn compare(spec: &ConsumerSpec, answer: &Map<String, Value>) -> Result<(), Error> {
    let empty = Map::new();
    let have = answer.get("config").and_then(Value::as_object).unwrap_or(&empty);
    let found = differences(&format!("{}/{}", spec.stream.name, spec.name), &spec.config, have);
    if found.is_empty() { Ok(()) } else { Err(Error::Layout(found)) }
}
