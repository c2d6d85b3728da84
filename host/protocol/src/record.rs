//! The task record: what is known about a task, in one JSON document per task.
//!
//! It is written by compare-and-set and read by callers, operators and workers of neighbouring versions. So every field
//! that may be absent has a default, unknown fields are ignored, and unknown causes read as [`Cause::Unknown`].
//!
//! Invariants: a record that passed through [`TaskRecord::bound`] fits one message; errors are cut at a character
//! boundary; a record in a final state may still owe publishes (`follow_up`), which whoever gets the redelivery redoes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::child::StagedTask;
use crate::envelope::TaskEnvelope;
use crate::id::{InstanceId, TaskId};
use crate::limits;
use crate::name::Name;
use crate::state::State;
use crate::timestamp::Timestamp;

/// The version of the record that this host writes.
pub const RECORD_VERSION: u32 = 1;

/// What is known about one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Version of the record.
    pub v: u32,
    /// The task's id.
    pub id: TaskId,
    /// The plugin's name.
    pub plugin: Name,
    /// The plugin's full version.
    pub version: String,
    /// The task's name.
    pub task: Name,
    /// Where the task stands.
    pub state: State,
    /// The attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Attempts that were left out because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts_omitted: u32,
    /// Of those the ones that do not count towards `max_attempts`, for the bounds that they do count towards.
    #[serde(default, skip_serializing_if = "Omitted::is_none")]
    pub omitted: Omitted,
    /// Deliveries of the present message that were handed back unstarted: no attempts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub handed_back: u32,
    /// What the handler returned, unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why the task did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When it reached its final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// When somebody asked for its cancellation. Whoever next decides about the task sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// The first task of the tree.
    pub root_id: TaskId,
    /// The task that enqueued this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<TaskId>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The caller's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The tasks that the succeeding attempt enqueued; they are published after this write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<StagedTask>,
    /// The task that is run because this one was given up; its body is this one's report. Published after this write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted: Option<Box<StagedTask>>,
    /// Which message of it was parked last, and by which schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parking>,
    /// Idempotent publishes that are still owed after this write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub follow_up: Vec<FollowUp>,
}

/// One start of a task's handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub n: u32,
    /// The process that ran it.
    pub worker: InstanceId,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The handler returned a result.
    Succeeded,
    /// The handler returned an error.
    Error,
    /// The handler asked for a later attempt.
    RetryRequested,
    /// The handler panicked.
    Panic,
    /// The handler took longer than its limit.
    Timeout,
    /// The worker fell silent, and its lease ran out.
    LeaseLost,
    /// The task crashed its worker.
    Crashed,
    /// The task only shared a process that ended. It counts towards nothing.
    Interrupted,
    /// Somebody cancelled the task.
    Cancelled,
    /// The handler discarded the task.
    Discarded,
    /// Written by a newer host.
    #[serde(other)]
    Unknown,
}

impl Cause {
    /// Whether an attempt that ended so counts towards `max_attempts`. A cause that this host does not know counts: a bound
    /// must hold.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Error | Self::RetryRequested | Self::Panic | Self::Timeout | Self::Unknown)
    }
}

/// What became of attempts that a record has no room for and that do not count towards `max_attempts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// All of them.
    #[serde(default)]
    pub uncounted: u32,
    /// Those whose lease was lost.
    #[serde(default)]
    pub lost: u32,
    /// Those that crashed their worker.
    #[serde(default)]
    pub crashed: u32,
}

impl Omitted {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn count(&mut self, cause: Option<Cause>) {
        self.uncounted = self.uncounted.saturating_add(u32::from(!cause.is_some_and(Cause::counts)));
        self.lost = self.lost.saturating_add(u32::from(cause == Some(Cause::LeaseLost)));
        self.crashed = self.crashed.saturating_add(u32::from(cause == Some(Cause::Crashed)));
    }
}

/// An error as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskError {
    /// A stable code.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// More, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl TaskError {
    /// An error whose texts are cut to the bounds of a last error and whose details are left out when they are too large.
    #[must_use]
    pub fn new(code: &str, message: &str, details: Option<Value>) -> Self {
        let code = cut(code, limits::CODE_MAX_BYTES).into_owned();
        let mut error = Self { code, message: message.to_owned(), details };
        error.bound(limits::LAST_ERROR_MAX_BYTES, limits::LAST_ERROR_DETAILS_MAX_BYTES);
        error
    }

    fn bound(&mut self, message_max_bytes: usize, details_max_bytes: usize) {
        if let Cow::Owned(cut) = cut_json(&self.message, message_max_bytes) {
            self.message = cut;
        }
        let fits =
            |value: &Value| serde_json::to_vec(value).is_ok_and(|json| json.len() <= details_max_bytes);
        self.details = self.details.take().filter(fits);
    }
}

/// A publish that is owed after a record was written, and can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FollowUp {
    /// The next attempt must be put into the schedule.
    ScheduleRetry {
        /// The next attempt's number.
        attempt: u32,
        /// When it is due.
        at: Timestamp,
    },
    /// The dead letter must be published.
    DeadLetter {
        /// Why the task ended `failed`, in one line.
        reason: String,
    },
    /// The record's children must be published.
    Children,
    /// The record's `exhausted` must be published.
    Exhausted,
    /// The message must be put among the parked tasks, as `parked` says; why stands in `error`.
    Park,
    /// What a newer version writes and this one does not know: a newer host must see to it.
    #[serde(other)]
    Unknown,
}

/// A message that the version which had it could not decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// Hashes of the schemas that the versions which could not decode it had for the task, the latest last.
    pub schemas: Vec<String>,
    /// The message's sequence in its queue. A redelivery of it is not started, wherever the task is by then.
    pub message: u64,
    /// Those of messages that were parked before, the latest last. A worker that stood still may yet have one in hand, or be
    /// about to park it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<u64>,
    /// It has come back since, and no attempt has been recorded since then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
}

impl Parking {
    /// Earlier messages that are remembered.
    const EARLIER_MAX: usize = 32;

    /// The parking of `message`, after that of others.
    #[must_use]
    pub fn of(message: u64, schemas: Vec<String>, before: Option<Self>) -> Self {
        let mut earlier = before.map_or_else(Vec::new, |before| {
            let mut earlier = before.earlier;
            earlier.push(before.message);
            earlier
        });
        earlier.drain(..earlier.len().saturating_sub(Self::EARLIER_MAX));
        Self { schemas, message, earlier, back: false }
    }

    /// Whether the message with this sequence was parked.
    #[must_use]
    pub fn has(&self, message: u64) -> bool {
        self.message == message || self.is_after(message)
    }

    /// Whether the message with this sequence was parked before this parking.
    #[must_use]
    pub fn is_after(&self, message: u64) -> bool {
        self.earlier.contains(&message)
    }
}

impl TaskRecord {
    /// Whether the message with this sequence is to be among the parked ones. It is not any more where the task has come back,
    /// or was parked anew.
    #[must_use]
    pub fn parks(&self, message: u64) -> bool {
        self.state == State::Parked && self.parked.as_ref().is_some_and(|parked| parked.message == message)
    }

    /// The record of the envelope's task in `state`, with no attempts. Those before the one that the envelope is for have been
    /// all the same: they count as left out.
    #[must_use]
    pub fn new(envelope: &TaskEnvelope, state: State) -> Self {
        Self {
            v: RECORD_VERSION,
            id: envelope.id,
            plugin: envelope.plugin.clone(),
            version: envelope.version.to_string(),
            task: envelope.task.clone(),
            state,
            attempts: Vec::new(),
            attempts_omitted: envelope.attempt.saturating_sub(1),
            omitted: Omitted::default(),
            handed_back: 0,
            result: None,
            error: None,
            enqueued_at: envelope.enqueued_at,
            finished_at: None,
            next_at: None,
            cancel_requested_at: None,
            root_id: envelope.root_id,
            parent_id: envelope.parent_id,
            traceparent: envelope.traceparent.clone(),
            idempotency_key: envelope.idempotency_key.clone(),
            children: Vec::new(),
            exhausted: None,
            parked: None,
            follow_up: Vec::new(),
        }
    }

    /// Cuts the record to its bounds: the oldest attempts go, and are counted; long errors are cut, those before the last
    /// the most.
    ///
    /// A result over [`limits::RESULT_MAX_BYTES`] is not touched: whoever sets it must refuse it as the task's failure.
    pub fn bound(&mut self) {
        let excess = self.attempts.len().saturating_sub(limits::RECORD_ATTEMPTS_MAX);
        for attempt in self.attempts.drain(..excess) {
            self.omitted.count(attempt.cause);
        }
        self.attempts_omitted =
            self.attempts_omitted.saturating_add(u32::try_from(excess).unwrap_or(u32::MAX));
        if let Some(error) = &mut self.error {
            error.bound(limits::LAST_ERROR_MAX_BYTES, limits::LAST_ERROR_DETAILS_MAX_BYTES);
        }
        // The last attempt's is kept in full once: here, or as the task's.
        let last = if self.error.is_none() { self.attempts.len() } else { 0 };
        for (n, attempt) in (1..).zip(&mut self.attempts) {
            match &mut attempt.error {
                Some(error) if n == last => {
                    error.bound(limits::LAST_ERROR_MAX_BYTES, limits::LAST_ERROR_DETAILS_MAX_BYTES);
                }
                Some(error) => error.bound(limits::ERROR_MAX_BYTES, limits::ERROR_DETAILS_MAX_BYTES),
                None => {}
            }
        }
        for owed in &mut self.follow_up {
            if let FollowUp::DeadLetter { reason } = owed
                && let Cow::Owned(cut) = cut_json(reason, limits::ERROR_MAX_BYTES)
            {
                *reason = cut;
            }
        }
    }

    /// The record as JSON, cut to its bounds first.
    ///
    /// # Errors
    /// Only when a value cannot be written as JSON, which these types do not hold.
    pub fn encode(&mut self) -> Result<Vec<u8>, serde_json::Error> {
        self.bound();
        let mut json = Vec::with_capacity(512 + self.result.as_ref().map_or(0, |r| r.get().len()));
        serde_json::to_writer(&mut json, self)?;
        Ok(json)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the JSON is no record: somebody else wrote to the record's subject.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// `text` cut to at most `max_bytes` at a character boundary, with an ellipsis where something is missing.
#[must_use]
pub fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let room = max_bytes.saturating_sub(ELLIPSIS.len());
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default()))
}

/// `text` cut so that it has at most `max_bytes` where it stands in JSON, whose escapes can be six times as long.
#[must_use]
pub fn cut_json(text: &str, max_bytes: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max_bytes / 6 {
        return Cow::Borrowed(text);
    }
    let width = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    let (mut end, mut bytes) = (0, 0);
    for (at, c) in text.char_indices() {
        if bytes <= max_bytes.saturating_sub(ELLIPSIS.len()) {
            end = at;
        }
        bytes += width(c);
        if bytes > max_bytes {
            return Cow::Owned(format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default()));
        }
    }
    Cow::Borrowed(text)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_boundary() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("ééééé", 8), "éé…");
        let long = "é".repeat(limits::LAST_ERROR_MAX_BYTES);
        let error = TaskError::new("x", &long, None);
        assert!(error.message.len() <= limits::LAST_ERROR_MAX_BYTES && error.message.ends_with('…'));
    }

    #[test]
    fn texts_are_cut_by_what_they_take_in_json() {
        for (text, max, expected) in [
            ("\n".repeat(20), 40, "\n".repeat(20)),
            ("\n".repeat(21), 40, format!("{}…", "\n".repeat(18))),
            ("\u{1}".repeat(9), 40, format!("{}…", "\u{1}".repeat(6))),
            ("é".repeat(20), 40, "é".repeat(20)),
            ("é".repeat(21), 40, format!("{}…", "é".repeat(18))),
        ] {
            let cut = cut_json(&text, max);
            assert_eq!(cut, expected);
            assert!(serde_json::to_string(&cut).unwrap().len() <= max + 2);
        }
    }

    #[test]
    fn details_over_the_bound_are_left_out() {
        let details = |bytes: usize| Some(Value::String("x".repeat(bytes - 2)));
        let max = limits::LAST_ERROR_DETAILS_MAX_BYTES;
        assert_eq!(TaskError::new("x", "y", details(max + 1)).details, None);
        assert!(TaskError::new("x", "y", details(max)).details.is_some());
    }

    #[test]
    fn the_last_error_is_kept_in_full_once_and_the_largest_record_fits_a_message() {
        let envelope = crate::envelope::TaskEnvelope::new(
            crate::address::TaskAddress {
                plugin: Name::new("p").unwrap(),
                major: 1,
                task: Name::new("t").unwrap(),
                priority: crate::Priority::Normal,
                id: TaskId::generate(),
            },
            "1.0.0".into(),
            Timestamp::now(),
            bytes::Bytes::new(),
        );
        let mut record = TaskRecord::new(&envelope, State::Retrying);
        let details = Some(Value::String("y".repeat(4_000)));
        // Six bytes each in JSON.
        let error = TaskError::new("x", &"\u{1}".repeat(100_000), details);
        record.attempts = (1..=40)
            .map(|n| Attempt {
                n,
                worker: InstanceId::new("worker-1").unwrap(),
                started_at: Timestamp::now(),
                ended_at: None,
                cause: Some(Cause::Error),
                error: Some(error.clone()),
            })
            .collect();
        let length = |error: Option<&TaskError>| error.unwrap().message.len();
        record.bound();
        assert_eq!((record.attempts.len(), record.attempts_omitted), (limits::RECORD_ATTEMPTS_MAX, 8));
        assert!(length(record.attempts[31].error.as_ref()) > limits::LAST_ERROR_MAX_BYTES / 6 - 4);
        assert!(length(record.attempts[30].error.as_ref()) < limits::ERROR_MAX_BYTES / 6 + 4);

        record.state = State::Failed;
        record.error = Some(error.clone());
        record.follow_up.push(FollowUp::DeadLetter { reason: error.message.clone() });
        let hook = serde_json::json!({
            "plugin": "p", "version": "1.0.0", "major": 1, "task": "t", "body": "z".repeat(limits::TASK_BODY_MAX_BYTES - 2),
        });
        record.exhausted = Some(Box::new(serde_json::from_value(hook).unwrap()));
        let json = record.encode().unwrap();
        assert_eq!(record.omitted, Omitted::default(), "they all counted");
        assert!(json.len() < limits::MESSAGE_MAX_BYTES - 4096, "{} bytes", json.len());
        assert!(length(record.error.as_ref()) > limits::LAST_ERROR_MAX_BYTES / 6 - 4);
        assert!(length(record.attempts[31].error.as_ref()) < limits::ERROR_MAX_BYTES / 6 + 4);
    }
}
