//! Delayed tasks: they wait in the broker, not in a process.
//!
//! Each waits on a subject of its own, so that it can be replaced and cancelled. When its time has come the broker
//! publishes it on the due subject, from where a [`super::Pump`] moves it into its plugin's queue.

use std::time::Duration;

use async_nats::HeaderMap;
use cardcage_protocol::{Name, TaskEnvelope, TaskId, Timestamp, delayed};

use super::publish::set;
use super::task_queue::envelope_headers;
use super::{Broker, Error, Stored};

impl Broker {
    /// Stores a task that nobody has promised yet, to be queued at `at`, if there is room.
    ///
    /// # Errors
    /// [`Error::ScheduleFull`]; as [`Broker::schedule_task`].
    pub async fn enqueue_delayed(
        &self,
        envelope: &TaskEnvelope,
        at: Timestamp,
        wait: Duration,
    ) -> Result<Stored, Error> {
        let _on_its_way = self.find_schedule_room().await?;
        self.schedule_task(envelope, at, wait).await
    }

    /// Stores a task to be queued at `at`; a time in the past means now. It replaces what waits under the same id.
    ///
    /// It asks for no room: a retry is the rest of a task that was accepted, and must not be lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`] (a retry is harmless), [`Error::Envelope`].
    pub async fn schedule_task(
        &self,
        envelope: &TaskEnvelope,
        at: Timestamp,
        wait: Duration,
    ) -> Result<Stored, Error> {
        let (subject, headers) = self.schedule_message(envelope, &envelope.message_id(), at)?;
        self.publish_stored(&subject, headers, envelope.body.clone(), wait).await
    }

    /// Where a task waits until `at`, and what its message says.
    pub(super) fn schedule_message(
        &self,
        envelope: &TaskEnvelope,
        message_id: &str,
        at: Timestamp,
    ) -> Result<(String, HeaderMap), Error> {
        let mut headers = envelope_headers(envelope, message_id)?;
        for (name, value) in delayed::headers(at, &self.subjects().due(&envelope.address())) {
            set(&mut headers, name, &value)?;
        }
        Ok((self.subjects().schedule(&envelope.plugin, envelope.id), headers))
    }

    /// Removes a task that waits for its time, or that is due and not yet queued. Says whether it was there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn cancel_scheduled(&self, plugin: &Name, id: TaskId) -> Result<bool, Error> {
        let stream = self.subjects().schedule_stream();
        let waiting = self.purge(&stream, &self.subjects().schedule(plugin, id)).await?;
        let due = self.purge(&stream, &self.subjects().due_by_id(id)).await?;
        Ok(waiting + due > 0)
    }
}
