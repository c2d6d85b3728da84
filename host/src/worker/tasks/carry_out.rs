//! Carries a plan out, in the one order that survives a kill between any two writes: the fenced record, then the
//! publishes that it owes, then the keys that it held (`keys`), the acknowledgement last. A full queue is the one exception
//! (`place`).
//!
//! While the broker is away it tries again, for as long as the attempt may be ours.

use super::place::{Place, WhenFull};
use super::plan::{Last, Plan, Write};
use super::unit::Shared;
use crate::broker::{Ack, Delivery, Error};
use crate::failpoint::{Point, reach};
use cardcage_protocol::{TaskEnvelope, TaskRecord};
use std::time::Duration;
use tokio::time::Instant;

/// First pause after a failure; doubled from then on.
pub(super) const AGAIN_MIN: Duration = Duration::from_millis(50);
/// Time for one publish, with its repeats.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// All is written.
    Out,
    /// Somebody else has written the record in between; nothing was written.
    Conflict,
    /// The broker was away for too long. The lease ends, and whoever gets the redelivery goes on.
    GivenUp,
}

impl Shared {
    /// Carries `plan` out, trying until `until`.
    pub(super) async fn carry_out(
        &self,
        envelope: &TaskEnvelope,
        delivery: &Delivery,
        mut plan: Plan,
        current: Option<&TaskRecord>,
        until: Instant,
    ) -> Carried {
        if let Some(write) = &mut plan.write {
            reach(Point::BeforeRecord);
            match self.write(write, until).await {
                Ok(_) => self.counters.recorded(write.record.state),
                Err(end) => return end,
            }
            reach(Point::AfterRecord);
        }
        let record = plan.write.as_ref().map(|write| &write.record).or(current);
        let place = Place::new(&self.broker, delivery, &envelope.plugin, record);
        if !plan.then.is_empty() && Box::pin(self.pay(envelope, record, &plan, &place, until)).await.is_err()
        {
            return if place.is_left() { self.leave_to_sweeper(envelope) } else { Carried::GivenUp };
        }
        if plan.last == Last::Done && (envelope.unique_key.is_some() || envelope.serial_key.is_some()) {
            // Without a record it was never promised, and never will be.
            let ended = record.is_none_or(|record| record.state.is_final());
            reach(Point::BeforeRelease);
            if Box::pin(self.release_keys(envelope, delivery, ended, until)).await.is_err() {
                return if place.is_left() { self.leave_to_sweeper(envelope) } else { Carried::GivenUp };
            }
        }
        if place.is_left() {
            return Carried::Out;
        }
        let last = match plan.last {
            Last::Done => Ack::Done,
            Last::HandBack => Ack::HandBack,
        };
        reach(Point::BeforeAck);
        self.acknowledge(delivery, last).await;
        Carried::Out
    }

    /// Publishes what the record owes, and says that it is.
    async fn pay(
        &self,
        envelope: &TaskEnvelope,
        record: Option<&TaskRecord>,
        plan: &Plan,
        place: &Place<'_>,
        until: Instant,
    ) -> Result<(), Carried> {
        for owed in &plan.then {
            let (again, when_full) = (plan.write.is_none(), WhenFull::Wait(place));
            Box::pin(self.payer.follow_up(envelope, record, owed, again, until, when_full)).await?;
            reach(Point::AfterFollowUp);
        }
        match record {
            Some(record) => Box::pin(self.payer.settle(record, until)).await,
            None => Ok(()),
        }
    }

    /// The message has made room, and what is missing is noted.
    fn leave_to_sweeper(&self, envelope: &TaskEnvelope) -> Carried {
        tracing::warn!(task = %envelope.id, "what a task's end owes finds its queue full, and is left to the sweeper");
        Carried::Out
    }

    /// Tells the broker, without waiting for it: a lost acknowledgement only brings a redelivery.
    pub(super) async fn acknowledge(&self, delivery: &Delivery, ack: Ack) {
        if let Err(error) = self.broker.ack(delivery.ack_subject(), ack).await {
            tracing::debug!(%error, "an acknowledgement could not be sent; the task will be delivered again");
        }
    }

    /// Writes a record, and returns the sequence that it stands at.
    pub(super) async fn write(&self, write: &mut Write, until: Instant) -> Result<u64, Carried> {
        let Write { record, fence, ttl } = write;
        let id = record.id;
        let mut pause = AGAIN_MIN;
        loop {
            match self.broker.write_record_for(record, *fence, *ttl).await {
                Ok(sequence) => return Ok(sequence),
                Err(Error::Conflict { .. }) => return Err(Carried::Conflict),
                Err(error) => {
                    tracing::warn!(task = %id, %error, "a task's record could not be written; trying again");
                    Box::pin(self.payer.pause(&mut pause, until)).await?;
                }
            }
        }
    }

    /// Reads a record.
    pub(super) async fn read(
        &self,
        envelope: &TaskEnvelope,
        until: Instant,
    ) -> Result<Option<(TaskRecord, u64)>, Carried> {
        self.payer
            .again(until, "a task's record could not be read; trying again", || {
                self.broker.read_record(envelope.id)
            })
            .await
    }
}
