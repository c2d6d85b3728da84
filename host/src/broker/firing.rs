//! A schedule's firing becomes a task, or is left out.
//!
//! Firings of a plugin's schedules are taken up by whichever worker's supervisor is there; each carries its schedule's
//! record, so no plugin code is needed.
//!
//! Invariants: a slot becomes one task, however often it is fired or taken up, because the task's id comes from the slot:
//! it is remembered as the schedule's last firing first, published under its id next, and only then taken from the stream.
//! A slot is left out only for a reason that its schedule declares, and the log names it.

use cardcage_protocol::{
    LastFiring, Missed, Overlap, Priority, ScheduleRecord, TaskAddress, TaskEnvelope, TaskId, Timestamp,
    header,
};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use super::pump::PUBLISH_TIMEOUT;
use super::{Ack, Broker, Error, Place, UniqueClaim};
use crate::failpoint::{Point, reach};
use crate::terms::unique_hash;

/// A firing that nobody takes up within so many leases is missed: one worker may die with it in hand.
const MISSED_AFTER_LEASES: u32 = 2;
/// A remembered task that cannot be found may be on its way into its queue for so long, and for as long as a firing may
/// be in a dead worker's hands.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// How often a last firing that others write is tried anew.
const ROUNDS: usize = 16;

/// One slot of a schedule.
struct Slot {
    record: ScheduleRecord,
    task_id: TaskId,
    next: Timestamp,
    fired_at: Timestamp,
}

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Its task is to be published.
    Run,
    /// Its task is stored already.
    Stored,
    /// Its schedule leaves it out, for this reason.
    Leave(&'static str),
}

/// Makes a task of one firing, which may have been taken up before. What fails is left where it is: its lease ends, and it
/// comes again.
pub(super) async fn take_up(broker: &Broker, delivery: &Delivery, may_be_second: bool) {
    let ack = match read(delivery) {
        Err(reason) => {
            tracing::error!(
                subject = delivery.subject(),
                reason,
                "a schedule's firing is unreadable, its slot is lost"
            );
            Ack::Terminate
        }
        Ok(slot) => {
            let ScheduleRecord { plugin, name, .. } = &slot.record;
            match carry_out(broker, delivery, &slot, may_be_second).await {
                Ok(Verdict::Run) => {
                    tracing::debug!(%plugin, schedule = %name, id = %slot.task_id, "a schedule's task is queued");
                }
                Ok(Verdict::Stored) => {}
                Ok(Verdict::Leave(reason)) => {
                    tracing::info!(%plugin, schedule = %name, fired_at = %slot.fired_at, reason, "a schedule's slot is left out");
                }
                Err(error) => {
                    tracing::warn!(%plugin, schedule = %name, %error, "a schedule's task cannot be queued yet");
                    return;
                }
            }
            Ack::Done
        }
    };
    if let Err(error) = broker.ack(delivery.ack_subject(), ack).await {
        // It comes again, and its task is known.
        tracing::debug!(subject = delivery.subject(), %error, "a schedule's firing was not acknowledged");
    }
}

fn read(delivery: &Delivery) -> Result<Slot, String> {
    let record: ScheduleRecord =
        serde_json::from_slice(&delivery.payload()).map_err(|error| error.to_string())?;
    let next = delivery.headers().find(|(name, _)| *name == header::NATS_SCHEDULE_NEXT);
    let (_, next) = next.ok_or_else(|| format!("{} is missing", header::NATS_SCHEDULE_NEXT))?;
    // The broker writes it by the schedule's own clocks.
    let next: Timestamp =
        next.parse().map_err(|error| format!("{} {next:?} is {error}", header::NATS_SCHEDULE_NEXT))?;
    let task_id = record.slot_task_id(next);
    Ok(Slot { record, task_id, next, fired_at: delivery.stored_at })
}

async fn carry_out(
    broker: &Broker,
    delivery: &Delivery,
    slot: &Slot,
    may_be_second: bool,
) -> Result<Verdict, Error> {
    let verdict = match judge_lateness(broker, delivery, slot).await? {
        Verdict::Run => remember(broker, slot, may_be_second).await?,
        other => other,
    };
    if verdict == Verdict::Run {
        reach(Point::AfterSlotRemembered);
        // Its record is read before it starts where it may have run already.
        let task = TaskEnvelope { unparked: may_be_second, ..envelope(slot) };
        broker.publish_task(&task, PUBLISH_TIMEOUT).await?;
        reach(Point::AfterSlotPublished);
    }
    Ok(verdict)
}

/// Leaves out what comes too late.
async fn judge_lateness(broker: &Broker, delivery: &Delivery, slot: &Slot) -> Result<Verdict, Error> {
    let grace = broker.options().lease.saturating_mul(MISSED_AFTER_LEASES);
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let cadence =
        slot.record.definition.cadence().map_err(|error| Error::unreadable("a schedule's cadence", error))?;
    let now = Timestamp::from_unix_ms(broker.now_unix_ms());
    if !cadence.is_missed(slot.fired_at, now, grace_ms) {
        return Ok(Verdict::Run);
    }
    if slot.record.definition.missed == Missed::Skip {
        return Ok(Verdict::Leave("no worker took it up in time"));
    }
    let last = broker.last_message(&broker.subjects().recurring_stream(), delivery.subject()).await?;
    if last.is_some_and(|last| last.sequence > delivery.stream_sequence) {
        return Ok(Verdict::Leave("no worker took it up in time, and a later one makes up for it"));
    }
    Ok(Verdict::Run)
}

/// Makes this slot the schedule's last firing, unless an earlier task or a key stands against it.
async fn remember(broker: &Broker, slot: &Slot, may_be_second: bool) -> Result<Verdict, Error> {
    let ScheduleRecord { plugin, name, definition, .. } = &slot.record;
    // Whoever had it before may have come as far as to publish, longer ago than the broker remembers message ids.
    if may_be_second && broker.find_task(slot.task_id).await?.is_some() {
        return Ok(Verdict::Stored);
    }
    for _ in 0..ROUNDS {
        let last = broker.last_firing(plugin, name).await?;
        if last.as_ref().is_some_and(|(last, _)| last.task_id == slot.task_id) {
            // Fired twice, or taken up by somebody who may not have come far.
            let found = broker.find_task(slot.task_id).await?;
            return Ok(if found.is_some() { Verdict::Stored } else { Verdict::Run });
        }
        if let Some((last, _)) = &last
            && definition.overlap == Overlap::Skip
            && is_under_way(broker, last).await?
        {
            return Ok(Verdict::Leave("the task of an earlier one has not ended"));
        }
        if let Some(key) = &definition.unique_key {
            let hash = unique_hash(plugin, &definition.task, key);
            let claim = broker.claim_unique(&hash, slot.task_id, Duration::ZERO, PUBLISH_TIMEOUT).await?;
            if claim != UniqueClaim::Fresh {
                return Ok(Verdict::Leave("a task with its unique key is queued or running"));
            }
        }
        if last.as_ref().is_some_and(|(last, _)| last.at > slot.fired_at) {
            return Ok(Verdict::Run);
        }
        let firing = LastFiring {
            v: 1,
            task_id: slot.task_id,
            at: slot.fired_at,
            taken_up_at: Timestamp::from_unix_ms(broker.now_unix_ms()),
            next: Some(slot.next),
        };
        let expected = last.map_or(0, |(_, sequence)| sequence);
        match broker.write_last_firing(plugin, name, &firing, expected).await {
            Ok(()) => return Ok(Verdict::Run),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::unavailable("a schedule's firings come too fast"))
}

/// Whether the task of an earlier slot is queued or running.
async fn is_under_way(broker: &Broker, last: &LastFiring) -> Result<bool, Error> {
    Ok(match broker.find_task(last.task_id).await? {
        Some(Place::Recorded(record, _)) => !record.state.is_final(),
        Some(_) => true,
        // Whoever remembered it has yet to publish it, or died before; then its firing comes again.
        None => {
            let on_its_way = ON_ITS_WAY.max(broker.options().lease.saturating_mul(MISSED_AFTER_LEASES));
            let age_ms = broker.now_unix_ms().saturating_sub(last.taken_up_at.unix_ms());
            u128::from(age_ms) < on_its_way.as_millis()
        }
    })
}

fn envelope(slot: &Slot) -> TaskEnvelope {
    let ScheduleRecord { plugin, declared_by, definition, .. } = &slot.record;
    let address = TaskAddress {
        plugin: plugin.clone(),
        major: definition.major,
        task: definition.task.clone(),
        priority: Priority::Normal,
        id: slot.task_id,
    };
    let version = Arc::from(declared_by.as_str());
    let mut envelope = TaskEnvelope::new(address, version, slot.fired_at, definition.body.to_string().into());
    envelope.expires_at = definition.expires_ms.map(|expires_ms| slot.fired_at.plus_ms(expires_ms));
    envelope.unique_key = definition.unique_key.clone();
    envelope.serial_key = definition.serial_key.clone();
    envelope
}
