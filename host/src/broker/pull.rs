//! Pulling deliveries: exactly as many as there are free slots, for as long as the process lives.
//!
//! A delivery's lease runs from the moment that the broker sends it, so nothing is fetched ahead. One inbox takes all
//! deliveries of a consumer; requests for more go out as slots become free. Requests die with a connection, a server or
//! a leader, and nobody says so: they are made anew after every reconnect, and when one is silent past its end.
//!
//! Invariants: consumption resumes after any outage without help, also when the consumer or its stream has vanished;
//! no delivery that was received is dropped.
//! Refuses: acknowledging anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use cardcage_protocol::header;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::delivery::Delivery;
use super::{Broker, ConsumerSpec, Error, Link};

/// How long one request stands at the broker.
const EXPIRES: Duration = Duration::from_secs(4);
/// Silence after a request's end that means it is lost.
const MARGIN: Duration = Duration::from_secs(1);
/// First pause after a failed set-up; doubled up to [`SETUP_AGAIN_MAX`].
const SETUP_AGAIN_MIN: Duration = Duration::from_millis(100);
/// Longest pause after a failed set-up: consumption must resume within 10 s of the broker's return.
const SETUP_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Time for subscribing and for draining.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);
/// Largest number of deliveries that one request asks for.
const BATCH_MAX: usize = 10_000;

/// Says whether a [`Pull`] is consuming: set up, and connected.
#[derive(Debug, Clone, Default)]
pub struct PullHealth(Arc<AtomicBool>);

impl PullHealth {
    /// The broker would deliver if there were something to deliver and a free slot.
    #[must_use]
    pub fn is_consuming(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, consuming: bool) {
        self.0.store(consuming, Ordering::Release);
    }
}

/// A standing pull on one consumer.
pub struct Pull {
    broker: Broker,
    spec: ConsumerSpec,
    health: PullHealth,
    link: watch::Receiver<Link>,
    /// Set up on this connection; `None` until then.
    inbox: Option<Inbox>,
    setup_at: Instant,
    setup_pause: Duration,
    /// Received, and not yet given out.
    received: VecDeque<Delivery>,
    /// Free slots: deliveries that may still be given out.
    demand: usize,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("consumer", &self.spec.name).field("demand", &self.demand).finish()
    }
}

/// One inbox, of one connection, with the requests that answer into it.
struct Inbox {
    subject: String,
    subscriber: Subscriber,
    generation: u64,
    /// Deliveries that are asked for and have not come.
    asked: usize,
    /// The ends of the requests, in the order in which they were made.
    ends: VecDeque<(u64, Instant)>,
    next_token: u64,
}

/// What a message without a delivery means for the inbox.
enum Verdict {
    /// Go on.
    Fine,
    /// All requests are gone; the consumer is still there.
    AskAgain,
    /// The consumer may be gone.
    SetUpAgain,
}

impl Pull {
    /// A pull on a consumer, which is created if it is missing as soon as the broker can be reached. Nothing is asked
    /// for before [`Pull::add_demand`].
    #[must_use]
    pub fn new(broker: &Broker, spec: ConsumerSpec) -> Self {
        Self {
            link: broker.watch(),
            broker: broker.clone(),
            spec,
            health: PullHealth::default(),
            inbox: None,
            setup_at: Instant::now(),
            setup_pause: SETUP_AGAIN_MIN,
            received: VecDeque::new(),
            demand: 0,
        }
    }

    /// Tells others whether this pull is consuming.
    #[must_use]
    pub fn health(&self) -> PullHealth {
        self.health.clone()
    }

    /// The consumer's name, for logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Says that `slots` more deliveries can be taken. Each delivery given out takes one back.
    pub fn add_demand(&mut self, slots: usize) {
        self.demand = self.demand.saturating_add(slots);
    }

    /// The next delivery. After a reconnect a few more may come than were demanded. Cancel-safe; it never ends.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.received.pop_front() {
                self.demand = self.demand.saturating_sub(1);
                return delivery;
            }
            self.follow_link();
            self.set_up_if_due().await;
            self.ask().await;
            let wake_at = self.wake_at();
            let Some(inbox) = &mut self.inbox else {
                tokio::select! {
                    changed = self.link.changed() => lost_if_closed(changed).await,
                    () = tokio::time::sleep_until(wake_at) => {}
                }
                continue;
            };
            tokio::select! {
                biased;
                message = inbox.subscriber.next() => match message {
                    Some(message) => self.take(message),
                    None => self.abandon(),
                },
                changed = self.link.changed() => lost_if_closed(changed).await,
                () = tokio::time::sleep_until(wake_at) => self.judge_silence(),
            }
        }
    }

    /// Stops pulling and returns what was received and not given out, to be handed back.
    pub async fn close(mut self) -> Vec<Delivery> {
        self.health.set(false);
        if let Some(mut inbox) = self.inbox.take() {
            // What the server sent before it saw the unsubscribe still arrives, and is handed back too.
            let rest = async {
                if inbox.subscriber.drain().await.is_ok() {
                    while let Some(message) = inbox.subscriber.next().await {
                        self.received.extend(Delivery::read(message));
                    }
                }
            };
            let _ = timeout(SUBSCRIBE_MAX, rest).await;
        }
        self.received.into()
    }

    /// A new connection knows nothing of the requests made on the old one.
    fn follow_link(&mut self) {
        let link = *self.link.borrow_and_update();
        if self.inbox.as_ref().is_some_and(|inbox| inbox.generation != link.generation) {
            self.abandon();
        }
        self.health.set(self.inbox.is_some() && link.connected);
    }

    /// Gives the inbox up, but nothing that has arrived in it. The next one has another subject, so that answers to
    /// old requests, should they live on, go nowhere.
    fn abandon(&mut self) {
        if let Some(mut inbox) = self.inbox.take() {
            while let Some(Some(message)) = inbox.subscriber.next().now_or_never() {
                self.received.extend(Delivery::read(message));
            }
        }
        self.setup_at = Instant::now();
    }

    async fn set_up_if_due(&mut self) {
        if self.inbox.is_some() || self.setup_at > Instant::now() || !self.broker.connected() {
            return;
        }
        let generation = self.link.borrow().generation;
        match self.set_up(generation).await {
            Ok(inbox) => {
                self.inbox = Some(inbox);
                self.setup_pause = SETUP_AGAIN_MIN;
                self.health.set(true);
                tracing::debug!(consumer = self.spec.name, "consuming");
            }
            Err(error) => {
                tracing::warn!(consumer = self.spec.name, %error, "cannot consume; trying again");
                self.setup_at = Instant::now() + self.setup_pause;
                self.setup_pause = (self.setup_pause * 2).min(SETUP_AGAIN_MAX);
            }
        }
    }

    async fn set_up(&self, generation: u64) -> Result<Inbox, Error> {
        self.broker.ensure_consumer(&self.spec).await?;
        let subject = self.broker.new_inbox();
        let subscribing = self.broker.client().subscribe(format!("{subject}.*"));
        let subscriber = timeout(SUBSCRIBE_MAX, subscribing)
            .await
            .map_err(|_| Error::unavailable("the connection does not take data"))?
            .map_err(|error| Error::unavailable(error.to_string()))?;
        Ok(Inbox { subject, subscriber, generation, asked: 0, ends: VecDeque::new(), next_token: 0 })
    }

    /// Asks for more when less than half of the demand is covered: a request per delivery would double the traffic.
    async fn ask(&mut self) {
        let Some(inbox) = &mut self.inbox else { return };
        if inbox.asked.saturating_mul(2) >= self.demand {
            return;
        }
        let batch = self.demand.saturating_sub(inbox.asked).min(BATCH_MAX);
        let token = inbox.next_token;
        let expires_ns = u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX);
        let request = json!({ "batch": batch, "expires": expires_ns });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.spec.stream.name, self.spec.name);
        let reply = format!("{}.{token}", inbox.subject);
        let sent = self.broker.send(subject, Some(reply), None, Bytes::from(request.to_string())).await;
        match sent {
            Ok(()) => {
                inbox.next_token += 1;
                inbox.asked += batch;
                inbox.ends.push_back((token, Instant::now() + EXPIRES));
            }
            // The link's next change, or the pause, brings the next attempt.
            Err(_) => self.setup_at = Instant::now() + SETUP_AGAIN_MIN,
        }
    }

    fn take(&mut self, message: Message) {
        let Some(inbox) = &mut self.inbox else { return };
        let verdict = match message.status {
            Some(status) => inbox.judge(status.as_u16(), &message, &self.spec.name),
            None => match Delivery::read(message) {
                Some(delivery) => {
                    inbox.asked = inbox.asked.saturating_sub(1);
                    self.received.push_back(delivery);
                    Verdict::Fine
                }
                None => {
                    tracing::warn!(consumer = self.spec.name, "a message that is no delivery was ignored");
                    Verdict::Fine
                }
            },
        };
        match verdict {
            Verdict::Fine => {}
            Verdict::AskAgain => inbox.forget_requests(),
            Verdict::SetUpAgain => {
                self.abandon();
                self.health.set(false);
                self.setup_at = Instant::now() + self.setup_pause;
                self.setup_pause = (self.setup_pause * 2).min(SETUP_AGAIN_MAX);
            }
        }
    }

    fn judge_silence(&mut self) {
        let Some(inbox) = &mut self.inbox else { return };
        let now = Instant::now();
        while inbox.ends.front().is_some_and(|(_, end)| *end + MARGIN <= now) {
            inbox.ends.pop_front();
        }
        if inbox.ends.is_empty() && inbox.asked > 0 {
            tracing::debug!(
                consumer = self.spec.name,
                asked = inbox.asked,
                "requests were lost; asking again"
            );
            inbox.forget_requests();
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        match &self.inbox {
            None => self.setup_at.max(now + Duration::from_millis(10)),
            Some(inbox) => match inbox.ends.front() {
                Some((_, end)) => *end + MARGIN,
                // Nothing is asked for: either there is no demand, or the request could not be sent.
                None if self.demand > 0 => now + SETUP_AGAIN_MIN,
                None => now + EXPIRES,
            },
        }
    }
}

impl Inbox {
    fn forget_requests(&mut self) {
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

    fn judge(&mut self, status: u16, message: &Message, consumer: &str) -> Verdict {
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

/// The watch closes only when the connection's monitor is gone, at the process's end: nothing will ever come.
async fn lost_if_closed(changed: Result<(), watch::error::RecvError>) {
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
}
