//! The streams: what must exist, created where it is missing, compared where it does.
//!
//! Settings are compared with what the broker echoes. An older server takes unknown settings silently and leaves them
//! out of its echo: a difference here is how that is noticed.
//!
//! Refuses: changing or deleting an existing stream.

use std::time::Duration;

use cardcage_protocol::{Name, Subjects};
use serde_json::{Map, Value, json};

use super::api::{API_TIMEOUT, STREAM_NAME_IN_USE, STREAM_NOT_FOUND, differences, side_by_side};
use super::{Broker, Difference, Error, Options};

/// Within this time a repeated message id is a duplicate.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Firings of one schedule that wait for a worker: at the shortest interval, those of two minutes.
const FIRINGS_MAX: u64 = 128;

/// A stream as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    config: Map<String, Value>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutReport {
    /// Streams that do not exist; [`Broker::ensure_layout`] has created them.
    pub missing: Vec<String>,
    /// What is different.
    pub differences: Vec<Difference>,
}

impl StreamSpec {
    /// The queue of one plugin's ready tasks.
    #[must_use]
    pub fn tasks(options: &Options, subjects: &Subjects, plugin: &Name) -> Self {
        Self::new(
            options,
            subjects.tasks_stream(plugin),
            &[subjects.tasks_of_plugin(plugin)],
            json!({
                "retention": "workqueue",
                "discard": "new",
                "max_msgs": options.queue_max_messages,
                "max_bytes": options.queue_max_bytes,
                "max_age": 0,
                // For tasks that are enqueued together.
                "allow_atomic": true,
                "duplicate_window": nanoseconds(DUPLICATE_WINDOW),
            }),
        )
    }

    /// Delayed and due tasks. No limits: `discard: new` is refused together with schedules, and nothing may vanish. Hosts
    /// count before they publish (`schedule_room`).
    #[must_use]
    pub fn schedule(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.schedule_stream(),
            &[subjects.schedules(), subjects.dues()],
            json!({
                "retention": "workqueue",
                "discard": "old",
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": 0,
                "allow_msg_schedules": true,
                "allow_atomic": true,
                "duplicate_window": nanoseconds(DUPLICATE_WINDOW),
            }),
        )
    }

    /// Schedules that plugins declare, and their firings. Of each schedule a number of firings is kept, so that those of a
    /// plugin that nobody runs do not pile up; the last ones stay.
    #[must_use]
    pub fn recurring(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.recurring_stream(),
            &[subjects.recurring_of(None), subjects.slots_of(None)],
            json!({
                "retention": "workqueue",
                "discard": "old",
                "max_msgs": -1,
                "max_bytes": -1,
                "max_msgs_per_subject": FIRINGS_MAX,
                "max_age": 0,
                "allow_msg_schedules": true,
                "allow_rollup_hdrs": true,
                "duplicate_window": nanoseconds(DUPLICATE_WINDOW),
            }),
        )
    }

    /// Records, republished to whoever waits for a task's outcome, and notes of what final ones owe (`owed`), which are not. At its bound the oldest goes: refusing would stop every
    /// worker, for a task whose outcome cannot be written cannot end.
    #[must_use]
    pub fn state(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.state_stream(),
            &[subjects.states(), subjects.all_owed()],
            json!({
                "retention": "limits",
                "discard": "old",
                "max_msgs": options.stores.records_max_messages,
                "max_bytes": bytes(options.stores.records_max_bytes),
                "max_msgs_per_subject": 1,
                "max_age": nanoseconds(options.result_ttl),
                // For the tasks that declare a shorter time.
                "allow_msg_ttl": true,
                "republish": { "src": subjects.states(), "dest": subjects.done_mapping() },
            }),
        )
    }

    /// Dead letters. At its bound the oldest goes, for the same reason.
    #[must_use]
    pub fn dead(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.dead_stream(),
            &[subjects.deads()],
            json!({
                "retention": "limits",
                "discard": "old",
                "max_msgs": options.stores.dead_max_messages,
                "max_bytes": bytes(options.stores.dead_max_bytes),
                "max_age": nanoseconds(options.dead_max_age),
            }),
        )
    }

    /// Tasks that no version has been able to decode. Full, it refuses: those that find no place stay in their queue. Its
    /// bound is a number of tasks, as that of the lines.
    #[must_use]
    pub fn parked(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.parked_stream(),
            &[subjects.all_parked()],
            json!({
                "retention": "limits",
                "discard": "new",
                "max_msgs": options.stores.parked_max_messages,
                "max_bytes": -1,
                "max_msgs_per_subject": 1,
                "max_age": 0,
                "duplicate_window": nanoseconds(DUPLICATE_WINDOW),
            }),
        )
    }

    /// Idempotency keys: a key-value bucket, in the form that NATS' own tools know. Full, it refuses: a key that is forgotten
    /// early would let a repeat run.
    #[must_use]
    pub fn idempotency(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.idempotency_stream(),
            &[subjects.idempotency_keys()],
            json!({
                "retention": "limits",
                "discard": "new",
                "max_msgs": options.stores.idempotency_max_messages,
                "max_bytes": -1,
                "max_msgs_per_subject": 1,
                "max_age": nanoseconds(options.idempotency_ttl),
                "allow_rollup_hdrs": true,
                "deny_delete": true,
            }),
        )
    }

    /// Limits that hold over all workers: a key-value bucket. Its entries are written by compare-and-set and removed by
    /// sequence; those that belong to a task carry a time to live.
    #[must_use]
    pub fn limits(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.limits_stream(),
            &[subjects.limits()],
            json!({
                "retention": "limits",
                "discard": "new",
                "max_msgs": options.stores.limits_max_messages,
                "max_bytes": -1,
                "max_msgs_per_subject": 1,
                "max_age": 0,
                "allow_msg_ttl": true,
            }),
        )
    }

    /// Tasks that wait for their serial key. Full, it refuses: those that find no place stay in their queue. Its bound is a
    /// number of tasks, for the broker sets a bound in bytes aside from its disk, and most installations have no lines.
    #[must_use]
    pub fn lines(options: &Options, subjects: &Subjects) -> Self {
        Self::new(
            options,
            subjects.lines_stream(),
            &[subjects.lines()],
            json!({
                "retention": "limits",
                "discard": "new",
                "max_msgs": options.stores.lines_max_messages,
                "max_bytes": -1,
                "max_age": 0,
                "duplicate_window": nanoseconds(DUPLICATE_WINDOW),
            }),
        )
    }

    /// Every stream of an installation with these plugins.
    #[must_use]
    pub fn all(options: &Options, subjects: &Subjects, plugins: &[Name]) -> Vec<Self> {
        let mut specs = vec![
            Self::state(options, subjects),
            Self::schedule(options, subjects),
            Self::recurring(options, subjects),
            Self::dead(options, subjects),
            Self::parked(options, subjects),
            Self::idempotency(options, subjects),
            Self::limits(options, subjects),
            Self::lines(options, subjects),
        ];
        specs.extend(plugins.iter().map(|plugin| Self::tasks(options, subjects, plugin)));
        specs
    }

    fn new(options: &Options, name: String, stream_subjects: &[String], rest: Value) -> Self {
        let mut config = match rest {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        config.insert("name".into(), name.as_str().into());
        config.insert("subjects".into(), stream_subjects.into());
        config.insert("storage".into(), options.storage.as_str().into());
        config.insert("num_replicas".into(), options.replicas.into());
        config.insert("allow_direct".into(), true.into());
        Self { name, config }
    }
}

/// A bound in bytes, as NATS writes it.
fn bytes(bound: Option<u64>) -> Value {
    bound.map_or_else(|| json!(-1), Value::from)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Broker {
    /// Creates every missing stream for these plugins and compares the others.
    ///
    /// # Errors
    /// [`Error::Layout`] names all differences; [`Error::Refused`] when the broker does not create one, for example
    /// for want of space; [`Error::Unavailable`].
    pub async fn ensure_layout(&self, plugins: &[Name]) -> Result<LayoutReport, Error> {
        let mut report = LayoutReport::default();
        let specs = StreamSpec::all(self.options(), self.subjects(), plugins);
        let found = side_by_side(specs.iter().map(|spec| self.look_or_create(spec))).await?;
        for (spec, (created, differences)) in specs.into_iter().zip(found) {
            if created {
                report.missing.push(spec.name);
            }
            report.differences.extend(differences);
        }
        self.stream_names().forget();
        // It is read from the stream of records, which may not have been there before.
        if !self.knows_time() {
            self.measure_clock().await;
        }
        if report.differences.is_empty() { Ok(report) } else { Err(Error::Layout(report.differences)) }
    }

    /// Compares without creating anything: what is missing is named, not made.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`].
    pub async fn compare_layout(&self, plugins: &[Name]) -> Result<LayoutReport, Error> {
        let mut report = LayoutReport::default();
        let specs = StreamSpec::all(self.options(), self.subjects(), plugins);
        let found = side_by_side(specs.iter().map(|spec| self.stream_differences(spec))).await?;
        for (spec, differences) in specs.into_iter().zip(found) {
            match differences {
                None => report.missing.push(spec.name),
                Some(differences) => report.differences.extend(differences),
            }
        }
        Ok(report)
    }

    /// Creates one stream if it is missing.
    ///
    /// # Errors
    /// As [`Broker::ensure_layout`].
    pub async fn ensure_stream(&self, spec: &StreamSpec) -> Result<(), Error> {
        let (_, differences) = self.look_or_create(spec).await?;
        if differences.is_empty() { Ok(()) } else { Err(Error::Layout(differences)) }
    }

    async fn look_or_create(&self, spec: &StreamSpec) -> Result<(bool, Vec<Difference>), Error> {
        if let Some(differences) = self.stream_differences(spec).await? {
            return Ok((false, differences));
        }
        let request = Value::Object(spec.config.clone());
        match self.api(&format!("STREAM.CREATE.{}", spec.name), &request, API_TIMEOUT).await {
            Ok(answer) => {
                tracing::info!(stream = spec.name, "stream created");
                Ok((true, compare(spec, &answer)))
            }
            // Another host was faster, with other settings.
            Err(Error::Refused { code: STREAM_NAME_IN_USE, .. }) => {
                Ok((false, self.stream_differences(spec).await?.unwrap_or_default()))
            }
            Err(Error::Refused { code, description }) => {
                Err(Error::Refused { code, description: format!("creating {}: {description}", spec.name) })
            }
            Err(error) => Err(error),
        }
    }

    /// `None` when the stream does not exist.
    async fn stream_differences(&self, spec: &StreamSpec) -> Result<Option<Vec<Difference>>, Error> {
        match self.api(&format!("STREAM.INFO.{}", spec.name), &json!(null), API_TIMEOUT).await {
            Ok(answer) => Ok(Some(compare(spec, &answer))),
            Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn compare(spec: &StreamSpec, answer: &Map<String, Value>) -> Vec<Difference> {
    let empty = Map::new();
    let have = answer.get("config").and_then(Value::as_object).unwrap_or(&empty);
    differences(&spec.name, &spec.config, have)
}
