//! Publishes what a record owes: the next attempt, a dead letter, children, the task for one that is given up, a parking.
//!
//! Each of them is idempotent, and tried again while the broker is away. It needs a broker and no engine, for what a dead
//! worker left owing is paid by a supervisor as well (`super::sweeper`).

use super::carry_out::{AGAIN_MIN, Carried, PUBLISH_TIMEOUT};
use super::place::WhenFull;
use crate::broker::{Broker, DeadLetter, Error};
use cardcage_protocol::{FollowUp, TaskEnvelope, TaskRecord};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest pause after a failure.
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// Whoever publishes.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    pub(super) broker: Broker,
    /// No more waiting for the broker.
    pub(super) give_up: CancellationToken,
}

impl Payer {
    /// Says that nothing is owed any more, where something was.
    pub(super) async fn settle(&self, record: &TaskRecord, until: Instant) -> Result<(), Carried> {
        if !record.state.is_final() || record.follow_up.is_empty() {
            return Ok(());
        }
        let settle = || self.broker.settle_owed(record.id);
        self.again(until, "what a record owed could not be marked as published; trying again", settle).await
    }

    /// Publishes one of them. `again`: somebody may have done so before.
    pub(super) async fn follow_up(
        &self,
        envelope: &TaskEnvelope,
        record: Option<&TaskRecord>,
        owed: &FollowUp,
        again: bool,
        until: Instant,
        when_full: WhenFull<'_>,
    ) -> Result<(), Carried> {
        match owed {
            FollowUp::ScheduleRetry { attempt, at } => {
                // It may have come to its queue longer ago than the broker knows message ids, and wait there.
                let come = || self.broker.has_gone_on(&envelope.plugin, envelope.id, *attempt);
                if again && self.again(until, "a retry could not be looked for; trying again", come).await? {
                    return Ok(());
                }
                let next = TaskEnvelope { attempt: *attempt, ..envelope.retry() };
                let publish = || self.broker.schedule_task(&next, *at, PUBLISH_TIMEOUT);
                self.again(until, "a retry could not be scheduled; trying again", publish).await.map(|_| ())
            }
            FollowUp::Children => match record {
                Some(record) => self.publish_children(record, until, when_full).await,
                None => Ok(()),
            },
            FollowUp::Exhausted => match record {
                Some(record) => Box::pin(self.publish_hook(envelope, record, until, when_full)).await,
                None => Ok(()),
            },
            FollowUp::DeadLetter { reason } => {
                // It may have been replayed since, and then its place is free.
                let kept = || self.broker.has_letter(envelope.id);
                if again
                    && self.again(until, "a dead letter could not be looked for; trying again", kept).await?
                {
                    return Ok(());
                }
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
                self.again(until, "a dead letter could not be published; trying again", publish).await
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
                self.again(until, "a task could not be parked; trying again", publish).await
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
                // It will be no more readable in a moment, and whoever waits for it holds up others.
                Err(error @ Error::Unreadable { .. }) => {
                    tracing::error!(%error, "a task is left to its lease: what the broker holds of it cannot be read");
                    return Err(Carried::GivenUp);
                }
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
