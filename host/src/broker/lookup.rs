//! Where a task is: in its record, in a queue, in the line of its serial key, or waiting for its time.
//!
//! A task moves while one looks: from the schedule to the queue, from the queue into its record. So the places are
//! asked in the order of that movement and then once more from the queue on; a task that is nowhere twice does not exist.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cardcage_protocol::{Name, State, TaskAddress, TaskEnvelope, TaskId, TaskRecord, Timestamp, delayed};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::direct::StoredMessage;
use super::publish::pairs;
use super::{Broker, Error};

/// How long the list of task streams is believed.
const NAMES_FRESH_FOR: Duration = Duration::from_secs(5);

/// Messages of one task that are looked at.
const COPIES_MAX: usize = 64;

/// Where a task was found.
#[derive(Debug, Clone)]
pub enum Place {
    /// It has a record, at this sequence.
    Recorded(Box<TaskRecord>, u64),
    /// It is in its plugin's queue; a worker may hold it (see [`Broker::ask_holder`]).
    Queued(Box<Waiting>),
    /// It waits for its time.
    Scheduled(Box<Waiting>, Option<Timestamp>),
    /// Its time has come, and it is on its way into the queue.
    Due(Box<Waiting>),
    /// No version has been able to decode it: it waits for one that is.
    Parked(Box<Waiting>),
}

/// A task that no record tells of.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Where it belongs.
    pub address: TaskAddress,
    /// The whole envelope, if it is readable.
    pub envelope: Option<TaskEnvelope>,
    /// When the broker stored it.
    pub stored_at: Option<Timestamp>,
    /// Its sequence in its stream.
    pub sequence: u64,
}

impl Waiting {
    pub(super) fn new(address: TaskAddress, message: StoredMessage) -> Box<Self> {
        let envelope = TaskEnvelope::decode_at(
            address.clone(),
            pairs(message.headers.as_ref()),
            message.payload.clone(),
        );
        Box::new(Self {
            address,
            envelope: envelope.ok(),
            stored_at: message.stored_at,
            sequence: message.sequence,
        })
    }
}

/// When a message of the schedule is due.
pub(super) fn scheduled_at(message: &StoredMessage) -> Option<Timestamp> {
    delayed::due_at(pairs(message.headers.as_ref()))
}

/// The task streams that exist, remembered for a short time.
#[derive(Default)]
pub(super) struct StreamNames(Mutex<Option<(Instant, Vec<String>)>>);

impl StreamNames {
    fn fresh(&self) -> Option<Vec<String>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().filter(|(at, _)| at.elapsed() < NAMES_FRESH_FOR).map(|(_, names)| names.clone())
    }

    fn remember(&self, names: &[String]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), names.to_vec()));
    }

    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Broker {
    /// Finds a task; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`]: then nothing is known.
    pub async fn find_task(&self, id: TaskId) -> Result<Option<Place>, Error> {
        if let Some(found) = self.in_records(id).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.in_queues(id).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.in_line(id).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.in_schedule(id).await? {
            return Ok(Some(found));
        }
        // Where its record has outlived its time.
        if let Some(parked) = self.find_parked(id).await? {
            return Ok(Some(Place::Parked(Box::new(parked.waiting()))));
        }
        if let Some(found) = self.in_queues(id).await? {
            return Ok(Some(found));
        }
        self.in_records(id).await
    }

    /// Where a task waits, whatever its record says; `None` when it waits nowhere.
    ///
    /// # Errors
    /// As [`Broker::find_task`].
    pub async fn find_waiting(&self, id: TaskId) -> Result<Option<Place>, Error> {
        if let Some(found) = self.in_queues(id).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.in_line(id).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.in_schedule(id).await? {
            return Ok(Some(found));
        }
        self.in_queues(id).await
    }

    /// Every message of a task that stands in its plugin's queue, or in the line of its serial key: one, unless somebody died
    /// between moving it and saying so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn messages_of(&self, plugin: &Name, id: TaskId) -> Result<Vec<Waiting>, Error> {
        let mut found = self.queued_messages(plugin, id).await?;
        found.extend(self.messages_in_line(id).await?);
        Ok(found)
    }

    /// Every message of a task that stands in its plugin's queue; none where the plugin has no queue.
    ///
    /// # Errors
    /// As [`Broker::messages_of`].
    pub async fn queued_messages(&self, plugin: &Name, id: TaskId) -> Result<Vec<Waiting>, Error> {
        self.all_of(&self.subjects().tasks_stream(plugin), &self.subjects().task_by_id(id)).await
    }

    /// Whether the message with this sequence stands in the plugin's queue.
    ///
    /// # Errors
    /// As [`Broker::messages_of`].
    pub async fn is_queued(&self, plugin: &Name, sequence: u64) -> Result<bool, Error> {
        let found = self.message_at(&self.subjects().tasks_stream(plugin), sequence).await?;
        Ok(found.is_some())
    }

    /// Every message of a task that stands in the line of its serial key.
    ///
    /// # Errors
    /// As [`Broker::messages_of`].
    pub async fn messages_in_line(&self, id: TaskId) -> Result<Vec<Waiting>, Error> {
        self.all_of(&self.subjects().lines_stream(), &self.subjects().line_by_id(id)).await
    }

    async fn all_of(&self, stream: &str, filter: &str) -> Result<Vec<Waiting>, Error> {
        let messages = match self.page(stream, filter, 1, COPIES_MAX).await {
            Err(Error::NoResponders { .. } | Error::Refused { code: STREAM_NOT_FOUND, .. }) => {
                return Ok(Vec::new());
            }
            other => other?.messages,
        };
        let waiting = |message: StoredMessage| {
            let address = self.subjects().parse_waiting(&message.subject).ok()?;
            Some(*Waiting::new(address, message))
        };
        Ok(messages.into_iter().filter_map(waiting).collect())
    }

    /// Whether a message of the task stands in its plugin's queue that was delivered to some worker, which may hold it. Whoever
    /// waits elsewhere is held by nobody.
    ///
    /// After a broker was killed, its consumers may have forgotten the deliveries of its last moments.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn was_delivered(&self, plugin: &Name, id: TaskId) -> Result<bool, Error> {
        let messages = self.queued_messages(plugin, id).await?;
        if messages.is_empty() {
            return Ok(false);
        }
        let consumers = self.task_consumers(plugin).await?;
        let is_delivered = |message: &Waiting| {
            consumers.iter().any(|one| one.takes(&message.address) && message.sequence <= one.delivered)
        };
        Ok(messages.iter().any(is_delivered))
    }

    /// A task in its plugin's queue, or in the line of its serial key.
    ///
    /// # Errors
    /// As [`Broker::find_task`].
    pub async fn find_queued(&self, id: TaskId) -> Result<Option<Waiting>, Error> {
        let found = match self.in_queues(id).await? {
            Some(found) => Some(found),
            None => self.in_line(id).await?,
        };
        Ok(found.and_then(|place| match place {
            Place::Queued(waiting) => Some(*waiting),
            _ => None,
        }))
    }

    /// Whether a task has come as far as its queue with this attempt: it waits there or in a line, is or was run, is parked,
    /// or has ended.
    ///
    /// # Errors
    /// As [`Broker::find_task`].
    pub async fn has_gone_on(&self, plugin: &Name, id: TaskId, attempt: u32) -> Result<bool, Error> {
        let is_it =
            |waiting: &Waiting| waiting.envelope.as_ref().is_some_and(|envelope| envelope.attempt >= attempt);
        if self.messages_of(plugin, id).await?.iter().any(is_it) {
            return Ok(true);
        }
        // After the queue: what leaves it has been recorded before.
        Ok(self.read_record(id).await?.is_some_and(|(record, _)| {
            record.state.is_final()
                || record.state == State::Parked
                || record.attempts.iter().any(|known| known.n >= attempt)
        }))
    }

    /// Asks the workers who holds a task; the holder's answer, or `None` when nobody holds it or answers within `wait`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ask_holder(&self, id: TaskId, wait: Duration) -> Result<Option<Bytes>, Error> {
        self.ask(self.subjects().find(), id, wait).await
    }

    /// Tells the workers that a task was cancelled; the holder's answer, or `None` when nobody holds it or answers
    /// within `wait`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn tell_cancelled(&self, id: TaskId, wait: Duration) -> Result<Option<Bytes>, Error> {
        self.ask(self.subjects().cancel(), id, wait).await
    }

    async fn ask(&self, subject: String, id: TaskId, wait: Duration) -> Result<Option<Bytes>, Error> {
        let question = Bytes::from(json!({ "id": id }).to_string());
        match self.request(subject, None, question, wait).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(Error::NoResponders { .. } | Error::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The envelope of a task in its plugin's queue, also while somebody holds it; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`]; [`Error::Envelope`] when the message is none.
    pub async fn read_queued(&self, plugin: &Name, id: TaskId) -> Result<Option<TaskEnvelope>, Error> {
        let stream = self.subjects().tasks_stream(plugin);
        let Some(message) = self.first_message(&stream, &self.subjects().task_by_id(id)).await? else {
            return Ok(None);
        };
        let headers = pairs(message.headers.as_ref());
        Ok(Some(TaskEnvelope::decode(self.subjects(), &message.subject, headers, message.payload.clone())?))
    }

    async fn in_records(&self, id: TaskId) -> Result<Option<Place>, Error> {
        let found = self.read_record(id).await?;
        Ok(found.map(|(record, sequence)| Place::Recorded(Box::new(record), sequence)))
    }

    async fn in_queues(&self, id: TaskId) -> Result<Option<Place>, Error> {
        let filter = self.subjects().task_by_id(id);
        for stream in self.task_streams().await? {
            let message = match self.first_message(&stream, &filter).await {
                // The stream was deleted since its name was read.
                Err(Error::NoResponders { .. } | Error::Refused { code: STREAM_NOT_FOUND, .. }) => {
                    self.stream_names().forget();
                    continue;
                }
                other => other?,
            };
            let Some(message) = message else { continue };
            let address = self.subjects().parse_task(&message.subject);
            if let Ok(address) = address {
                return Ok(Some(Place::Queued(Waiting::new(address, message))));
            }
        }
        Ok(None)
    }

    /// A task that waits for its serial key is queued, to everybody else.
    async fn in_line(&self, id: TaskId) -> Result<Option<Place>, Error> {
        let stream = self.subjects().lines_stream();
        let Some(message) = self.first_message(&stream, &self.subjects().line_by_id(id)).await? else {
            return Ok(None);
        };
        let address = self.subjects().parse_line(&message.subject).ok();
        Ok(address.map(|address| Place::Queued(Waiting::new(address, message))))
    }

    async fn in_schedule(&self, id: TaskId) -> Result<Option<Place>, Error> {
        let stream = self.subjects().schedule_stream();
        for filter in [self.subjects().schedule_by_id(id), self.subjects().due_by_id(id)] {
            let message = self.first_message(&stream, &filter).await?;
            if let Some(place) = message.and_then(|message| self.scheduled(message)) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The streams of ready tasks, of whatever plugins there are.
    pub(super) async fn task_streams(&self) -> Result<Vec<String>, Error> {
        if let Some(names) = self.stream_names().fresh() {
            return Ok(names);
        }
        let mut names = Vec::new();
        loop {
            let request = json!({ "subject": self.subjects().tasks(), "offset": names.len() });
            let answer = self.api("STREAM.NAMES", &request, API_TIMEOUT).await?;
            let page = answer.get("streams").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            names.extend(page.iter().filter_map(Value::as_str).map(str::to_owned));
            let total = answer.get("total").and_then(Value::as_u64).unwrap_or(0);
            if page.is_empty() || names.len() as u64 >= total {
                break;
            }
        }
        self.stream_names().remember(&names);
        Ok(names)
    }
}
