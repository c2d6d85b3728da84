//! Strays: tasks in a queue that its consumer has delivered, that nobody holds, and that it will never deliver again.
//!
//! Hosts create consumers without a limit of deliveries. Somebody who sets one for a while, with another tool, leaves such tasks
//! behind: they stay in the stream, and setting the limit back does not bring them back. What the broker counts gives them away:
//! the consumer's part of the queue is more than what it has yet to deliver and what is delivered and unacknowledged.
//!
//! Counts are taken one after the other while tasks come and go, so a difference is a suspicion, not a proof. Whoever sweeps wants to see the
//! same task twice, a lease apart, and in nobody's hands.
//!
//! Invariant: a stray is published anew before it is removed, and its copy is looked up in its record before it starts.

use std::time::Duration;

use async_nats::HeaderMap;
use cardcage_protocol::{Name, TaskAddress, TaskEnvelope, header};

use super::direct::StoredMessage;
use super::publish::{pairs, set};
use super::{Broker, Error};

/// Time for one publish into a queue.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Tasks of one consumer that are looked at.
const LOOK_MAX: usize = 64;

/// A task that may be a stray.
pub struct Stray {
    /// The task.
    pub address: TaskAddress,
    /// Its sequence in its queue.
    pub sequence: u64,
    message: StoredMessage,
}

impl std::fmt::Debug for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stray")
            .field("address", &self.address)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// The oldest tasks of a plugin's queue that were delivered and may be strays; only what is older than `age`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn suspected_strays(&self, plugin: &Name, age: Duration) -> Result<Vec<Stray>, Error> {
        let stream = self.subjects().tasks_stream(plugin);
        let mut suspects = Vec::new();
        for consumer in self.consumers_of(&stream).await? {
            let filter = self.subjects().lane_filter(
                &consumer.plugin,
                consumer.major,
                &consumer.task,
                consumer.priority,
            );
            let there = self.amount(&stream, &filter, 1).await?.count;
            if consumer.paused_until.is_some()
                || there <= consumer.undelivered.saturating_add(consumer.leased)
            {
                continue;
            }
            for message in self.page(&stream, &filter, 1, LOOK_MAX).await?.messages {
                let stored_ms = message.stored_at.map_or(u64::MAX, |at| at.unix_ms());
                let is_old = u128::from(self.now_unix_ms().saturating_sub(stored_ms)) >= age.as_millis();
                let Ok(address) = self.subjects().parse_task(&message.subject) else { continue };
                if is_old && message.sequence <= consumer.delivered {
                    suspects.push(Stray { address, sequence: message.sequence, message });
                }
            }
        }
        Ok(suspects)
    }

    /// Puts a stray back into its queue, as a message that is delivered.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Unavailable`]; a repeat is harmless.
    pub async fn requeue_stray(&self, stray: &Stray) -> Result<(), Error> {
        let Stray { address, sequence, message } = stray;
        let stream = self.subjects().tasks_stream(&address.plugin);
        let all =
            || pairs(message.headers.as_ref()).filter(|(name, _)| !name.starts_with(header::NATS_PREFIX));
        let envelope = TaskEnvelope::decode_at(address.clone(), all(), message.payload.clone()).ok();
        // What its enqueuer was refused is not to run. What is no envelope is judged by a worker.
        if envelope.zip(message.stored_at).is_none_or(|(envelope, at)| envelope.is_promised(at)) {
            let mut headers = HeaderMap::new();
            for (name, value) in
                all().filter(|(name, _)| *name != header::ACCEPT_BY && *name != header::UNPARKED)
            {
                let unreadable =
                    |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
                let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
                let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
                headers.insert(name, value);
            }
            // Its first delivery is none: its record is read before it starts.
            set(&mut headers, header::UNPARKED, "1")?;
            set(&mut headers, header::NATS_MSG_ID, &format!("{}.stray.{sequence}", address.id))?;
            self.publish_stored(&message.subject, headers, message.payload.clone(), PUBLISH_TIMEOUT).await?;
        }
        self.delete_message(&stream, *sequence).await
    }
}
