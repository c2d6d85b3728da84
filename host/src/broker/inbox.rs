//! Where a pull's deliveries arrive, and what the broker says in between.
//!
//! Invariant: what is asked for is never counted too high for ever: requests end, and an end frees what it did not bring.

use std::collections::VecDeque;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use cardcage_protocol::header;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::Broker;

/// Messages of requests that were forgotten, and may come all the same.
const SPARE: usize = 64;

/// One inbox, of one connection, with the requests that answer into it.
pub(super) struct Inbox {
    pub(super) subject: String,
    pub(super) subscriber: Subscriber,
    pub(super) generation: u64,
    /// Deliveries that are asked for and have not come.
    pub(super) asked: usize,
    /// The ends of the requests, in the order in which they were made.
    pub(super) ends: VecDeque<(u64, Instant)>,
    pub(super) next_token: u64,
    /// Messages that have come out of the subscription.
    pub(super) taken: u64,
}

/// What a message without a delivery means for the inbox.
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// All requests are gone; the consumer is still there.
    AskAgain,
    /// The consumer may be gone.
    SetUpAgain,
}

impl Inbox {
    /// The next message; `None` where the subscription has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let message = self.subscriber.next().await;
        self.taken += u64::from(message.is_some());
        message
    }

    /// Ends the subscription, and gives `each` what it still brings: all that the broker has sent, and will ever send.
    ///
    /// The client's own `drain` forgets the subscription before the broker has seen its end, and drops what is on its way
    /// then, so that it waits for a lease that nobody has. Here both are told to end it at the same message, by its number,
    /// and what is lacking to that number is sent from here.
    pub(super) async fn drain(&mut self, broker: &Broker, mut each: impl FnMut(Message)) {
        let lacking = self.asked + self.ends.len() + SPARE;
        let last = self.taken.saturating_add(u64::try_from(lacking).unwrap_or(u64::MAX));
        if self.subscriber.unsubscribe_after(last).await.is_err() {
            return;
        }
        let filler = format!("{}.end", self.subject);
        for _ in 0..lacking {
            if broker.send(filler.clone(), None, None, Bytes::new()).await.is_err() {
                return;
            }
        }
        while let Some(message) = self.subscriber.next().await {
            if message.subject.as_str() != filler {
                each(message);
            }
        }
    }

    pub(super) fn forget_requests(&mut self) {
        self.asked = 0;
        self.ends.clear();
    }

    /// The request with the token in a status message's subject has ended; what it did not bring is free again.
    fn ended(&mut self, message: &Message) {
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        self.ends.retain(|(other, _)| Some(*other) != token);
        let pending = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_PENDING_MESSAGES));
        match pending.and_then(|value| value.as_str().parse::<usize>().ok()) {
            Some(pending) => self.asked = self.asked.saturating_sub(pending),
            None if self.ends.is_empty() => self.asked = 0,
            None => {}
        }
        // No request stands any more: whatever the count says, nothing is on its way.
        if self.ends.is_empty() {
            self.asked = 0;
        }
    }

    pub(super) fn judge(&mut self, status: u16, message: &Message, consumer: &str) -> Verdict {
        let description = message.description.as_deref().unwrap_or_default();
        match status {
            // A heartbeat.
            100 => Verdict::Fine,
            // No messages; expired.
            404 | 408 => {
                self.ended(message);
                Verdict::Fine
            }
            409 if description.contains("Consumer Deleted") || description.contains("Stream Deleted") => {
                tracing::warn!(consumer, "the consumer was deleted; creating it again");
                Verdict::SetUpAgain
            }
            409 if description.contains("Leadership Change") || description.contains("Server Shutdown") => {
                Verdict::AskAgain
            }
            // A bound of the consumer, such as too many waiting requests: it ends this request only.
            409 => {
                tracing::warn!(consumer, description, "the broker ended a pull request");
                self.ended(message);
                Verdict::SetUpAgain
            }
            // No responders: consumer, stream or JetStream is not there (yet, or any more).
            503 => Verdict::SetUpAgain,
            _ => {
                tracing::warn!(
                    consumer,
                    status,
                    description,
                    "the broker answered a pull with an unknown status"
                );
                Verdict::SetUpAgain
            }
        }
    }
}
