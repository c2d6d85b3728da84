//! Enqueueing: a task becomes the broker's.
//!
//! Invariant: `Ok` means stored, once, whatever was repeated on the way; the message id is the task's id and attempt.

use std::time::Duration;

use async_nats::HeaderMap;
use cardcage_protocol::{Name, TaskEnvelope, TaskId, header};
use serde_json::json;

use super::api::API_TIMEOUT;
use super::publish::set;
use super::{Broker, Error, Stored, Waiting};

/// JetStream: the message could not be deleted, which is what it says where there is none.
const NOTHING_TO_DELETE: u32 = 10057;
/// JetStream: no such sequence.
const SEQUENCE_NOT_FOUND: u32 = 10043;

impl Broker {
    /// Publishes a task into its plugin's queue.
    ///
    /// # Errors
    /// [`Error::QueueFull`] and [`Error::Unavailable`] (a retry with the same id helps), [`Error::NoResponders`] when
    /// the plugin has no stream, [`Error::Envelope`] when the envelope is malformed.
    pub async fn publish_task(&self, envelope: &TaskEnvelope, wait: Duration) -> Result<Stored, Error> {
        self.publish_as(envelope, &envelope.message_id(), wait).await
    }

    /// Publishes a task whose earlier publishes may have come to nothing: those of another `round` make this one no
    /// duplicate. Round 0 is [`Broker::publish_task`].
    ///
    /// # Errors
    /// As [`Broker::publish_task`].
    pub async fn publish_task_in_round(
        &self,
        envelope: &TaskEnvelope,
        round: u32,
        wait: Duration,
    ) -> Result<Stored, Error> {
        self.publish_as(envelope, &message_id(envelope, round), wait).await
    }

    async fn publish_as(
        &self,
        envelope: &TaskEnvelope,
        message_id: &str,
        wait: Duration,
    ) -> Result<Stored, Error> {
        let headers = envelope_headers(envelope, message_id)?;
        let subject = self.subjects().task(&envelope.address());
        self.publish_stored(&subject, headers, envelope.body.clone(), wait).await
    }

    /// Removes this one message from its plugin's queue, also while somebody holds it. Says whether it was there, which
    /// the stream's leader answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove_queued(&self, waiting: &Waiting) -> Result<bool, Error> {
        let stream = self.subjects().tasks_stream(&waiting.address.plugin);
        let request = json!({ "seq": waiting.sequence, "no_erase": true });
        match self.api(&format!("STREAM.MSG.DELETE.{stream}"), &request, API_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: NOTHING_TO_DELETE | SEQUENCE_NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a task from its plugin's queue and from the line of its serial key, also while somebody
    /// holds it. Says whether it was there.
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

/// The identity of a publish of this `round`.
pub(super) fn message_id(envelope: &TaskEnvelope, round: u32) -> String {
    match round {
        0 => envelope.message_id(),
        round => format!("{}.r{round}", envelope.message_id()),
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
