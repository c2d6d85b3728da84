//! Parked tasks: no version that had one could decode its body, so it waits beside its queue for one that can.
//!
//! Each is the envelope as it was, with headers of its own beside it: the queue's subject, the hashes of the schemas
//! that could not read it, and what was wrong. There is one message per task; parking a task anew replaces it.
//!
//! Invariants: a parked task leaves here by its sequence, so that whoever removes an old message spares a newer one;
//! coming back is published under an identity of its own, so that doing it twice in a row stores it once; what comes back
//! was promised, however late it does.
//!
//! Refuses: deciding whether a task comes back. That is `crate::unpark`, which holds the record against it.

use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Name, Parking, TaskAddress, TaskEnvelope, TaskId, Timestamp, header};

use super::dead::{REASON_MAX_BYTES, line};
use super::direct::StoredMessage;
use super::publish::{pairs, set};
use super::task_queue::envelope_headers;
use super::{Broker, Error, Extent, Stored, Waiting};

/// How often a parking that others were faster with is tried anew.
const ROUNDS: usize = 16;

/// A parked task that was read.
#[derive(Debug, Clone)]
pub struct ParkedTask {
    /// Where it belongs.
    pub address: TaskAddress,
    /// Hashes of the schemas that could not read it.
    pub schemas: Vec<String>,
    /// What was wrong.
    pub reason: String,
    /// The sequence in its queue of the message that was parked, where that is written.
    pub message: Option<u64>,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// Its sequence among the parked tasks.
    pub sequence: u64,
    /// The whole envelope, if it is readable.
    pub envelope: Option<TaskEnvelope>,
    /// The author's JSON.
    pub body: Bytes,
    headers: HeaderMap,
}

impl ParkedTask {
    /// Whether it was parked before the parking that the record tells of: what that one parked is the task by now.
    #[must_use]
    pub fn is_outdated(&self, latest: Option<&Parking>) -> bool {
        self.message.zip(latest).is_some_and(|(message, latest)| latest.is_after(message))
    }

    /// As a task that waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting {
            address: self.address.clone(),
            envelope: self.envelope.clone(),
            stored_at: Some(self.parked_at),
            sequence: self.sequence,
        }
    }
}

impl Broker {
    /// Parks a task, as its record's `parking` says. Doing it again is harmless, also long after: it is done only while the record
    /// says so.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::QueueFull`] when as many are parked as may be, [`Error::Envelope`];
    /// [`Error::Conflict`] when others are faster all the time.
    pub async fn publish_parked(
        &self,
        envelope: &TaskEnvelope,
        parking: &Parking,
        reason: &str,
        wait: Duration,
    ) -> Result<(), Error> {
        // The same message is parked once; another message of the task is another parking.
        let message_id = format!("{}.parked.{}", envelope.message_id(), parking.message);
        let mut headers = envelope_headers(envelope, &message_id)?;
        set(&mut headers, header::ORIGINAL_SUBJECT, &self.subjects().task(&envelope.address()))?;
        set(&mut headers, header::PARKED_SCHEMAS, &parking.schemas.join(" "))?;
        set(&mut headers, header::PARKED_MESSAGE, &parking.message.to_string())?;
        set(&mut headers, header::PARKED_REASON, &line(reason, REASON_MAX_BYTES))?;
        let subject = self.subjects().parked(&envelope.plugin, &envelope.task, envelope.id);
        let mut conflict = Error::Conflict { last_sequence: None };
        for _ in 0..ROUNDS {
            // There is one message per task. Whoever stood still since its record was written must not put its own in the place of
            // a later one: so the record is read after what it may replace.
            let there = self.first_message(&self.subjects().parked_stream(), &subject).await?;
            let sequence = there.as_ref().map_or(0, |message| message.sequence);
            let there = there.and_then(|message| self.read_parked(message)).and_then(|task| task.message);
            let record = self.read_record(envelope.id).await?;
            let is_owed = record.is_none_or(|(record, _)| record.parks(parking.message));
            if there == Some(parking.message) || !is_owed {
                return Ok(());
            }
            let mut headers = headers.clone();
            set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string())?;
            match self.publish_stored(&subject, headers, envelope.body.clone(), wait).await {
                Ok(_) => return Ok(()),
                Err(error @ Error::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error),
            }
        }
        Err(conflict)
    }

    /// The parked tasks of one task from sequence `from` on, oldest first, at most `most`, and the sequence to go on from;
    /// `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn parked_page(
        &self,
        plugin: &Name,
        task: &Name,
        from: u64,
        most: usize,
    ) -> Result<Option<(Vec<ParkedTask>, u64)>, Error> {
        let filter = self.subjects().parked_of(plugin, task);
        let page = self.page(&self.subjects().parked_stream(), &filter, from, most).await?;
        let Some(last) = page.messages.last().map(|message| message.sequence) else { return Ok(None) };
        let tasks = page.messages.into_iter().filter_map(|message| self.read_parked(message)).collect();
        Ok(Some((tasks, last.saturating_add(1))))
    }

    /// One parked task.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn find_parked(&self, id: TaskId) -> Result<Option<ParkedTask>, Error> {
        let subjects = self.subjects();
        match self.first_message(&subjects.parked_stream(), &subjects.parked_by_id(id)).await {
            // An installation in which no host of this version has been.
            Err(Error::NoResponders { .. }) => Ok(None),
            other => Ok(other?.and_then(|message| self.read_parked(message))),
        }
    }

    /// Shows parked tasks, the latest parked first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn look_at_parked(
        &self,
        mut take: impl FnMut(ParkedTask) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        self.newest(&self.subjects().parked_stream(), |message| match self.read_parked(message) {
            Some(task) => take(task),
            None => ControlFlow::Continue(()),
        })
        .await
    }

    /// Publishes a parked task into its queue. It stays parked as well, until it is removed.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::NoResponders`] when the plugin has no queue, [`Error::Unavailable`].
    pub async fn publish_unparked(&self, task: &ParkedTask, wait: Duration) -> Result<Stored, Error> {
        // The headers as they came, not the envelope encoded anew: a neighbouring version may have written more of them.
        let mut headers = HeaderMap::new();
        let own = |name: &str| {
            name == header::ORIGINAL_SUBJECT
                || name == header::UNPARKED
                // It was stored in time, and is stored again later than its enqueuer waited.
                || name == header::ACCEPT_BY
                || name.starts_with(header::PARKED_PREFIX)
                || name.starts_with(header::NATS_PREFIX)
        };
        for (name, value) in pairs(Some(&task.headers)).filter(|(name, _)| !own(name)) {
            let unreadable =
                |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
            let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
            let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
            headers.insert(name, value);
        }
        set(&mut headers, header::UNPARKED, "1")?;
        set(&mut headers, header::NATS_MSG_ID, &format!("{}.unparked.{}", task.address.id, task.sequence))?;
        let subject = self.subjects().task(&task.address);
        self.publish_stored(&subject, headers, task.body.clone(), wait).await
    }

    /// Removes this parked message; one that was parked since stays.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove_parked(&self, task: &ParkedTask) -> Result<(), Error> {
        self.delete_message(&self.subjects().parked_stream(), task.sequence).await
    }

    /// Removes a task from the parked ones, whichever message it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn purge_parked(&self, id: TaskId) -> Result<bool, Error> {
        Ok(self.purge(&self.subjects().parked_stream(), &self.subjects().parked_by_id(id)).await? > 0)
    }

    /// `None` for what is no parked task of this installation's.
    fn read_parked(&self, message: StoredMessage) -> Option<ParkedTask> {
        let StoredMessage { sequence, stored_at, headers, payload, .. } = message;
        let headers = headers.unwrap_or_default();
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let address = self.subjects().parse_task(&text(header::ORIGINAL_SUBJECT)?).ok()?;
        let of_the_task = pairs(Some(&headers)).filter(|(name, _)| {
            !name.starts_with(header::PARKED_PREFIX) && !name.starts_with(header::NATS_PREFIX)
        });
        let envelope = TaskEnvelope::decode_at(address.clone(), of_the_task, payload.clone()).ok();
        Some(ParkedTask {
            schemas: text(header::PARKED_SCHEMAS).unwrap_or_default().split(' ').map(str::to_owned).collect(),
            reason: text(header::PARKED_REASON).unwrap_or_default(),
            message: text(header::PARKED_MESSAGE).and_then(|message| message.parse().ok()),
            parked_at: stored_at.unwrap_or_default(),
            address,
            sequence,
            envelope,
            body: payload,
            headers,
        })
    }
}
