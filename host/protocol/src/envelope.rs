//! The task envelope: headers around the author's JSON.
//!
//! It is the documented way in: any language that can publish to NATS can enqueue. So it is plain headers, its versions
//! have golden files, and reading is strict about what it knows and silent about what it does not.
//!
//! Invariants: subject and headers never disagree; an envelope that [`TaskEnvelope::check`] accepts decodes to itself.
//! Refuses: reading the body. That is the author's, checked against a schema elsewhere.

use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Priority, SubjectError, TaskAddress, push_u32};
use crate::header;
use crate::id::TaskId;
use crate::limits;
use crate::name::Name;
use crate::subject::Subjects;
use crate::timestamp::Timestamp;

/// The version of the envelope that this host writes.
pub const ENVELOPE_VERSION: u32 = 1;

/// A task on its way, with everything that a worker needs to start it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEnvelope {
    /// The task's id.
    pub id: TaskId,
    /// The plugin's name.
    pub plugin: Name,
    /// The plugin's full version when the task was enqueued.
    pub version: Arc<str>,
    /// The plugin's major version, part of the subject.
    pub major: u32,
    /// The task's name.
    pub task: Name,
    /// The priority, part of the subject.
    pub priority: Priority,
    /// The attempt that this message is for, counted from 1.
    pub attempt: u32,
    /// A first publish that the broker stored later than this was never promised, and is dropped. Absent on retries.
    pub accept_by: Option<Timestamp>,
    /// The task is not started after this time.
    pub expires_at: Option<Timestamp>,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    /// Of the tasks with this key, one is queued or running at a time.
    pub unique_key: Option<String>,
    /// Of the tasks with this key, one is running at a time.
    pub serial_key: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace context, vendors' part.
    pub tracestate: Option<String>,
    /// The first task of the tree; its own id for a task without parent.
    pub root_id: TaskId,
    /// The task that enqueued this one.
    pub parent_id: Option<TaskId>,
    /// Hash of the schema that the body was checked against.
    pub schema: Option<String>,
    /// This message was parked and has come back. Absent on the next attempt's.
    pub unparked: bool,
    /// When the task was enqueued. Retries keep it.
    pub enqueued_at: Timestamp,
    /// The author's JSON.
    pub body: Bytes,
}

/// Why a message is no envelope. Its sender must correct it; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The subject is no task's subject.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// A header is missing, repeated, malformed or in contradiction to the subject.
    #[error("header {name}: {reason}")]
    Header {
        /// The header's name.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// All headers together are too large.
    #[error("the headers have {bytes} bytes; at most {} are accepted", limits::ENVELOPE_HEADERS_MAX_BYTES)]
    HeadersTooLarge {
        /// Sum of names and values.
        bytes: usize,
    },
    /// The body is too large.
    #[error("the body has {bytes} bytes; at most {} are accepted", limits::TASK_BODY_MAX_BYTES)]
    BodyTooLarge {
        /// Length of the body.
        bytes: usize,
    },
}

impl TaskEnvelope {
    /// A first attempt at `address`, enqueued at `now`, with nothing optional set.
    #[must_use]
    pub fn new(address: TaskAddress, version: Arc<str>, now: Timestamp, body: Bytes) -> Self {
        let TaskAddress { plugin, major, task, priority, id } = address;
        Self {
            id,
            plugin,
            version,
            major,
            task,
            priority,
            attempt: 1,
            accept_by: None,
            expires_at: None,
            idempotency_key: None,
            unique_key: None,
            serial_key: None,
            traceparent: None,
            tracestate: None,
            root_id: id,
            parent_id: None,
            schema: None,
            unparked: false,
            enqueued_at: now,
            body,
        }
    }

    /// Where the task belongs.
    #[must_use]
    pub fn address(&self) -> TaskAddress {
        TaskAddress {
            plugin: self.plugin.clone(),
            major: self.major,
            task: self.task.clone(),
            priority: self.priority,
            id: self.id,
        }
    }

    /// `<id>.<attempt>`: the publish's identity, under which a repeated publish is a duplicate.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut id = String::with_capacity(48);
        id.push_str(self.id.encode(&mut [0; 36]));
        id.push('.');
        push_u32(&mut id, self.attempt);
        id
    }

    /// Whether a caller may have been told yes for this message, which the broker stored at `stored_at`: one that was
    /// stored later than its `accept_by` was refused to whoever sent it.
    #[must_use]
    pub fn is_promised(&self, stored_at: Timestamp) -> bool {
        self.attempt > 1 || self.accept_by.is_none_or(|accept_by| stored_at <= accept_by)
    }

    /// The same task's next attempt. It has no `accept_by`: the task was accepted long ago.
    #[must_use]
    pub fn retry(&self) -> Self {
        Self { attempt: self.attempt.saturating_add(1), accept_by: None, unparked: false, ..self.clone() }
    }

    /// Says whether everyone will be able to read this envelope.
    ///
    /// # Errors
    /// The first field that is too long, empty, or holds a control character.
    pub fn check(&self) -> Result<(), EnvelopeError> {
        check_text(header::VERSION, &self.version, limits::VERSION_MAX_BYTES)?;
        for (name, value, max) in [
            (header::IDEMPOTENCY_KEY, &self.idempotency_key, limits::IDEMPOTENCY_KEY_MAX_BYTES),
            (header::UNIQUE_KEY, &self.unique_key, limits::TASK_KEY_MAX_BYTES),
            (header::SERIAL_KEY, &self.serial_key, limits::TASK_KEY_MAX_BYTES),
            (header::TRACEPARENT, &self.traceparent, limits::TRACEPARENT_MAX_BYTES),
            (header::TRACESTATE, &self.tracestate, limits::TRACESTATE_MAX_BYTES),
            (header::SCHEMA, &self.schema, limits::SCHEMA_MAX_BYTES),
        ] {
            if let Some(value) = value {
                check_text(name, value, max)?;
            }
        }
        if self.attempt == 0 {
            return Err(wrong(header::ATTEMPT, "attempts are counted from 1"));
        }
        check_body(&self.body)
    }

    /// Calls `each` with every header, in the documented order.
    pub fn for_each_header(&self, mut each: impl FnMut(&'static str, String)) {
        let number = |n: u32| {
            let mut text = String::with_capacity(10);
            push_u32(&mut text, n);
            text
        };
        let id = |id: TaskId| id.encode(&mut [0; 36]).to_owned();
        each(header::ENVELOPE_VERSION, number(ENVELOPE_VERSION));
        each(header::TASK_ID, id(self.id));
        each(header::PLUGIN, self.plugin.as_str().to_owned());
        each(header::VERSION, self.version.to_string());
        each(header::TASK, self.task.as_str().to_owned());
        each(header::ATTEMPT, number(self.attempt));
        each(header::ENQUEUED_AT, self.enqueued_at.to_string());
        if self.root_id != self.id {
            each(header::ROOT_ID, id(self.root_id));
        }
        let times = [(header::ACCEPT_BY, self.accept_by), (header::EXPIRES_AT, self.expires_at)];
        let texts = [
            (header::IDEMPOTENCY_KEY, &self.idempotency_key),
            (header::TRACEPARENT, &self.traceparent),
            (header::TRACESTATE, &self.tracestate),
            (header::SCHEMA, &self.schema),
            (header::UNIQUE_KEY, &self.unique_key),
            (header::SERIAL_KEY, &self.serial_key),
        ];
        times.into_iter().filter_map(|(n, v)| Some((n, v?))).for_each(|(n, v)| each(n, v.to_string()));
        if let Some(parent) = self.parent_id {
            each(header::PARENT_ID, id(parent));
        }
        texts.into_iter().filter_map(|(n, v)| Some((n, v.as_ref()?))).for_each(|(n, v)| each(n, v.clone()));
        if self.unparked {
            each(header::UNPARKED, number(1));
        }
    }

    /// All headers, in the documented order.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::with_capacity(16);
        self.for_each_header(|name, value| headers.push((name, value)));
        headers
    }

    /// Reads a ready task's message. Unknown headers are ignored.
    ///
    /// # Errors
    /// [`EnvelopeError`] names the header (or the bound) and the reason.
    pub fn decode<'a>(
        subjects: &Subjects,
        subject: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
    ) -> Result<Self, EnvelopeError> {
        Self::decode_at(subjects.parse_task(subject)?, headers, body)
    }

    /// Reads a message whose subject has been read already, for example a due task's.
    ///
    /// # Errors
    /// As [`TaskEnvelope::decode`].
    pub fn decode_at<'a>(
        address: TaskAddress,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
    ) -> Result<Self, EnvelopeError> {
        check_body(&body)?;
        let found = Found::collect(headers)?;
        agree(header::TASK_ID, found.task_id, address.id.encode(&mut [0; 36]))?;
        agree(header::PLUGIN, found.plugin, address.plugin.as_str())?;
        agree(header::TASK, found.task, address.task.as_str())?;
        match found.envelope_version {
            None | Some("1") => {}
            Some(_) => {
                return Err(wrong(
                    header::ENVELOPE_VERSION,
                    "this version is not supported; upgrade the worker",
                ));
            }
        }
        let version = found.version.ok_or(wrong(header::VERSION, "is missing"))?;
        let enqueued_at = found.enqueued_at.ok_or(wrong(header::ENQUEUED_AT, "is missing"))?;
        let id = address.id;
        let mut envelope =
            Self::new(address, Arc::from(version), time(header::ENQUEUED_AT, enqueued_at)?, body);
        if let Some(attempt) = found.attempt {
            envelope.attempt = attempt.parse().map_err(|_| wrong(header::ATTEMPT, "is not a number"))?;
        }
        envelope.accept_by = found.accept_by.map(|text| time(header::ACCEPT_BY, text)).transpose()?;
        envelope.expires_at = found.expires_at.map(|text| time(header::EXPIRES_AT, text)).transpose()?;
        envelope.root_id =
            found.root_id.map(|text| task_id(header::ROOT_ID, text)).transpose()?.unwrap_or(id);
        envelope.parent_id = found.parent_id.map(|text| task_id(header::PARENT_ID, text)).transpose()?;
        envelope.idempotency_key = found.idempotency_key.map(str::to_owned);
        envelope.unique_key = found.unique_key.map(str::to_owned);
        envelope.serial_key = found.serial_key.map(str::to_owned);
        envelope.traceparent = found.traceparent.map(str::to_owned);
        envelope.tracestate = found.tracestate.map(str::to_owned);
        envelope.schema = found.schema.map(str::to_owned);
        envelope.unparked = found.unparked.is_some();
        envelope.check()?;
        Ok(envelope)
    }
}

/// The known headers of one message, unparsed.
#[derive(Default)]
struct Found<'a> {
    envelope_version: Option<&'a str>,
    task_id: Option<&'a str>,
    plugin: Option<&'a str>,
    version: Option<&'a str>,
    task: Option<&'a str>,
    attempt: Option<&'a str>,
    accept_by: Option<&'a str>,
    expires_at: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    unique_key: Option<&'a str>,
    serial_key: Option<&'a str>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
    root_id: Option<&'a str>,
    parent_id: Option<&'a str>,
    schema: Option<&'a str>,
    unparked: Option<&'a str>,
    enqueued_at: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn collect(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, EnvelopeError> {
        let mut found = Self::default();
        let mut bytes = 0usize;
        for (name, value) in headers {
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if bytes > limits::ENVELOPE_HEADERS_MAX_BYTES {
                return Err(EnvelopeError::HeadersTooLarge { bytes });
            }
            let Some((name, slot)) = found.slot(name) else { continue };
            if slot.replace(value).is_some() {
                return Err(wrong(name, "is there twice"));
            }
        }
        Ok(found)
    }

    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<&'a str>)> {
        Some(match name {
            header::ENVELOPE_VERSION => (header::ENVELOPE_VERSION, &mut self.envelope_version),
            header::TASK_ID => (header::TASK_ID, &mut self.task_id),
            header::PLUGIN => (header::PLUGIN, &mut self.plugin),
            header::VERSION => (header::VERSION, &mut self.version),
            header::TASK => (header::TASK, &mut self.task),
            header::ATTEMPT => (header::ATTEMPT, &mut self.attempt),
            header::ACCEPT_BY => (header::ACCEPT_BY, &mut self.accept_by),
            header::EXPIRES_AT => (header::EXPIRES_AT, &mut self.expires_at),
            header::IDEMPOTENCY_KEY => (header::IDEMPOTENCY_KEY, &mut self.idempotency_key),
            header::UNIQUE_KEY => (header::UNIQUE_KEY, &mut self.unique_key),
            header::SERIAL_KEY => (header::SERIAL_KEY, &mut self.serial_key),
            header::TRACEPARENT => (header::TRACEPARENT, &mut self.traceparent),
            header::TRACESTATE => (header::TRACESTATE, &mut self.tracestate),
            header::ROOT_ID => (header::ROOT_ID, &mut self.root_id),
            header::PARENT_ID => (header::PARENT_ID, &mut self.parent_id),
            header::SCHEMA => (header::SCHEMA, &mut self.schema),
            header::UNPARKED => (header::UNPARKED, &mut self.unparked),
            header::ENQUEUED_AT => (header::ENQUEUED_AT, &mut self.enqueued_at),
            _ => return None,
        })
    }
}

const fn wrong(name: &'static str, reason: &'static str) -> EnvelopeError {
    EnvelopeError::Header { name, reason }
}

fn agree(name: &'static str, value: Option<&str>, subject: &str) -> Result<(), EnvelopeError> {
    match value {
        Some(value) if value != subject => Err(wrong(name, "contradicts the subject")),
        _ => Ok(()),
    }
}

fn time(name: &'static str, text: &str) -> Result<Timestamp, EnvelopeError> {
    text.parse().map_err(|_| wrong(name, "is not an RFC 3339 time between 1970 and 9998"))
}

fn task_id(name: &'static str, text: &str) -> Result<TaskId, EnvelopeError> {
    text.parse().map_err(|_| wrong(name, "is not a task id (UUID version 7, hyphenated, lower case)"))
}

fn check_text(name: &'static str, value: &str, max_bytes: usize) -> Result<(), EnvelopeError> {
    if value.is_empty() {
        return Err(wrong(name, "is empty"));
    }
    if value.len() > max_bytes {
        return Err(wrong(name, "is too long"));
    }
    // NATS headers are lines: a control character would end or forge one. Blanks at the ends are lost on the way.
    if value.chars().any(char::is_control) || value.trim().len() != value.len() {
        return Err(wrong(name, "has a control character, or a blank at an end"));
    }
    Ok(())
}

fn check_body(body: &Bytes) -> Result<(), EnvelopeError> {
    let bytes = body.len();
    if bytes > limits::TASK_BODY_MAX_BYTES { Err(EnvelopeError::BodyTooLarge { bytes }) } else { Ok(()) }
}
