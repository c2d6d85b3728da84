//! What becomes of a message that is no envelope. Pure.
//!
//! It cannot run here or anywhere else, and it must not be lost either: it ends as a dead letter. What can be read of
//! its subject is kept; a message without a task id gets one that depends only on where it stood, so that whoever gets
//! the redelivery arrives at the same one.

use super::arrival::finished;
use super::plan::Plan;
use bytes::Bytes;
use cardcage_protocol::{
    EnvelopeError, FollowUp, Name, Priority, State, Subjects, TaskAddress, TaskEnvelope, TaskError, TaskId,
    TaskRecord, Timestamp, limits,
};
use std::sync::Arc;

/// A message that could not be read.
#[derive(Debug)]
pub(super) struct Unreadable<'a> {
    pub(super) subject: &'a str,
    pub(super) stream_sequence: u64,
    pub(super) stored_at: Timestamp,
    pub(super) body: Bytes,
    pub(super) error: &'a EnvelopeError,
}

/// An envelope that says what is known.
pub(super) fn envelope(
    message: &Unreadable<'_>,
    subjects: &Subjects,
    plugin: &Name,
    major: u32,
    task: &Name,
) -> TaskEnvelope {
    let address = subjects.parse_task(message.subject).unwrap_or_else(|_| TaskAddress {
        plugin: plugin.clone(),
        major,
        task: task.clone(),
        priority: Priority::Normal,
        id: TaskId::derive_from(
            message.stored_at.unix_ms(),
            &[b"unreadable", message.subject.as_bytes(), &message.stream_sequence.to_be_bytes()],
        ),
    });
    // A dead letter is an envelope too, and keeps its bounds.
    let fits = message.body.len() <= limits::TASK_BODY_MAX_BYTES;
    let body = if fits { message.body.clone() } else { Bytes::new() };
    TaskEnvelope::new(address, Arc::from("unknown"), message.stored_at, body)
}

/// The writes that end it. `current` is the record under its id, if there is one.
pub(super) fn end(
    envelope: &TaskEnvelope,
    message: &Unreadable<'_>,
    current: Option<(TaskRecord, u64)>,
    now: Timestamp,
) -> Plan {
    match current {
        Some((record, _)) if record.state.is_final() => Plan::redo(&record.follow_up),
        // Somebody published rubbish under the id of a living task, which must not end for that.
        Some(_) => Plan::done(),
        None => {
            let reason = format!("not an envelope: {}", message.error);
            let mut record = TaskRecord::new(envelope, State::Queued);
            record.error = Some(TaskError::new("malformed_envelope", &reason, None));
            let mut record = finished(record, State::Failed, now);
            record.follow_up.push(FollowUp::DeadLetter { reason });
            Plan::record(record, 0)
        }
    }
}
