//! What can go wrong with the broker, and what that means for whoever asked.

use std::fmt;

use cardcage_protocol::{EnvelopeError, ProblemCode, TaskId};

/// One field of a stream or consumer that is not as this host's settings want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The stream, or `stream/consumer`.
    pub object: String,
    /// The field, as NATS names it.
    pub field: String,
    /// The value that this host's settings ask for, as JSON.
    pub want: String,
    /// The value that the broker reports, as JSON.
    pub have: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, want, have } = self;
        match option(object, field) {
            Some((option, divisor)) => {
                let (want, have) = (in_units(want, divisor), in_units(have, divisor));
                write!(f, "{object}: {option} is {have} on the broker and {want} in the settings")
            }
            None => write!(f, "{object}: {field} is {have} on the broker and {want} in the settings"),
        }
    }
}

/// What to do about differences.
pub const DIFFERENCES_REMEDY: &str = "set it back; or, with all hosts stopped, change the stream, or delete the consumer (no \
     task is lost with it), with the `nats` tool: a host never changes what exists";

/// The option that a field comes from, and how many of the field's units make one of the option's.
fn option(object: &str, field: &str) -> Option<(&'static str, u64)> {
    Some(match field {
        "ack_wait" => ("tasks.lease_ms", 1_000_000),
        "max_ack_pending" => ("tasks.ack_pending_max", 1),
        "max_msgs" | "max_bytes" => (super::stores::option_of(object, field)?, 1),
        "max_age" if object.ends_with("_STATE") => ("tasks.result_ttl_s", 1_000_000_000),
        "max_age" if object.ends_with("_IDEMPOTENCY") => ("tasks.idempotency_ttl_s", 1_000_000_000),
        "max_age" if object.ends_with("_DEAD") => ("tasks.dead_max_age_s", 1_000_000_000),
        "num_replicas" => ("broker.replicas", 1),
        "storage" => ("broker.storage", 1),
        _ => return None,
    })
}

fn in_units(value: &str, divisor: u64) -> String {
    value.parse::<u64>().map_or_else(|_| value.to_owned(), |number| (number / divisor).to_string())
}

/// Why something with the broker did not work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached, or did not answer in time. A retry helps once it is back.
    #[error("the broker is unavailable: {reason}{}", if *.in_doubt { " (the write may have been stored)" } else { "" })]
    Unavailable {
        /// What was observed.
        reason: String,
        /// Whether the write may have been stored all the same.
        in_doubt: bool,
    },
    /// Nobody answers on this subject: for a call, no worker; for a publish, no stream.
    #[error("nobody listens on {subject}")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// The deadline passed without an answer; the request may have been handled.
    #[error("no answer within {after_ms} ms")]
    Timeout {
        /// The time waited, in milliseconds.
        after_ms: u64,
    },
    /// The plugin's queue is at its bound. Nothing was stored; a retry helps once there is room.
    #[error("the queue is full: {description}")]
    QueueFull {
        /// The broker's words.
        description: String,
    },
    /// As many tasks wait for their time as may. Nothing was stored; a retry helps once some are due.
    #[error(
        "as many tasks wait for their time as may (stores.delayed_max_messages, stores.delayed_max_bytes)"
    )]
    ScheduleFull,
    /// As many keys are kept as may. Nothing was stored; a retry helps once some have expired.
    #[error("as many keys are kept as may ({option}): {description}")]
    KeysFull {
        /// The option that bounds them.
        option: &'static str,
        /// The broker's words.
        description: String,
    },
    /// Another task has the unique key. Nothing was stored; a retry helps once that one has ended.
    #[error("the task {holder} has its unique key, and has not ended")]
    KeyHeld {
        /// Who has it.
        holder: TaskId,
    },
    /// A dead letter has no body: the task's message was gone when a sweeper wrote the letter, or too large to keep.
    #[error(
        "its body is not in the letter, for it was gone, or too large, when the letter was written; enqueue it anew"
    )]
    BodyLost,
    /// Somebody else has written in between. Nothing was stored; read again.
    #[error("somebody else has written in between")]
    Conflict {
        /// The sequence that the subject stands at, where the broker said it.
        last_sequence: Option<u64>,
    },
    /// The broker refuses. An operator must look.
    #[error("the broker refuses ({code}): {description}")]
    Refused {
        /// NATS' error code, such as 10059.
        code: u32,
        /// The broker's words.
        description: String,
    },
    /// Streams or consumers differ from the settings. An operator must correct one or the other.
    #[error("the broker's streams and consumers differ from the settings: {}; {DIFFERENCES_REMEDY}", list(.0))]
    Layout(Vec<Difference>),
    /// The envelope is malformed; its maker must correct it.
    #[error("the task cannot be published: {0}")]
    Envelope(#[from] EnvelopeError),
    /// What the broker holds or answers cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// What was read.
        what: String,
        /// Why it cannot be.
        reason: String,
    },
    /// The settings cannot work, whatever the broker does.
    #[error("{0}")]
    Settings(String),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), in_doubt: false }
    }

    pub(crate) fn unreadable(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Unreadable { what: what.into(), reason: reason.to_string() }
    }

    /// Whether it is about this one task, and stays so until somebody does something about that one.
    #[must_use]
    pub fn is_of_one_task(&self) -> bool {
        matches!(self, Self::BodyLost | Self::KeyHeld { .. } | Self::Unreadable { .. })
    }

    /// What a full bucket says of itself, in the words of whoever needs a key.
    pub(super) fn of_keys(self, option: &'static str) -> Self {
        match self {
            Self::QueueFull { description } => Self::KeysFull { option, description },
            other => other,
        }
    }

    /// Says whether the same operation may work later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::NoResponders { .. }
                | Self::Timeout { .. }
                | Self::QueueFull { .. }
                | Self::ScheduleFull
                | Self::KeysFull { .. }
        )
    }

    /// What a caller is told when enqueueing, looking up or cancelling a task fails with this.
    #[must_use]
    pub fn problem_code(&self) -> ProblemCode {
        match self {
            Self::QueueFull { .. } => ProblemCode::QueueFull,
            Self::ScheduleFull => ProblemCode::ScheduleFull,
            Self::KeysFull { .. } => ProblemCode::KeysFull,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::NoResponders { .. } => {
                ProblemCode::BrokerUnavailable
            }
            Self::Envelope(EnvelopeError::BodyTooLarge { .. }) => ProblemCode::BodyTooLarge,
            Self::Envelope(EnvelopeError::HeadersTooLarge { .. }) => ProblemCode::HeadersTooLarge,
            Self::Envelope(_) => ProblemCode::MalformedRequest,
            Self::KeyHeld { .. }
            | Self::BodyLost
            | Self::Conflict { .. }
            | Self::Refused { .. }
            | Self::Layout(_)
            | Self::Unreadable { .. }
            | Self::Settings(_) => ProblemCode::Internal,
        }
    }
}
