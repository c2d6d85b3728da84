//! What to do with a delivery before anything runs. Pure: what is known goes in, a decision comes out.
//!
//! A message carries the number of the attempt that it is for. Every start since then is in the record with that number
//! or a higher one; a delivery that no such attempt explains was lost with its worker.

use super::held::Message;
use super::limits::TaskLimits;
use super::plan::{Plan, Write};
use super::{ending, history, obituary};
use cardcage_protocol::{
    Attempt, FollowUp, InstanceId, State, TaskEnvelope, TaskError, TaskRecord, Timestamp,
};

/// A readable delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) envelope: &'a TaskEnvelope,
    /// This time included.
    pub(super) num_delivered: u64,
    /// The message's sequence in its queue.
    pub(super) message: u64,
    pub(super) stored_at: Timestamp,
    /// The broker's time.
    pub(super) now: Timestamp,
}

/// What can be decided without the record.
#[derive(Debug)]
pub(super) enum Reception {
    /// A first delivery of a first attempt, too late: the plan writes `expired`.
    Expired(Box<Plan>),
    /// A first delivery of a first attempt: run it.
    Start(Standing),
    /// Only the record knows.
    Read,
}

/// What can be decided with the record.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing is to be run.
    Finish(Box<Plan>),
    /// Run it; there is nothing to explain.
    Start(Standing),
    /// Write this first; the sequence of that write is the fence. Says how many deliveries were lost.
    Append { write: Box<Write>, attempt: u32, lost: u32 },
}

/// An attempt's right to write: its number, and the record that it found.
#[derive(Debug)]
pub(super) struct Standing {
    /// The attempt's number, from 1.
    pub(super) attempt: u32,
    /// The record with this attempt in it; `None` on the happy path. Boxed, for it waits while the handler runs.
    pub(super) record: Option<Box<TaskRecord>>,
    /// The sequence that the record stands at; 0: there is none.
    pub(super) fence: u64,
}

impl Standing {
    fn first() -> Self {
        Self { attempt: 1, record: None, fence: 0 }
    }
}

/// What a delivery is to the one of the same task that is here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    /// The same message once more.
    Again,
    /// A second message of what is here.
    Copy,
    /// The message that comes after it.
    Next,
}

/// Whether a task may come twice with neither delivery looking like a second one: it was put back from a line, or has come
/// back from being parked.
pub(super) fn may_come_twice(envelope: &TaskEnvelope) -> bool {
    envelope.serial_key.is_some() || envelope.unparked
}

/// Decides what a delivery, as `message`, is to the one that is `here`.
pub(super) fn meet(envelope: &TaskEnvelope, message: Message, here: Message) -> Meeting {
    if message.sequence == here.sequence {
        return Meeting::Again;
    }
    // What comes back may do so while the message that went there is still here, and goes with it: then it is no copy, but
    // the task.
    if message.attempt <= here.attempt && !may_come_twice(envelope) { Meeting::Copy } else { Meeting::Next }
}

/// Decides what can be decided without reading. `settling`: the connection came back less than a lease ago, and a
/// first delivery may be none.
pub(super) fn receive(arrival: &Arrival<'_>, settling: bool) -> Reception {
    let envelope = arrival.envelope;
    let first = envelope.attempt == 1;
    if !first || arrival.num_delivered > 1 || settling {
        return Reception::Read;
    }
    if is_expired(arrival) {
        let plan = expire(TaskRecord::new(envelope, State::Queued), 0, arrival.now);
        return Reception::Expired(Box::new(plan));
    }
    Reception::Start(Standing::first())
}

/// Decides with the record. `me` is this process; `unknown` stands for workers that nobody knows.
pub(super) fn consider(
    arrival: &Arrival<'_>,
    current: Option<(TaskRecord, u64)>,
    me: &InstanceId,
    unknown: &InstanceId,
    limits: &TaskLimits,
) -> Decision {
    let (envelope, now) = (arrival.envelope, arrival.now);
    let (mut record, fence) = match current {
        Some((record, fence)) => (record, fence),
        None => (TaskRecord::new(envelope, State::Queued), 0),
    };
    if record.state.is_final() {
        return Decision::Finish(Box::new(Plan::redo(&record.follow_up)));
    }
    let concluded = history::is_concluded(&record, envelope.attempt);
    // Also when this message has had its outcome: then the next attempt only waits for its time.
    if record.cancel_requested_at.is_some() && (!concluded || record.state == State::Retrying) {
        explain(&mut record, arrival, unknown, limits);
        return Decision::Finish(Box::new(Plan::record(cancelled(record, now), fence)));
    }
    if let Some(parked) = record.parked.as_ref().filter(|parked| parked.has(arrival.message)) {
        // This very message was parked; what came back from there is another one. What is owed is the latest one's.
        let is_last = record.state == State::Parked && parked.message == arrival.message;
        let owed: &[FollowUp] = if is_last { &record.follow_up } else { &[] };
        return Decision::Finish(Box::new(Plan::redo(owed)));
    }
    if concluded {
        // Only `retrying` still owes its publish; in every later state it has been made.
        let owed: &[FollowUp] = if record.state == State::Retrying { &record.follow_up } else { &[] };
        return Decision::Finish(Box::new(Plan::redo(owed)));
    }
    if history::was_cut_off_in_full(&record) {
        return Decision::Finish(Box::new(ending::follow(record, fence, now, limits)));
    }
    let lost_before = history::lost(&record);
    if limits.lost_is_final {
        close_lost(&mut record, now);
        let cut_off = history::cut_off(&record, envelope.attempt).map(|attempt| attempt.error.clone());
        if let Some(how) = cut_off {
            return Decision::Finish(Box::new(give_up_at_once(record, fence, now, how)));
        }
    }
    explain(&mut record, arrival, unknown, limits);
    let lost = history::lost(&record);
    let crashed = history::crashed(&record);
    if crashed >= limits.crash_limit {
        let reason =
            format!("it crashed its worker {crashed} times; the last time: {}", history::last_crash(&record));
        return Decision::Finish(Box::new(give_up(record, fence, now, "crashed", reason)));
    }
    if lost >= limits.lost_limit {
        let reason = format!("its worker was lost {lost} times without explanation");
        return Decision::Finish(Box::new(give_up(record, fence, now, "lease_lost", reason)));
    }
    if is_expired(arrival) {
        return Decision::Finish(Box::new(expire(record, fence, now)));
    }
    if fence == 0 && record.attempts.is_empty() && envelope.attempt == 1 && !limits.lost_is_final {
        return Decision::Start(Standing::first());
    }
    let attempt = envelope.attempt.max(history::latest(&record).saturating_add(1));
    record.state = State::Running;
    record.error = None;
    if let Some(parked) = &mut record.parked {
        parked.back = false;
    }
    record.next_at = None;
    record.follow_up.clear();
    record.attempts.push(Attempt {
        n: attempt,
        worker: me.clone(),
        started_at: now,
        ended_at: None,
        cause: None,
        error: None,
    });
    Decision::Append {
        write: Box::new(Write { record, fence, ttl: None }),
        attempt,
        lost: lost.saturating_sub(lost_before),
    }
}

fn is_expired(arrival: &Arrival<'_>) -> bool {
    arrival.envelope.expires_at.is_some_and(|expires_at| arrival.now > expires_at)
}

/// Ends what was begun and never ended, and adds the deliveries that nobody explained.
fn explain(record: &mut TaskRecord, arrival: &Arrival<'_>, unknown: &InstanceId, limits: &TaskLimits) {
    let now = arrival.now;
    close_lost(record, now);
    // What was started stands in the record: any other delivery was lost before it was one.
    if limits.lost_is_final {
        return;
    }
    let message = arrival.envelope.attempt;
    let earlier = arrival.num_delivered.saturating_sub(1);
    let explained = u64::try_from(history::since(record, message).count()).unwrap_or(u64::MAX);
    let explained = explained.saturating_add(u64::from(record.handed_back));
    let mut missing = earlier.saturating_sub(explained).min(u64::from(limits.lost_limit));
    if record.attempts_omitted > 0 {
        // Attempts that were left out may have explained them.
        missing = 0;
    }
    for _ in 0..missing {
        let n = message.max(history::latest(record).saturating_add(1));
        record.attempts.push(history::unexplained(n, unknown.clone(), arrival.stored_at, now));
    }
}

/// Ends the attempts that nobody ended.
fn close_lost(record: &mut TaskRecord, now: Timestamp) {
    let open = record.attempts.iter_mut().filter(|attempt| attempt.cause.is_none());
    open.for_each(|attempt| history::lose(attempt, now));
}

/// `how` its attempt was cut off.
fn give_up_at_once(record: TaskRecord, fence: u64, now: Timestamp, how: Option<TaskError>) -> Plan {
    let (code, how) =
        how.as_ref().map_or(("lease_lost", "its worker was lost"), |error| (&*error.code, &*error.message));
    // It is not tried again to find out whether it is why.
    let code = if code == obituary::SUSPECTED { "interrupted" } else { code };
    let reason = format!("{how}, and it must not be started twice (on_lost = \"fail\")");
    give_up(record, fence, now, code, reason)
}

fn expire(mut record: TaskRecord, fence: u64, now: Timestamp) -> Plan {
    record.error = Some(TaskError::new("expired", "the task's expiry passed before it was started", None));
    Plan::record(finished(record, State::Expired, now), fence)
}

/// The record of a task that is cancelled before it is started (again).
pub(super) fn cancelled(mut record: TaskRecord, now: Timestamp) -> TaskRecord {
    record.error = Some(TaskError::new("cancelled", "the task was cancelled", None));
    finished(record, State::Cancelled, now)
}

fn give_up(mut record: TaskRecord, fence: u64, now: Timestamp, code: &str, reason: String) -> Plan {
    record.error = Some(TaskError::new(code, &reason, None));
    let mut record = finished(record, State::Failed, now);
    record.follow_up.push(FollowUp::DeadLetter { reason });
    Plan::record(record, fence)
}

/// The record in a final state, owing nothing.
pub(super) fn finished(mut record: TaskRecord, state: State, now: Timestamp) -> TaskRecord {
    record.state = state;
    record.finished_at = Some(now);
    record.next_at = None;
    record.follow_up.clear();
    record
}
