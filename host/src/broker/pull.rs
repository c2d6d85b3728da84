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

use async_nats::Message;
use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::delivery::Delivery;
use super::inbox::{Inbox, Verdict};
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
    /// As a lane it gives up what a request did not bring, and tells how much that was.
    lane: Option<LaneMode>,
}

/// How one of several pulls, which share their free slots, asks.
#[derive(Debug, Clone, Copy, Default)]
struct LaneMode {
    /// Requests end as soon as nothing more is there.
    prompt: bool,
    /// Demand that requests did not fill, and that was given up.
    unfilled: usize,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("consumer", &self.spec.name).field("demand", &self.demand).finish()
    }
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
            lane: None,
        }
    }

    /// The same as one of several that share their free slots: see [`super::lanes`].
    pub(super) fn in_lane(broker: &Broker, spec: ConsumerSpec) -> Self {
        Self { lane: Some(LaneMode::default()), ..Self::new(broker, spec) }
    }

    /// Whether the lane's next requests end as soon as nothing more is there.
    pub(super) fn set_prompt(&mut self, prompt: bool) {
        if let Some(lane) = &mut self.lane {
            lane.prompt = prompt;
        }
    }

    /// The demand that the lane's requests did not fill, and that it has given up.
    pub(super) fn take_unfilled(&mut self) -> usize {
        self.lane.as_mut().map_or(0, |lane| std::mem::take(&mut lane.unfilled))
    }

    /// Deliveries that may still be given out.
    pub(super) fn demand(&self) -> usize {
        self.demand
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
            if let Some(delivery) = self.pop() {
                return delivery;
            }
            self.prepare().await;
            self.wait().await;
        }
    }

    /// What has been received.
    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.received.pop_front()?;
        self.demand = self.demand.saturating_sub(1);
        Some(delivery)
    }

    /// Sets up and asks, where that is due. Cancel-safe.
    pub(super) async fn prepare(&mut self) {
        self.follow_link();
        self.set_up_if_due().await;
        self.ask().await;
    }

    /// Waits until there is something to do. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        let wake_at = self.wake_at();
        let Some(inbox) = &mut self.inbox else {
            tokio::select! {
                changed = self.link.changed() => lost_if_closed(changed).await,
                () = tokio::time::sleep_until(wake_at) => {}
            }
            return;
        };
        tokio::select! {
            biased;
            message = inbox.next() => match message {
                Some(message) => self.take(message),
                None => self.abandon(),
            },
            changed = self.link.changed() => lost_if_closed(changed).await,
            () = tokio::time::sleep_until(wake_at) => self.judge_silence(),
        }
    }

    /// Stops pulling and returns what was received and not given out, to be handed back.
    pub async fn close(mut self) -> Vec<Delivery> {
        self.health.set(false);
        if let Some(mut inbox) = self.inbox.take() {
            let rest = inbox.drain(&self.broker, |message| self.received.extend(Delivery::read(message)));
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
            while let Some(Some(message)) = inbox.next().now_or_never() {
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
        Ok(Inbox {
            subject,
            subscriber,
            generation,
            asked: 0,
            ends: VecDeque::new(),
            next_token: 0,
            taken: 0,
        })
    }

    /// Asks for more when less than half of the demand is covered: a request per delivery would double the traffic.
    async fn ask(&mut self) {
        let Some(inbox) = &mut self.inbox else { return };
        let enough = if self.lane.is_some() { inbox.asked } else { inbox.asked.saturating_mul(2) };
        if enough >= self.demand {
            return;
        }
        let batch = self.demand.saturating_sub(inbox.asked).min(BATCH_MAX);
        let token = inbox.next_token;
        let expires_ns = u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX);
        let request = match self.lane {
            Some(LaneMode { prompt: true, .. }) => {
                json!({ "batch": batch, "expires": expires_ns, "no_wait": true })
            }
            _ => json!({ "batch": batch, "expires": expires_ns }),
        };
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
            Some(status) => {
                let before = inbox.asked;
                let verdict = inbox.judge(status.as_u16(), &message, &self.spec.name);
                if let (Some(lane), Verdict::Fine) = (&mut self.lane, &verdict) {
                    let unfilled = before.saturating_sub(inbox.asked);
                    self.demand = self.demand.saturating_sub(unfilled);
                    lane.unfilled += unfilled;
                }
                verdict
            }
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

/// The watch closes only when the connection's monitor is gone, at the process's end: nothing will ever come.
async fn lost_if_closed(changed: Result<(), watch::error::RecvError>) {
    if changed.is_err() {
        std::future::pending::<()>().await;
    }
}
