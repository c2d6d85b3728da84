//! A task's keys: whose turn it is before it starts, and what its end releases.
//!
//! The order of writes holds here too: a key is released after the record, and before the acknowledgement, so that whoever
//! gets the redelivery releases it again.

use super::carry_out::Carried;
use super::unit::Shared;
use crate::broker::{Ack, Delivery, Error, Turn};
use crate::terms;
use cardcage_protocol::TaskEnvelope;
use tokio::time::Instant;

fn unique_hash(envelope: &TaskEnvelope) -> Option<String> {
    envelope.unique_key.as_deref().map(|key| terms::unique_hash(&envelope.plugin, &envelope.task, key))
}

fn serial_hash(envelope: &TaskEnvelope) -> Option<String> {
    envelope.serial_key.as_deref().map(|key| terms::serial_hash(&envelope.plugin, &envelope.task, key))
}

fn turn(envelope: &TaskEnvelope) -> Turn {
    Turn { task_id: envelope.id, attempt: envelope.attempt }
}

impl Shared {
    /// Whether the task may go on: it has no serial key, or it is its turn. Otherwise it waits in line, and the delivery is
    /// dealt with.
    pub(super) async fn has_turn(&self, envelope: &TaskEnvelope, delivery: &Delivery) -> bool {
        let Some(key) = serial_hash(envelope) else { return true };
        match self.take_or_line_up(&key, envelope, delivery).await {
            Ok(has_turn) => has_turn,
            Err(error) => {
                let task = envelope.id;
                tracing::warn!(%task, %error, "a serial key cannot be asked for; the task comes again when its lease ends");
                false
            }
        }
    }

    async fn take_or_line_up(
        &self,
        key: &str,
        envelope: &TaskEnvelope,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        if self.broker.take_turn(key, turn(envelope)).await? {
            return Ok(true);
        }
        self.broker.join_line(key, delivery, &envelope.address(), turn(envelope)).await?;
        self.acknowledge(delivery, Ack::Done).await;
        Ok(false)
    }

    /// Releases what the task holds. `ended`: it has its outcome, or never will have one.
    pub(super) async fn release_keys(
        &self,
        envelope: &TaskEnvelope,
        ended: bool,
        until: Instant,
    ) -> Result<(), Carried> {
        if ended {
            self.release_unique(envelope, until).await?;
        }
        if let Some(key) = serial_hash(envelope) {
            let pass_on = || self.broker.pass_on(&key, turn(envelope));
            self.payer.again(until, "a serial key could not be passed on; trying again", pass_on).await?;
        }
        Ok(())
    }

    /// Releases the unique key, where the task has one.
    pub(super) async fn release_unique(
        &self,
        envelope: &TaskEnvelope,
        until: Instant,
    ) -> Result<(), Carried> {
        let Some(key) = unique_hash(envelope) else { return Ok(()) };
        let release = || self.broker.release_unique(&key, envelope.id);
        self.payer.again(until, "a unique key could not be released; trying again", release).await
    }
}
