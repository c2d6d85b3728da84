//! The queues as operators see them: what waits, what is leased, what is paused.
//!
//! A pause is the consumer's own (`pause_until`), so it lives where the tasks are: it outlives hosts and brokers, and a
//! starting host, which creates consumers and never changes them, cannot lift it.
//!
//! Invariant: nothing here is asked of a worker.

use cardcage_protocol::{Name, Priority, TaskAddress, Timestamp};
use serde_json::{Map, Value, json};

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::scan::EVERYTHING;
use super::{Amount, Broker, Error};

/// A consumer of one task's queue, as it is on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskConsumer {
    /// The plugin.
    pub plugin: Name,
    /// Its major version.
    pub major: u32,
    /// The task.
    pub task: Name,
    /// Whose tasks it takes.
    pub priority: Priority,
    /// Delivered and not yet acknowledged: leased by workers, or waiting for their lease to end.
    pub leased: u64,
    /// So many may be, over all workers: the task's `max_running`, or what the installation allows.
    pub leased_max: Option<u64>,
    /// What it has yet to deliver for the first time.
    pub undelivered: u64,
    /// The highest stream sequence that was delivered.
    pub delivered: u64,
    /// Until when nothing is delivered.
    pub paused_until: Option<Timestamp>,
    pub(super) name: String,
    pub(super) stream: String,
}

impl TaskConsumer {
    /// Whether tasks of this address come by it.
    #[must_use]
    pub fn takes(&self, at: &TaskAddress) -> bool {
        (self.major, &self.task, self.priority) == (at.major, &at.task, at.priority)
    }
}

impl Broker {
    /// The consumers of one plugin's queue; none where the plugin has no queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`].
    pub async fn task_consumers(&self, plugin: &Name) -> Result<Vec<TaskConsumer>, Error> {
        self.consumers_of(&self.subjects().tasks_stream(plugin)).await
    }

    pub(super) async fn consumers_of(&self, stream: &str) -> Result<Vec<TaskConsumer>, Error> {
        let mut consumers = Vec::new();
        let mut offset = 0_usize;
        loop {
            let tail = format!("CONSUMER.LIST.{stream}");
            let answer = match self.api(&tail, &json!({ "offset": offset }), API_TIMEOUT).await {
                Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => return Ok(consumers),
                other => other?,
            };
            let page =
                answer.get("consumers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            offset += page.len();
            consumers.extend(page.iter().filter_map(|info| self.read_consumer(stream, info.as_object()?)));
            let total = answer.get("total").and_then(Value::as_u64).unwrap_or(0);
            if page.is_empty() || u64::try_from(offset).unwrap_or(u64::MAX) >= total {
                return Ok(consumers);
            }
        }
    }

    fn read_consumer(&self, stream: &str, info: &Map<String, Value>) -> Option<TaskConsumer> {
        let config = info.get("config")?;
        let (plugin, major, task, priority) =
            self.subjects().parse_task_filter(config.get("filter_subject").and_then(Value::as_str)?)?;
        let paused = info.get("paused").and_then(Value::as_bool).unwrap_or(false);
        let until = config.get("pause_until").and_then(Value::as_str).and_then(|text| text.parse().ok());
        Some(TaskConsumer {
            plugin,
            major,
            task,
            priority,
            leased: info.get("num_ack_pending").and_then(Value::as_u64).unwrap_or(0),
            leased_max: config.get("max_ack_pending").and_then(Value::as_u64),
            undelivered: info.get("num_pending").and_then(Value::as_u64).unwrap_or(0),
            delivered: info.get("delivered")?.get("stream_seq").and_then(Value::as_u64).unwrap_or(0),
            paused_until: until.filter(|_| paused),
            name: info.get("name").and_then(Value::as_str)?.to_owned(),
            stream: stream.to_owned(),
        })
    }

    /// Stops deliveries until then; a time that is past lets them go on.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`] when it is gone.
    pub async fn pause_consumer(&self, consumer: &TaskConsumer, until: Timestamp) -> Result<(), Error> {
        let tail = format!("CONSUMER.PAUSE.{}.{}", consumer.stream, consumer.name);
        self.api(&tail, &json!({ "pause_until": until }), API_TIMEOUT).await.map(|_| ())
    }

    /// What one task's queue holds, leased or not.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn queue_amount(&self, plugin: &Name, major: u32, task: &Name) -> Result<Amount, Error> {
        let filter = self.subjects().task_filter(plugin, major, task);
        self.amount(&self.subjects().tasks_stream(plugin), &filter, 1).await
    }

    /// What a plugin's queue holds, leased or not; with `task`, of that task, of all majors.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn tasks_amount(&self, plugin: &Name, task: Option<&Name>) -> Result<Amount, Error> {
        let filter = task.map_or(EVERYTHING.to_owned(), |task| self.subjects().tasks_of(plugin, Some(task)));
        self.amount(&self.subjects().tasks_stream(plugin), &filter, 1).await
    }

    /// The stream sequence of a queued task, and how many of the same task and priority stand before it; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn queue_position(&self, at: &TaskAddress) -> Result<Option<(u64, u64)>, Error> {
        let stream = self.subjects().tasks_stream(&at.plugin);
        let Some(message) = self.first_message(&stream, &self.subjects().task(at)).await? else {
            return Ok(None);
        };
        let filter = self.subjects().lane_filter(&at.plugin, at.major, &at.task, at.priority);
        let all = self.amount(&stream, &filter, 1).await?.count;
        let from_here = self.amount(&stream, &filter, message.sequence).await?.count;
        Ok(Some((message.sequence, all.saturating_sub(from_here))))
    }
}
