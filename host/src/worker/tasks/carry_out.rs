//! Carries a plan out, in the one order that survives a kill between any two writes: the fenced record, then the
//! publishes that it owes, then the keys that it held (`keys`), the acknowledgement last.
//!
//! While the broker is away it tries again, for as long as the attempt may be ours.

use super::plan::{Last, Plan, Write};
use super::unit::Shared;
use crate::broker::{Ack, DeadLetter, Delivery, Error};
use crate::failpoint::{Point, reach};
use cardcage_protocol::{FollowUp, TaskEnvelope, TaskRecord};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// First pause after a failure; doubled up to [`AGAIN_MAX`].
pub(super) const AGAIN_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(2);
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
        for owed in &plan.then {
            let again = plan.write.is_none();
            if Box::pin(self.follow_up(envelope, record, owed, again, until)).await.is_err() {
                return Carried::GivenUp;
            }
            reach(Point::AfterFollowUp);
        }
        if plan.last == Last::Done && (envelope.unique_key.is_some() || envelope.serial_key.is_some()) {
            // Without a record it was never promised, and never will be.
            let ended = record.is_none_or(|record| record.state.is_final());
            if Box::pin(self.release_keys(envelope, ended, until)).await.is_err() {
                return Carried::GivenUp;
            }
        }
        let last = match plan.last {
            Last::Done => Ack::Done,
            Last::HandBack => Ack::HandBack,
        };
        reach(Point::BeforeAck);
        self.acknowledge(delivery, last).await;
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
                    Box::pin(self.pause(&mut pause, until)).await?;
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
        self.again(until, "a task's record could not be read; trying again", || {
            self.broker.read_record(envelope.id)
        })
        .await
    }

    async fn follow_up(
        &self,
        envelope: &TaskEnvelope,
        record: Option<&TaskRecord>,
        owed: &FollowUp,
        again: bool,
        until: Instant,
    ) -> Result<(), Carried> {
        match owed {
            FollowUp::ScheduleRetry { attempt, at } => {
                let next = TaskEnvelope { attempt: *attempt, ..envelope.retry() };
                let publish = || self.broker.schedule_task(&next, *at, PUBLISH_TIMEOUT);
                self.again(until, "a retry could not be scheduled; trying again", publish).await.map(|_| ())
            }
            FollowUp::Children => match record {
                Some(record) => self.publish_children(record, again, until).await,
                None => Ok(()),
            },
            FollowUp::Exhausted => match record {
                Some(record) => Box::pin(self.publish_hook(envelope, record, again, until)).await,
                None => Ok(()),
            },
            FollowUp::DeadLetter { reason } => {
                let error = record.and_then(|record| record.error.as_ref());
                let letter = DeadLetter {
                    envelope,
                    reason,
                    code: error.map_or("unknown", |error| &error.code),
                    error,
                    attempts: record.map_or(&[][..], |record| &record.attempts),
                    attempts_omitted: record.map_or(0, |record| record.attempts_omitted),
                };
                let publish = || self.broker.publish_dead(letter, PUBLISH_TIMEOUT);
                self.again(until, "a dead letter could not be published; trying again", publish)
                    .await
                    .map(|_| ())
            }
            FollowUp::Unknown => {
                // Its delivery is left to its lease, and comes to another host then.
                tracing::warn!(task = %envelope.id, "a task's record owes what only a newer version knows");
                Err(Carried::GivenUp)
            }
            FollowUp::Park => {
                let Some((record, parking)) =
                    record.and_then(|record| Some((record, record.parked.as_ref()?)))
                else {
                    return Ok(());
                };
                let reason = record.error.as_ref().map_or("", |error| error.message.as_str());
                let publish = || self.broker.publish_parked(envelope, parking, reason, PUBLISH_TIMEOUT);
                self.again(until, "a task could not be parked; trying again", publish).await.map(|_| ())
            }
        }
    }

    pub(super) async fn again<T, F>(
        &self,
        until: Instant,
        says: &'static str,
        mut step: impl FnMut() -> F,
    ) -> Result<T, Carried>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = AGAIN_MIN;
        loop {
            match step().await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    tracing::warn!(%error, "{says}");
                    Box::pin(self.pause(&mut pause, until)).await?;
                }
            }
        }
    }

    /// Waits for the next try, and for the connection; there is none after `until` or when the engine gives up.
    pub(super) async fn pause(&self, pause: &mut Duration, until: Instant) -> Result<(), Carried> {
        let wait = async {
            tokio::time::sleep(*pause).await;
            *pause = (*pause * 2).min(AGAIN_MAX);
            let left = until.saturating_duration_since(Instant::now());
            let _ = self.broker.wait_connected(left).await;
        };
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => Err(Carried::GivenUp),
            () = wait => if Instant::now() < until { Ok(()) } else { Err(Carried::GivenUp) },
        }
    }
}
