//! A task's keys: whose turn it is before it starts, and what its end releases.
//!
//! The order of writes holds here too: a key is released after the record, and before the acknowledgement, so that whoever
//! gets the redelivery releases it again.

use super::carry_out::Carried;
use super::unit::Shared;
use crate::broker::{Ack, Delivery, Error, Turn, TurnClaim};
use crate::crash::Claim;
use crate::failpoint::{Point, reach};
use crate::terms::{serial_hash_of, unique_hash_of};
use cardcage_protocol::TaskEnvelope;
use std::time::Duration;
use tokio::time::Instant;

/// How long a message waits for another one of its task to end that one's turn: most are about to.
const COPY_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks.
const COPY_AGAIN: Duration = Duration::from_millis(200);

fn turn(envelope: &TaskEnvelope, delivery: &Delivery) -> Turn {
    Turn::of_delivery(envelope.id, envelope.attempt, delivery)
}

impl Shared {
    /// How often the message was delivered when it might be started, this time included: always, where the task has no serial
    /// key; else since it has had its turn. `None`: it waits, or is over, and the delivery is dealt with. `waiting`: its note on
    /// the board, which is taken off before it is somebody else's.
    pub(super) async fn turns(
        &self,
        envelope: &TaskEnvelope,
        delivery: &Delivery,
        waiting: &mut Option<Box<Claim>>,
    ) -> Option<u64> {
        let Some(key) = serial_hash_of(envelope) else { return Some(delivery.num_delivered) };
        reach(Point::BeforeTurn);
        match self.take_or_line_up(&key, envelope, delivery, waiting).await {
            Ok(turns) => turns,
            Err(error) => {
                let task = envelope.id;
                tracing::warn!(%task, %error, "a serial key cannot be asked for; the task comes again when its lease ends");
                None
            }
        }
    }

    async fn take_or_line_up(
        &self,
        key: &str,
        envelope: &TaskEnvelope,
        delivery: &Delivery,
        waiting: &mut Option<Box<Claim>>,
    ) -> Result<Option<u64>, Error> {
        let (task, turn) = (envelope.id, turn(envelope, delivery));
        let until = Instant::now() + COPY_WAIT;
        loop {
            match self.broker.take_turn(key, &envelope.plugin, turn).await? {
                TurnClaim::Mine(turns) => return Ok(Some(turns)),
                TurnClaim::Busy => break,
                TurnClaim::Over => {
                    tracing::info!(%task, "a message of an earlier attempt was dropped");
                    *waiting = None;
                    self.acknowledge(delivery, Ack::Done).await;
                    return Ok(None);
                }
                TurnClaim::Copy if Instant::now() < until => {
                    // What the other message has begun is not this one's to answer for.
                    *waiting = None;
                    tokio::time::sleep(COPY_AGAIN).await;
                }
                TurnClaim::Copy => {
                    // Not acknowledged: it stands for the task should the other one vanish.
                    tracing::info!(%task, "a task's turn is another message's; this one comes again when its lease ends");
                    return Ok(None);
                }
            }
        }
        self.broker.join_line(key, delivery, &envelope.address(), turn).await?;
        // It may come back for somebody else from now on.
        *waiting = None;
        let is_started = match self.broker.start_line(key).await {
            // The next one has its turn and cannot come back, perhaps for messages such as this.
            Err(Error::QueueFull { .. }) => false,
            other => other.map(|()| true)?,
        };
        self.acknowledge(delivery, Ack::Done).await;
        if !is_started && let Err(error) = self.broker.start_line(key).await {
            // Whoever ended the turn before goes on trying.
            tracing::debug!(%task, %error, "the next of a serial key cannot come back to its queue yet");
        }
        Ok(None)
    }

    /// Releases what the task holds. `ended`: it has its outcome, or never will have one.
    pub(super) async fn release_keys(
        &self,
        envelope: &TaskEnvelope,
        delivery: &Delivery,
        ended: bool,
        until: Instant,
    ) -> Result<(), Carried> {
        if ended {
            self.release_unique(envelope, until).await?;
            reach(Point::AfterUniqueRelease);
        }
        if let Some(key) = serial_hash_of(envelope) {
            let pass_on = || self.broker.pass_on(&key, turn(envelope, delivery));
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
        let Some(key) = unique_hash_of(envelope) else { return Ok(()) };
        let release = || self.broker.release_unique(&key, envelope.id);
        self.payer.again(until, "a unique key could not be released; trying again", release).await
    }
}
