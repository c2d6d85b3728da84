//! Core NATS: requests, replies and plain messages, for calls and what belongs to them.
//!
//! Nothing here is stored: a message that nobody receives is gone.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Broker, Error};

/// Longest wait for room in the client's command queue when subscribing.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);

/// As a subscription's last message: the client waits for it for ever, while the server takes the end as immediate, since it
/// reads nine digits at most and any other number as none (nats-server, `processUnsub` and `parseSize` in client.go).
const NO_SUCH_MESSAGE: u64 = 10_000_000_000;

/// A message that came in.
#[derive(Debug, Clone)]
pub struct Incoming {
    message: async_nats::Message,
}

impl Incoming {
    /// The subject that it was published on.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// Where an answer is expected.
    #[must_use]
    pub fn reply(&self) -> Option<&str> {
        self.message.reply.as_ref().map(async_nats::Subject::as_str)
    }

    /// The payload; cheap to clone.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.message.payload.clone()
    }
}

/// A subscription. It survives reconnects; what is published meanwhile is lost. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    subscriber: Subscriber,
    /// Not the broker: that ends with its last holder, and a subscription is none.
    client: Client,
}

impl Subscription {
    /// The next message; `None` when the connection is closed for good, or after [`Subscription::drain`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.subscriber.next().await.map(|message| Incoming { message })
    }

    /// Asks for no more; what is on its way still comes, then [`Subscription::next`] gives `None`.
    ///
    /// The client's own `drain` forgets the subscription before the server has seen its end and drops what is on its way
    /// then: a call that nobody answers. Here the client keeps it until a message to itself, sent after the end, has come
    /// back: what the server has sent before that one is here too, and it sends nothing more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection does not take it.
    pub async fn drain(&mut self) -> Result<(), Error> {
        let gone = || Error::unavailable("the connection does not take data");
        let (client, subscriber) = (&self.client, &mut self.subscriber);
        let echo = async {
            subscriber.unsubscribe_after(NO_SUCH_MESSAGE).await.map_err(|_| gone())?;
            let own = client.new_inbox();
            let mut echo = client.subscribe(own.clone()).await.map_err(|_| gone())?;
            client.publish(own, Bytes::new()).await.map_err(|_| gone())?;
            echo.next().await.ok_or_else(gone)
        };
        if !matches!(timeout(SUBSCRIBE_MAX, echo).await, Ok(Ok(_))) {
            tracing::debug!("a subscription ends without a word from the broker");
        }
        match timeout(SUBSCRIBE_MAX, subscriber.unsubscribe()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(gone()),
        }
    }
}

impl Broker {
    /// Sends a call and waits for its reply.
    ///
    /// # Errors
    /// [`Error::NoResponders`] at once when no worker listens, [`Error::Timeout`] after `wait`, [`Error::Unavailable`].
    pub async fn call(&self, subject: String, payload: Bytes, wait: Duration) -> Result<Bytes, Error> {
        self.request(subject, None, payload, wait).await.map(|message| message.payload)
    }

    /// Publishes a message to whoever listens.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<(), Error> {
        self.send(subject, None, None, payload).await
    }

    /// Publishes a message whose receiver answers to `reply`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn publish_with_reply(
        &self,
        subject: String,
        reply: String,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.send(subject, Some(reply), None, payload).await
    }

    /// A fresh subject that nobody else uses, for answers.
    #[must_use]
    pub fn new_inbox(&self) -> String {
        self.client().new_inbox()
    }

    /// Listens on a subject. This also works while the connection is down: it counts from the reconnect on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection does not take it; [`Error::Refused`] when the subject is none.
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, Error> {
        self.subscribed(timeout(SUBSCRIBE_MAX, self.client().subscribe(subject)).await)
    }

    /// Listens on a subject, sharing its messages with everyone of the same group.
    ///
    /// # Errors
    /// As [`Broker::subscribe`].
    pub async fn subscribe_shared(&self, subject: String, group: &str) -> Result<Subscription, Error> {
        self.subscribed(
            timeout(SUBSCRIBE_MAX, self.client().queue_subscribe(subject, group.to_owned())).await,
        )
    }

    fn subscribed(
        &self,
        outcome: Result<Result<Subscriber, async_nats::SubscribeError>, tokio::time::error::Elapsed>,
    ) -> Result<Subscription, Error> {
        match outcome {
            Ok(Ok(subscriber)) => Ok(Subscription { subscriber, client: self.client().clone() }),
            Ok(Err(error)) => Err(Error::Refused { code: 0, description: error.to_string() }),
            Err(_) => Err(Error::unavailable("the connection does not take data")),
        }
    }
}
