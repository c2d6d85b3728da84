//! The pump: moves a plugin's due tasks into its queue.
//!
//! JetStream cannot have both a bounded queue and schedules on one stream, so a due task takes one hop. The hop loses
//! and doubles nothing: it is published under its own message id, acknowledged by the queue, and only then removed.
//!
//! Invariants: a due task leaves the schedule stream only when its queue has stored it, or when it can never be one; one that
//! was handed out before is looked for first, for a queue knows a message id again for two minutes only. A killed broker may
//! hand out again what was moved and acknowledged, as if for the first time, and has forgotten the message ids of what has
//! left the queue since: so what is moved in the first lease of a connection has its record read before it starts.
//! A queue that is full keeps its own due tasks waiting (they come again after a lease), and no other plugin's: each has
//! a consumer of its own. A task that the broker fires before its time is kept until then (`early`).

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use cardcage_protocol::{Name, TaskAddress, TaskEnvelope, header};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::Delivery;
use super::early::{self, EARLY_MAX, EarlyRoom};
use super::firing::take_up;
use super::publish::set;
use super::{Ack, Broker, ConsumerSpec, DeadLetter, Error, Pull, PullHealth, Settling};
use crate::failpoint::{Point, reach};

/// Due tasks that are moved at the same time.
const IN_FLIGHT_MAX: usize = 256;
/// How long an outage may last before what is here is left for another lease. Less than the time for which queues know
/// message ids.
const OUTAGE_MAX: Duration = Duration::from_secs(10);
/// Time for one publish into a queue.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Moves due tasks for as long as it runs. Any number may run for one plugin: they share its consumer.
#[derive(Debug)]
pub struct Pump {
    broker: Broker,
    pull: Pull,
    cargo: Cargo,
}

/// What a pump moves.
#[derive(Debug, Clone, Copy)]
enum Cargo {
    /// Tasks whose time has come.
    Due,
    /// Firings of schedules.
    Slots,
}

impl Pump {
    /// The pump of this plugin; it does nothing before [`Pump::run`].
    #[must_use]
    pub fn new(broker: &Broker, plugin: &Name) -> Self {
        let spec = ConsumerSpec::pump(broker.options(), broker.subjects(), plugin);
        Self { broker: broker.clone(), pull: Pull::new(broker, spec), cargo: Cargo::Due }
    }

    /// The pump that makes tasks of the firings of this plugin's schedules.
    #[must_use]
    pub fn slots(broker: &Broker, plugin: &Name) -> Self {
        let spec = ConsumerSpec::slots(broker.options(), broker.subjects(), plugin);
        Self { broker: broker.clone(), pull: Pull::new(broker, spec), cargo: Cargo::Slots }
    }

    /// Tells others whether it is consuming.
    #[must_use]
    pub fn health(&self) -> PullHealth {
        self.pull.health()
    }

    /// Runs until `stop` is ready; then hands back what it has not begun and waits for what it has.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        // Places that are free and not yet demanded come back through this channel.
        let (freed, mut free) = tokio::sync::mpsc::unbounded_channel::<()>();
        tokio::pin!(stop);
        // Whether a slot is missed, or a task early, is judged by the broker's time.
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = self.broker.wait_for_time() => {}
        }
        let hands = Arc::new(Hands {
            cargo: self.cargo,
            slots: Semaphore::new(IN_FLIGHT_MAX),
            early: EarlyRoom::new(),
            freed,
            settling: Settling::new(self.broker.options().lease, self.broker.link().generation),
            stopping: CancellationToken::new(),
            broker: self.broker,
        });
        let moves = TaskTracker::new();
        self.pull.add_demand(IN_FLIGHT_MAX);
        loop {
            let delivery = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(()) = free.recv() => {
                    self.pull.add_demand(1);
                    continue;
                }
                delivery = self.pull.next() => delivery,
            };
            let hands = hands.clone();
            moves.spawn(async move { hands.take(&delivery).await });
        }
        hands.stopping.cancel();
        for delivery in self.pull.close().await {
            hands.hand_back(&delivery).await;
        }
        moves.close();
        let _ = tokio::time::timeout(PUBLISH_TIMEOUT, moves.wait()).await;
    }
}

/// The right to one delivery; when it is dropped, another one is asked for.
struct Place(UnboundedSender<()>);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// What a pump moves with.
struct Hands {
    broker: Broker,
    cargo: Cargo,
    /// For what is moved now. A few more may come than were demanded: they wait here for their turn.
    slots: Semaphore,
    /// For what is kept until its time.
    early: EarlyRoom,
    freed: UnboundedSender<()>,
    settling: Settling,
    stopping: CancellationToken,
}

impl Hands {
    /// Deals with one delivery; another one is asked for in its place.
    async fn take(&self, delivery: &Delivery) {
        let received = Instant::now();
        let mut place = Some(Place(self.freed.clone()));
        let settling = self.is_settling();
        let mut kept = None;
        let mut was_early = false;
        while let Some(left) = self.early_by(delivery, received) {
            if left > EARLY_MAX {
                let subject = delivery.subject();
                tracing::warn!(
                    subject,
                    ?left,
                    "a task has come long before its time; it is left for a lease"
                );
                return;
            }
            was_early = true;
            if kept.is_none() {
                kept = self.early.try_enter(delivery);
                // Nothing that is due has to wait for it.
                place = place.filter(|_| kept.is_none());
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return self.hand_back(delivery).await,
                () = tokio::time::sleep(left) => {}
            }
        }
        // An outage that is over soon costs no lease.
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => return self.hand_back(delivery).await,
            _ = self.broker.wait_connected(OUTAGE_MAX) => {}
        }
        // The semaphore is never closed.
        let slot = self.slots.acquire().await;
        // A connection that came back while it was kept counts as well.
        let may_be_second = delivery.num_delivered > 1 || settling || self.is_settling();
        match self.cargo {
            // One that was cancelled while it was kept says so in its record only.
            Cargo::Due => move_one(&self.broker, delivery, may_be_second || was_early).await,
            Cargo::Slots => take_up(&self.broker, delivery, may_be_second).await,
        }
        drop((slot, kept, place));
    }

    /// How long a delivery has to wait; `None`: its time has come.
    fn early_by(&self, delivery: &Delivery, received: Instant) -> Option<Duration> {
        match self.cargo {
            Cargo::Due => early::by(&self.broker, delivery, received),
            Cargo::Slots => None,
        }
    }

    fn is_settling(&self) -> bool {
        self.settling.is_settling(self.broker.link().generation)
    }

    async fn hand_back(&self, delivery: &Delivery) {
        let _ = self.broker.ack(delivery.ack_subject(), Ack::HandBack).await;
    }
}

/// Moves one due task. What fails is left where it is: its lease ends, and it comes again.
async fn move_one(broker: &Broker, delivery: &Delivery, may_be_second: bool) {
    let ack = match read(broker, delivery) {
        Ok((address, envelope)) => {
            match move_on(broker, delivery, &address, &envelope, may_be_second).await {
                Ok(()) => Ack::Done,
                Err(error) => {
                    tracing::warn!(id = %address.id, plugin = %address.plugin, %error, "a due task cannot be queued yet");
                    return;
                }
            }
        }
        Err(error) => match bury(broker, delivery, &error).await {
            Ok(()) => Ack::Terminate,
            Err(error) => {
                tracing::warn!(subject = delivery.subject(), %error, "an unreadable due task cannot be put aside yet");
                return;
            }
        },
    };
    if let Err(error) = broker.ack(delivery.ack_subject(), ack).await {
        // It comes again, and the queue knows its message id.
        tracing::debug!(subject = delivery.subject(), %error, "a moved task was not acknowledged");
    }
}

fn read(
    broker: &Broker,
    delivery: &Delivery,
) -> Result<(TaskAddress, TaskEnvelope), cardcage_protocol::EnvelopeError> {
    let address = broker.subjects().parse_due(delivery.subject())?;
    let envelope = TaskEnvelope::decode_at(address.clone(), task_headers(delivery), delivery.payload())?;
    Ok((address, envelope))
}

/// The headers without those that belong to the hop that ends here.
fn task_headers(delivery: &Delivery) -> impl Iterator<Item = (&str, &str)> {
    delivery.headers().filter(|(name, _)| !name.starts_with(header::NATS_PREFIX) && *name != header::DUE_AT)
}

async fn move_on(
    broker: &Broker,
    delivery: &Delivery,
    address: &TaskAddress,
    envelope: &TaskEnvelope,
    may_be_second: bool,
) -> Result<(), Error> {
    // Somebody had it before, and may have died between its publish and the acknowledgement; perhaps longer ago than the
    // queue knows message ids.
    if delivery.num_delivered > 1
        && broker.has_gone_on(&envelope.plugin, envelope.id, envelope.attempt).await?
    {
        return Ok(());
    }
    publish(broker, delivery, address, envelope, may_be_second).await?;
    reach(Point::AfterDuePublished);
    Ok(())
}

async fn publish(
    broker: &Broker,
    delivery: &Delivery,
    address: &TaskAddress,
    envelope: &TaskEnvelope,
    may_be_second: bool,
) -> Result<(), Error> {
    // The headers as they came, not the envelope encoded anew: a neighbouring version may have written more of them.
    let mut headers = HeaderMap::new();
    for (name, value) in task_headers(delivery) {
        let unreadable = |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
        let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
        let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
        headers.insert(name, value);
    }
    // Of any later attempt it is read in any case.
    if may_be_second && envelope.attempt == 1 {
        set(&mut headers, header::UNPARKED, "1")?;
    }
    set(&mut headers, header::NATS_MSG_ID, &envelope.message_id())?;
    let subject = broker.subjects().task(address);
    broker.publish_stored(&subject, headers, delivery.payload(), PUBLISH_TIMEOUT).await?;
    Ok(())
}

/// A message that no worker will ever be able to read becomes a dead letter, if its subject still says whose it is.
async fn bury(
    broker: &Broker,
    delivery: &Delivery,
    reason: &cardcage_protocol::EnvelopeError,
) -> Result<(), Error> {
    tracing::error!(subject = delivery.subject(), %reason, "a due task is unreadable and will not run");
    let Ok(address) = broker.subjects().parse_due(delivery.subject()) else { return Ok(()) };
    let payload = delivery.payload();
    if payload.len() > cardcage_protocol::limits::TASK_BODY_MAX_BYTES {
        return Ok(());
    }
    let envelope = TaskEnvelope::new(address, "unknown".into(), delivery.stored_at, payload);
    let reason = reason.to_string();
    let letter = DeadLetter {
        envelope: &envelope,
        reason: &reason,
        code: "malformed_envelope",
        error: None,
        attempts: &[],
        attempts_omitted: 0,
    };
    broker.publish_dead(letter, PUBLISH_TIMEOUT).await
}
