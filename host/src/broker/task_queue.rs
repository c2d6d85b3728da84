//! Enqueueing: a task becomes the broker's.
//!
//! Invariant: `Ok` means stored, once, whatever was repeated on the way; the message id is the task's id and attempt.

use std::time::Duration;

use async_nats::HeaderMap;
use cardcage_protocol::{Name, TaskEnvelope, TaskId, header};

use super::publish::set;
use super::{Broker, Error, Stored};

impl Broker {
    /// Publishes a task into its plugin's queue.
    ///
    /// # Errors
    /// [`Error::QueueFull`] and [`Error::Unavailable`] (a retry with the same id helps), [`Error::NoResponders`] when
    /// the plugin has no stream, [`Error::Envelope`] when the envelope is malformed.
    pub async fn publish_task(&self, envelope: &TaskEnvelope, wait: Duration) -> Result<Stored, Error> {
        let headers = envelope_headers(envelope, &envelope.message_id())?;
        let subject = self.subjects().task(&envelope.address());
        self.publish_stored(&subject, headers, envelope.body.clone(), wait).await
    }

    /// Removes a task from its plugin's queue and from the line of its serial key, also while somebody holds it. Says whether it was there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Refused`] when the plugin has no stream.
    pub async fn purge_task(&self, plugin: &Name, id: TaskId) -> Result<bool, Error> {
        let stream = self.subjects().tasks_stream(plugin);
        let queued = self.purge(&stream, &self.subjects().task_by_id(id)).await?;
        let in_line = self.purge(&self.subjects().lines_stream(), &self.subjects().line_by_id(id)).await?;
        Ok(queued + in_line > 0)
    }
}

/// The envelope's headers and the publish's identity.
pub(super) fn envelope_headers(envelope: &TaskEnvelope, message_id: &str) -> Result<HeaderMap, Error> {
    envelope.check()?;
    let mut headers = HeaderMap::new();
    let mut outcome = Ok(());
    envelope.for_each_header(|name, value| {
        if outcome.is_ok() {
            outcome = set(&mut headers, name, &value);
        }
    });
    outcome?;
    set(&mut headers, header::NATS_MSG_ID, message_id)?;
    Ok(headers)
}
