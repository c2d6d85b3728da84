//! Acknowledging a delivery, by its acknowledgement subject.
//!
//! An acknowledgement is a plain publish: it may be lost, and then the task is delivered again. That is why the outcome
//! is recorded first. It is no fence: a former holder's late one is taken too.
//!
//! Refuses: negative acknowledgements with a delay, which would hold up other tasks.

use bytes::Bytes;

use super::{Broker, Error};

/// What to tell the broker about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Finished: remove it.
    Done,
    /// Handed back: deliver it to somebody else now.
    HandBack,
    /// Still at it: the lease starts anew.
    InProgress,
    /// Never deliver it again.
    Terminate,
}

impl Ack {
    /// The payload that NATS knows.
    #[must_use]
    pub const fn payload(self) -> &'static [u8] {
        match self {
            Self::Done => b"+ACK",
            Self::HandBack => b"-NAK",
            Self::InProgress => b"+WPI",
            Self::Terminate => b"+TERM",
        }
    }
}

impl Broker {
    /// Acknowledges a delivery.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection is down: the delivery will come again when its lease ends.
    pub async fn ack(&self, ack_subject: &str, ack: Ack) -> Result<(), Error> {
        self.send(ack_subject.to_owned(), None, None, Bytes::from_static(ack.payload())).await
    }
}
