//! One delivery: a message and the right to work on it until the lease ends.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use cardcage_protocol::{EnvelopeError, Subjects, TaskEnvelope, Timestamp};

use super::publish::pairs;

/// A message that the broker handed out. It comes again unless it is acknowledged before its lease ends.
#[derive(Debug, Clone)]
pub struct Delivery {
    message: Message,
    /// How often it was handed out, this time included.
    pub num_delivered: u64,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// When the broker stored it.
    pub stored_at: Timestamp,
    /// How many more its consumer had to deliver.
    pub(super) waiting: u64,
}

impl Delivery {
    /// Reads a message; `None` when it is none that JetStream delivered.
    pub(super) fn read(message: Message) -> Option<Self> {
        let facts = AckFacts::read(message.reply.as_ref()?)?;
        Some(Self {
            num_delivered: facts.num_delivered,
            stream_sequence: facts.stream_sequence,
            stored_at: Timestamp::from_unix_ms(facts.stored_at_unix_ns / 1_000_000),
            waiting: facts.waiting,
            message,
        })
    }

    /// The subject that it was stored under.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// Where to acknowledge it (see [`super::Ack`]).
    #[must_use]
    pub fn ack_subject(&self) -> &str {
        self.message.reply.as_ref().map(async_nats::Subject::as_str).unwrap_or_default()
    }

    /// The body; cheap to clone.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.message.payload.clone()
    }

    /// The headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(self.message.headers.as_ref())
    }

    /// Reads it as a ready task.
    ///
    /// # Errors
    /// [`EnvelopeError`] says which header is wrong.
    pub fn envelope(&self, subjects: &Subjects) -> Result<TaskEnvelope, EnvelopeError> {
        TaskEnvelope::decode(subjects, self.subject(), self.headers(), self.payload())
    }

    /// How long ago the broker stored it, by the broker's time `now_unix_ms`.
    #[must_use]
    pub fn age(&self, now_unix_ms: u64) -> Duration {
        Duration::from_millis(now_unix_ms.saturating_sub(self.stored_at.unix_ms()))
    }
}

/// What an acknowledgement subject tells: `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.…`
#[derive(Debug, PartialEq, Eq)]
struct AckFacts {
    num_delivered: u64,
    stream_sequence: u64,
    stored_at_unix_ns: u64,
    waiting: u64,
}

impl AckFacts {
    fn read(subject: &str) -> Option<Self> {
        let tail = subject.strip_prefix("$JS.ACK.")?;
        // Seven tokens in the old form; nine or more, of which two are put in front, in the new one.
        let skip = if tail.split('.').count() >= 9 { 4 } else { 2 };
        let mut tokens = tail.split('.').skip(skip);
        let num_delivered = tokens.next()?.parse().ok()?;
        let stream_sequence = tokens.next()?.parse().ok()?;
        let stored_at_unix_ns = tokens.nth(1)?.parse().ok()?;
        // A hint; everything else is needed.
        let waiting = tokens.next().and_then(|token| token.parse().ok()).unwrap_or(0);
        Some(Self { num_delivered, stream_sequence, stored_at_unix_ns, waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_ack_subjects_are_read() {
        let want = Some(AckFacts {
            num_delivered: 3,
            stream_sequence: 100,
            stored_at_unix_ns: 1_790_230_470_084_404_000,
            waiting: 42,
        });
        assert_eq!(AckFacts::read("$JS.ACK.events.durable.3.100.7.1790230470084404000.42"), want);
        assert_eq!(AckFacts::read("$JS.ACK._.szMp.events.durable.3.100.7.1790230470084404000.42"), want);
        assert_eq!(AckFacts::read("$JS.ACK._.szMp.events.durable.3.100.7.1790230470084404000.42.rand"), want);
        assert_eq!(AckFacts::read("$JS.ACK.events"), None);
        assert_eq!(AckFacts::read("_INBOX.x"), None);
    }
}
