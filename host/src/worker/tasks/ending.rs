//! What an ended attempt means for its task. Pure: record and outcome go in, the writes come out.

use super::arrival::{Standing, finished};
use super::history;
use super::limits::TaskLimits;
use super::plan::{Last, Plan};
use crate::loader::Outcome;
use bytes::Bytes;
use cardcage_protocol::{
    Attempt, Cause, FollowUp, InstanceId, Parking, State, TaskEnvelope, TaskError, TaskRecord, Timestamp,
    limits,
};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Largest error of a handler that is read as JSON; of a larger one the beginning is kept as text. What the SDK sends of the
/// longest text, all of it escaped, is not larger.
const FAILURE_JSON_MAX_BYTES: usize = 512 * 1024;

/// Schemas that a parked task remembers.
const SCHEMAS_MAX: usize = 8;

/// How an attempt ended, seen from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The handler said so.
    Handler(Outcome),
    /// It took longer than its hard limit.
    TimedOut,
    /// The same, while another handler that was over its limit held its plugin's thread.
    HeldUp,
    /// This worker stops and hands it back.
    Interrupted,
    /// The task was cancelled: before the handler began, or it did not end in its grace and was dropped.
    Cancelled,
}

/// The facts of an attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) envelope: &'a TaskEnvelope,
    pub(super) me: &'a InstanceId,
    /// The attempt's number.
    pub(super) attempt: u32,
    /// The message's sequence in its queue.
    pub(super) message: u64,
    /// Hash of the schema by which this version reads the task's body.
    pub(super) schema: &'a str,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    /// The handler was told, before its end, that the task was cancelled.
    pub(super) told: bool,
}

/// What follows for the task.
enum Next {
    Succeed(Box<RawValue>),
    /// By the policy, or after so many milliseconds.
    Retry(Option<u64>),
    Fail,
    /// This version cannot read the body.
    Park,
    Cancel,
    HandBack,
}

struct Verdict {
    cause: Cause,
    error: Option<TaskError>,
    next: Next,
}

/// The writes that follow an attempt's end. `standing` is the record as the attempt knows it, with its fence.
pub(super) fn end(
    facts: &Facts<'_>,
    record: Option<Box<TaskRecord>>,
    fence: u64,
    ended: &Ended,
    limits: &TaskLimits,
    rng: &mut fastrand::Rng,
) -> Plan {
    let mut record = record.map_or_else(|| TaskRecord::new(facts.envelope, State::Running), |record| *record);
    let Verdict { cause, error, next } =
        obey(late(judge(ended, limits), ended, facts, limits), facts, &record);
    let now = facts.ended_at;
    close(&mut record, facts, cause, error.clone());
    let fail = |mut record: TaskRecord, reason: String| {
        record.error.clone_from(&error);
        let mut record = finished(record, State::Failed, now);
        record.follow_up.push(FollowUp::DeadLetter { reason });
        Plan::record(record, fence)
    };
    let message = error.as_ref().map_or("", |error| error.message.as_str());
    match next {
        Next::Succeed(result) => {
            let mut record = finished(record, State::Succeeded, now);
            record.result = Some(result);
            Plan::record(record, fence)
        }
        Next::Retry(delay_ms) => {
            let (counted, max) = (history::counted(&record), limits.retry.max_attempts);
            if counted >= max {
                return fail(record, format!("all {max} attempts are used up; the last one: {message}"));
            }
            let asked_for = delay_ms.map(|delay_ms| limits.time_scale.ms(delay_ms));
            let delay_ms = asked_for.unwrap_or_else(|| limits.retry.backoff_ms(counted, rng));
            let at = now.plus_ms(delay_ms.min(limits::RETRY_DELAY_MAX_MS));
            retry(record, fence, facts.attempt.saturating_add(1), at)
        }
        Next::Fail => fail(record, message.to_owned()),
        Next::Park => {
            // No handler began: it was no attempt, and costs none.
            record.attempts.retain(|attempt| attempt.n != facts.attempt);
            record.error = error;
            park(record, fence, facts)
        }
        Next::Cancel => {
            record.error = error;
            Plan::record(finished(record, State::Cancelled, now), fence)
        }
        Next::HandBack => {
            record.state = State::Queued;
            record.next_at = None;
            record.follow_up.clear();
            Plan { last: Last::HandBack, ..Plan::record(record, fence) }
        }
    }
}

/// What follows an attempt that counts and that its worker could not end itself.
pub(super) fn follow(mut record: TaskRecord, fence: u64, now: Timestamp, limits: &TaskLimits) -> Plan {
    let (counted, max) = (history::counted(&record), limits.retry.max_attempts);
    if counted >= max {
        record.error = record.attempts.last().and_then(|attempt| attempt.error.clone());
        let last = record.error.as_ref().map_or("", |error| error.message.as_str());
        let reason = format!("all {max} attempts are used up; the last one: {last}");
        let mut record = finished(record, State::Failed, now);
        record.follow_up.push(FollowUp::DeadLetter { reason });
        return Plan::record(record, fence);
    }
    let delay_ms = limits.retry.backoff_ms(counted, &mut fastrand::Rng::new());
    let attempt = history::latest(&record).saturating_add(1);
    retry(record, fence, attempt, now.plus_ms(delay_ms))
}

fn retry(mut record: TaskRecord, fence: u64, attempt: u32, at: Timestamp) -> Plan {
    record.state = State::Retrying;
    // The next message begins its own count.
    record.handed_back = 0;
    record.next_at = Some(at);
    record.follow_up = vec![FollowUp::ScheduleRetry { attempt, at }];
    Plan::record(record, fence)
}

fn park(mut record: TaskRecord, fence: u64, facts: &Facts<'_>) -> Plan {
    // All of them, or two versions that can both not decode it would bring it back for each other for ever.
    let mut before = record.parked.take();
    let mut schemas = before.as_mut().map(|before| std::mem::take(&mut before.schemas)).unwrap_or_default();
    schemas.retain(|schema| schema != facts.schema);
    schemas.drain(..(schemas.len() + 1).saturating_sub(SCHEMAS_MAX));
    schemas.push(facts.schema.to_owned());
    record.state = State::Parked;
    record.handed_back = 0;
    record.next_at = None;
    record.parked = Some(Parking::of(facts.message, schemas, before));
    record.follow_up = vec![FollowUp::Park];
    Plan::record(record, fence)
}

/// After a refused write: the record and the fence to write again with, or `None` when the attempt is somebody else's
/// or over. `appended`: the attempt stands in the record since before it started.
pub(super) fn still_mine(
    facts: &Facts<'_>,
    appended: bool,
    current: Option<(TaskRecord, u64)>,
) -> Option<Standing> {
    let attempt = facts.attempt;
    // The record is gone: its time to live is over, or somebody purged it. Whether another has ended the task meanwhile, its
    // message tells, which is asked before an attempt writes without a fence.
    let Some((record, fence)) = current else { return Some(Standing { attempt, record: None, fence: 0 }) };
    let is_mine = |a: &Attempt| a.n == attempt && a.worker == *facts.me && a.cause.is_none();
    let of_others = record.attempts.iter().any(|a| a.n >= attempt && !is_mine(a));
    let there = !appended || record.attempts.iter().any(is_mine);
    (!record.state.is_final() && !of_others && there).then_some(Standing {
        attempt,
        record: Some(Box::new(record)),
        fence,
    })
}

/// Ends this attempt in the record, adding it where it is missing.
fn close(record: &mut TaskRecord, facts: &Facts<'_>, cause: Cause, error: Option<TaskError>) {
    let closed = Attempt {
        n: facts.attempt,
        worker: facts.me.clone(),
        started_at: facts.started_at,
        ended_at: Some(facts.ended_at),
        cause: Some(cause),
        error,
    };
    match record.attempts.iter_mut().find(|attempt| attempt.n == facts.attempt) {
        Some(open) => *open = closed,
        None => record.attempts.push(closed),
    }
}

/// What a cancellation makes of a verdict: a result stands, unless the task was cancelled before this attempt started
/// and nobody told it; anything else ends the task.
fn obey(verdict: Verdict, facts: &Facts<'_>, record: &TaskRecord) -> Verdict {
    let asked = record.cancel_requested_at;
    if asked.is_none() && !facts.told {
        return verdict;
    }
    let came_too_late = !facts.told && asked.is_some_and(|asked| asked < facts.started_at);
    if matches!(verdict.next, Next::Succeed(_)) && !came_too_late {
        return verdict;
    }
    // What the handler said of its end is worth more than that it was cancelled.
    let error = verdict.error.unwrap_or_else(|| {
        TaskError::new("cancelled", "the task was cancelled before this attempt; its result is dropped", None)
    });
    Verdict { cause: Cause::Cancelled, error: Some(error), next: Next::Cancel }
}

/// The code of an attempt that its handler ended otherwise than well after its soft time limit.
const SOFT_TIMEOUT: &str = "soft_timeout";

/// Says of an attempt that did not succeed that its soft time limit had passed: that is likely why.
fn late(mut verdict: Verdict, ended: &Ended, facts: &Facts<'_>, limits: &TaskLimits) -> Verdict {
    let took_ms = facts.ended_at.unix_ms().saturating_sub(facts.started_at.unix_ms());
    let is_late = limits.soft_timeout.is_some_and(|soft| u128::from(took_ms) >= soft.as_millis());
    let gave_up =
        matches!(ended, Ended::Handler(Outcome::Retry(_) | Outcome::RetryAfter(..) | Outcome::Failed(_)));
    if is_late
        && gave_up
        && let Some(error) = &mut verdict.error
    {
        error.code = SOFT_TIMEOUT.into();
    }
    verdict
}

fn judge(ended: &Ended, limits: &TaskLimits) -> Verdict {
    let verdict =
        |cause, code: &str, text: &Bytes, next| Verdict { cause, error: Some(failure(code, text)), next };
    let said = |cause, code: &str, text: &str, next| Verdict {
        cause,
        error: Some(TaskError::new(code, text, None)),
        next,
    };
    match ended {
        Ended::Handler(Outcome::Succeeded(result)) => succeeded(result, limits),
        Ended::Handler(Outcome::Retry(text)) => verdict(Cause::Error, "error", text, Next::Retry(None)),
        Ended::Handler(Outcome::RetryAfter(ms, text)) => {
            verdict(Cause::RetryRequested, "retry_requested", text, Next::Retry(Some(*ms)))
        }
        Ended::Handler(Outcome::Panicked(text)) => verdict(Cause::Panic, "panicked", text, Next::Retry(None)),
        Ended::Handler(Outcome::Failed(text)) => verdict(Cause::Error, "failed", text, Next::Fail),
        Ended::Handler(Outcome::Discarded(text)) => {
            verdict(Cause::Discarded, "discarded", text, Next::Cancel)
        }
        // It waits for a version that can read it.
        Ended::Handler(Outcome::Undecodable(text)) => verdict(Cause::Error, "undecodable", text, Next::Park),
        Ended::Handler(Outcome::Dropped) => {
            said(Cause::Error, "dropped", "the handler was dropped before it answered", Next::Retry(None))
        }
        Ended::TimedOut => {
            let text = format!("the attempt took longer than its limit of {} ms", limits.timeout.as_millis());
            said(Cause::Timeout, "timeout", &text, Next::Retry(None))
        }
        Ended::HeldUp if limits.lost_is_final => said(
            Cause::Interrupted,
            "interrupted",
            "another handler held the plugin's thread past its time limit, and it must not be started twice (on_lost = \"fail\")",
            Next::Fail,
        ),
        Ended::HeldUp => said(
            Cause::Interrupted,
            "interrupted",
            "another handler held the plugin's thread past its time limit; the worker's child is replaced",
            Next::HandBack,
        ),
        Ended::Interrupted if limits.lost_is_final => said(
            Cause::Interrupted,
            "interrupted",
            "the worker stopped while it ran, and it must not be started twice (on_lost = \"fail\")",
            Next::Fail,
        ),
        Ended::Interrupted => said(
            Cause::Interrupted,
            "interrupted",
            "the worker stopped and handed the task back",
            Next::HandBack,
        ),
        Ended::Cancelled => said(Cause::Cancelled, "cancelled", "the task was cancelled", Next::Cancel),
    }
}

fn succeeded(result: &Bytes, limits: &TaskLimits) -> Verdict {
    let refuse = |code: &str, text: &str| Verdict {
        cause: Cause::Error,
        error: Some(TaskError::new(code, text, None)),
        next: Next::Fail,
    };
    if result.len() > limits.result_max_bytes {
        let text = format!(
            "the result has {} bytes; at most {} are kept (tasks.result_max_bytes)",
            result.len(),
            limits.result_max_bytes
        );
        return refuse("result_too_large", &text);
    }
    match serde_json::from_slice::<Box<RawValue>>(result) {
        Ok(result) => Verdict { cause: Cause::Succeeded, error: None, next: Next::Succeed(result) },
        Err(error) => refuse("result_not_json", &format!("the result is not JSON: {error}")),
    }
}

/// A handler's error, whatever its bytes are.
fn failure(code: &str, bytes: &Bytes) -> TaskError {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
        #[serde(default)]
        details: Option<Value>,
    }
    // What is no text in it becomes signs that say so, also within JSON.
    if bytes.len() <= FAILURE_JSON_MAX_BYTES
        && let Ok(failure) = serde_json::from_str::<Failure>(&String::from_utf8_lossy(bytes))
    {
        return TaskError::new(code, &failure.message, failure.details);
    }
    // One byte more than is kept, so that it is cut where something is missing.
    let start = bytes.get(..bytes.len().min(limits::LAST_ERROR_MAX_BYTES + 1)).unwrap_or_default();
    TaskError::new(code, &String::from_utf8_lossy(start), None)
}
