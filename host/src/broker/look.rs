//! Looking at tasks, newest first, wherever they are: in records, in queues, waiting for their time.
//!
//! Each look is bounded (see [`Extent`]); what is unreadable is passed over.

use std::ops::ControlFlow;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Name, TaskId, TaskRecord, Timestamp, delayed, header};

use super::direct::StoredMessage;
use super::lookup::scheduled_at;
use super::publish::{pairs, set};
use super::{Broker, Error, Extent, Place, Waiting};

/// Time for one publish.
const PUBLISH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

impl Broker {
    /// Shows records, the latest written first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn look_at_records(
        &self,
        mut take: impl FnMut(TaskRecord, Timestamp) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        self.newest(&self.subjects().state_stream(), |message| match TaskRecord::decode(&message.payload) {
            Ok(record) => take(record, message.stored_at.unwrap_or_default()),
            Err(_) => ControlFlow::Continue(()),
        })
        .await
    }

    /// Shows what is in queues, of one plugin or of all, the latest first within each queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn look_at_queues(
        &self,
        plugin: Option<&Name>,
        mut take: impl FnMut(&Name, Waiting) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let mut whole = Extent { looked_at: 0, complete: true };
        for name in self.queued_plugins().await? {
            if plugin.is_some_and(|plugin| *plugin != name) {
                continue;
            }
            let seen = self
                .newest(&self.subjects().tasks_stream(&name), |message| {
                    match self.subjects().parse_task(&message.subject) {
                        Ok(address) => take(&name, *Waiting::new(address, message)),
                        Err(_) => ControlFlow::Continue(()),
                    }
                })
                .await?;
            whole.looked_at += seen.looked_at;
            whole.complete &= seen.complete;
        }
        Ok(whole)
    }

    /// Shows what waits for its time, the latest stored first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn look_at_schedule(
        &self,
        mut take: impl FnMut(Place) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        self.newest(&self.subjects().schedule_stream(), |message| match self.scheduled(message) {
            Some(place) => take(place),
            None => ControlFlow::Continue(()),
        })
        .await
    }

    /// The plugins that have a queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn queued_plugins(&self) -> Result<Vec<Name>, Error> {
        let prefix = self.subjects().tasks_stream_prefix();
        let streams = self.task_streams().await?;
        let mut plugins: Vec<Name> =
            streams.iter().filter_map(|stream| stream.strip_prefix(&prefix)?.parse().ok()).collect();
        plugins.sort();
        Ok(plugins)
    }

    pub(super) fn scheduled(&self, message: StoredMessage) -> Option<Place> {
        if let Ok(address) = self.subjects().parse_due(&message.subject) {
            // A pump may have it already, and keeps it until its time.
            let early = scheduled_at(&message).filter(|due| due.unix_ms() > self.now_unix_ms());
            let waiting = Waiting::new(address, message);
            return Some(if early.is_some() {
                Place::Scheduled(waiting, early)
            } else {
                Place::Due(waiting)
            });
        }
        let target = message.headers.as_ref()?.get(header::NATS_SCHEDULE_TARGET)?.as_str().to_owned();
        let at = scheduled_at(&message);
        let address = self.subjects().parse_due(&target).ok()?;
        Some(Place::Scheduled(Waiting::new(address, message), at))
    }

    /// Makes a task due that waits for its time. It is replaced where it stands by one that is due now, so it cannot run
    /// twice; `false` when it does not wait (any more).
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a repeat is harmless.
    pub async fn make_due(&self, id: TaskId) -> Result<bool, Error> {
        let (stream, filter) = (self.subjects().schedule_stream(), self.subjects().schedule_by_id(id));
        let Some(message) = self.first_message(&stream, &filter).await? else {
            // One that a pump keeps starts within a second in any case.
            let fired = self.first_message(&stream, &self.subjects().due_by_id(id)).await?;
            return Ok(matches!(
                fired.and_then(|message| self.scheduled(message)),
                Some(Place::Scheduled(..))
            ));
        };
        let StoredMessage { subject, sequence, headers, payload, .. } = message;
        let mut due = HeaderMap::new();
        for (name, value) in
            pairs(headers.as_ref()).filter(|(name, _)| !name.starts_with(header::NATS_PREFIX))
        {
            let unreadable =
                |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
            let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
            let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
            due.insert(name, value);
        }
        let target = headers.as_ref().and_then(|headers| headers.get(header::NATS_SCHEDULE_TARGET));
        let Some(target) = target else { return Ok(false) };
        let now = Timestamp::from_unix_ms(self.now_unix_ms());
        for (name, value) in delayed::headers(now, target.as_str()) {
            set(&mut due, name, &value)?;
        }
        // The first publish's identity would make this one a duplicate; the sequence keeps it from being made twice, and
        // from coming back after it has fired.
        set(&mut due, header::NATS_MSG_ID, &format!("{id}.now.{sequence}"))?;
        set(&mut due, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string())?;
        match self.publish_stored(&subject, due, Bytes::clone(&payload), PUBLISH_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
