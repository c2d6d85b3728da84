//! The connection: one handle that everything else hangs on.
//!
//! It reconnects for ever, and says at once when it is down. `async_nats` would queue commands while disconnected and
//! send them later, when their askers have given up: so nothing is handed to it while it is down.
//!
//! Refuses: buffering across an outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use cardcage_protocol::Subjects;
use parking::Parking;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::bucket::Told;
use super::clock::Clock;
use super::lookup::StreamNames;
use super::schedule_room::ScheduleRoom;
use super::{Error, Options, pulse};

/// A lost connection is noticed by an unanswered ping; two may be unanswered.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest wait for room in the client's own command queue.
const PUBLISH_MAX: Duration = Duration::from_secs(1);
/// The monitor looks this often even when no event woke it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether the connection is up, and how often it came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// The connection is up, and the broker answers.
    pub connected: bool,
    /// Counts connections. A change means that requests under way were lost.
    pub generation: u64,
}

/// A handle on the broker. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    options: Options,
    subjects: Subjects,
    link: watch::Receiver<Link>,
    hangs: Arc<AtomicBool>,
    clock: Clock,
    stream_names: StreamNames,
    schedule_room: ScheduleRoom,
    told: Told,
    last_error: Arc<Parking>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("address", &self.inner.options.address())
            .field("link", &self.link())
            .finish()
    }
}

impl Broker {
    /// Starts connecting, and returns at once. It goes on trying until the last handle is dropped.
    ///
    /// # Errors
    /// [`Error::Settings`] when the address or the credentials file cannot be used.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let came_up = Arc::new(AtomicU64::new(0));
        let wake = Arc::new(Notify::new());
        let last_error = Arc::new(Parking::default());
        let mut connect = ConnectOptions::new()
            .name(&options.client_name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(options.connect_timeout)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback({
                let (came_up, wake, last_error) = (came_up.clone(), wake.clone(), last_error.clone());
                let address = options.address();
                move |event| {
                    observe(&event, &address, &came_up, &last_error);
                    wake.notify_one();
                    std::future::ready(())
                }
            });
        if let Some(file) = &options.credentials_file {
            connect = connect.credentials_file(file).await.map_err(|error| {
                Error::Settings(format!("the credentials file {} cannot be read: {error}", file.display()))
            })?;
        }
        let servers: Vec<&str> = options.url.split(',').map(str::trim).collect();
        let client = connect.connect(servers).await.map_err(|error| {
            Error::Settings(format!("broker.url {:?} cannot be used: {error}", options.address()))
        })?;
        let (link_sender, link) = watch::channel(Link::default());
        let hangs = Arc::new(AtomicBool::new(false));
        let subjects = Subjects::new(options.namespace.clone());
        let inner = Inner {
            client: client.clone(),
            subjects,
            link,
            hangs: hangs.clone(),
            clock: Clock::default(),
            stream_names: StreamNames::default(),
            schedule_room: ScheduleRoom::default(),
            told: Told::default(),
            last_error,
            options,
        };
        let pulse = pulse::feel(
            client.clone(),
            inner.subjects.pulse(&format!("{:016x}", fastrand::u64(..))),
            hangs.clone(),
            wake.clone(),
        );
        let broker = Self { inner: Arc::new(inner) };
        tokio::spawn(async move {
            tokio::select! {
                () = monitor(client, came_up, hangs, wake, link_sender) => {}
                () = pulse => {}
            }
        });
        super::clock::keep(&broker);
        Ok(broker)
    }

    /// Says whether the connection is up, and the broker at its other end answers.
    #[must_use]
    pub fn connected(&self) -> bool {
        is_up(&self.inner.client, &self.inner.hangs)
    }

    /// The connection's state, as last observed.
    #[must_use]
    pub fn link(&self) -> Link {
        *self.inner.link.borrow()
    }

    /// Watches the connection's state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// Waits until the connection is up.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not up within `wait`.
    pub async fn wait_connected(&self, wait: Duration) -> Result<(), Error> {
        let mut link = self.watch();
        match timeout(wait, link.wait_for(|link| link.connected)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.down()),
        }
    }

    /// What an operator set.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The names of this installation.
    #[must_use]
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// The broker's time, as well as it is known: milliseconds since 1970. Costs no round trip.
    #[must_use]
    pub fn now_unix_ms(&self) -> u64 {
        self.inner.clock.now_unix_ms()
    }

    /// A time that the broker's clock has reached, whatever a measurement may be off by. Once it is known.
    pub(super) fn reached_unix_ms(&self) -> u64 {
        self.inner.clock.reached_unix_ms()
    }

    /// Whether [`Broker::now_unix_ms`] is the broker's time; at first it is only the local one.
    #[must_use]
    pub fn knows_time(&self) -> bool {
        self.inner.clock.is_measured()
    }

    /// Waits until everything published so far has been handed to the server.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection is down or does not take it within `wait`.
    pub async fn flush(&self, wait: Duration) -> Result<(), Error> {
        self.require_connected()?;
        match timeout(wait, self.inner.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::unavailable(error.to_string())),
            Err(_) => Err(Error::unavailable("the connection does not take data")),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(super) fn schedule_room(&self) -> &ScheduleRoom {
        &self.inner.schedule_room
    }

    pub(super) fn told(&self) -> &Told {
        &self.inner.told
    }

    pub(super) fn stream_names(&self) -> &StreamNames {
        &self.inner.stream_names
    }

    pub(super) fn downgrade(&self) -> WeakBroker {
        WeakBroker(Arc::downgrade(&self.inner))
    }

    fn require_connected(&self) -> Result<(), Error> {
        if self.connected() { Ok(()) } else { Err(self.down()) }
    }

    fn down(&self) -> Error {
        let address = self.inner.options.address();
        if self.inner.hangs.load(Ordering::Relaxed) {
            return Error::unavailable(format!("{address} is connected but does not answer"));
        }
        match self.inner.last_error.read() {
            Some(last) => Error::unavailable(format!("not connected to {address} ({last})")),
            None => Error::unavailable(format!("not connected to {address}")),
        }
    }

    /// One request and its answer, whatever that is. Statuses other than "no responders" are the caller's to read.
    pub(super) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Message, Error> {
        self.require_connected()?;
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        // One timer around all of it: the client's own does not cover the wait for room in its command queue.
        let Ok(outcome) = timeout(wait, self.inner.client.send_request(subject.clone(), request)).await
        else {
            let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::Timeout { after_ms });
        };
        outcome.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::NoResponders { subject },
            RequestErrorKind::TimedOut => Error::Timeout { after_ms: 0 },
            RequestErrorKind::InvalidSubject => Error::Refused { code: 0, description: error.to_string() },
            RequestErrorKind::MaxPayloadExceeded => Error::Refused {
                code: 0,
                description: "the message is larger than the broker's max_payload".into(),
            },
            RequestErrorKind::Other => Error::Unavailable { reason: error.to_string(), in_doubt: true },
        })
    }

    /// One plain publish: `Ok` means handed to the connection, no more.
    pub(super) async fn send(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.require_connected()?;
        let client = &self.inner.client;
        let publish = async {
            match (reply, headers) {
                (None, None) => client.publish(subject, payload).await,
                (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
                (None, Some(headers)) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), Some(headers)) => {
                    client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
            }
        };
        match timeout(PUBLISH_MAX, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::unavailable(error.to_string())),
            Err(_) => Err(Error::unavailable("the connection does not take data")),
        }
    }
}

/// A handle for background work that must not keep the connection alive.
pub(super) struct WeakBroker(std::sync::Weak<Inner>);

impl WeakBroker {
    pub(super) fn upgrade(&self) -> Option<Broker> {
        self.0.upgrade().map(|inner| Broker { inner })
    }
}

/// 50 ms, doubled per attempt, at most [`RECONNECT_MAX`], with a random part so that hosts do not come back in step.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    let full = Duration::from_millis(50).saturating_mul(2u32.saturating_pow(doublings)).min(RECONNECT_MAX);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn observe(event: &Event, address: &str, came_up: &AtomicU64, last_error: &Parking) {
    match event {
        Event::Connected => {
            came_up.fetch_add(1, Ordering::AcqRel);
            last_error.write(None);
            tracing::info!(address, "broker connected");
        }
        Event::Disconnected => tracing::warn!(address, "broker connection lost; reconnecting"),
        Event::SlowConsumer(subscription) => {
            tracing::warn!(
                subscription,
                "messages were dropped because a subscription is not read fast enough"
            );
        }
        Event::ServerError(error) => {
            tracing::warn!(%error, "broker reports an error");
            last_error.write(Some(error.to_string()));
        }
        Event::ClientError(error) => {
            // Said once for each time without a broker, not at each attempt.
            if last_error.write(Some(error.to_string())).is_none() {
                tracing::warn!(address, %error, "the broker cannot be reached; trying until it can");
            }
        }
        Event::LameDuckMode => tracing::info!("broker announces its shutdown"),
        Event::Draining | Event::Closed => tracing::debug!(%event, "broker connection ends"),
    }
}

fn is_up(client: &Client, hangs: &AtomicBool) -> bool {
    client.connection_state() == State::Connected && !hangs.load(Ordering::Relaxed)
}

/// Publishes the connection's state. Events only wake it: they may be dropped, the state may not be missed.
async fn monitor(
    client: Client,
    came_up: Arc<AtomicU64>,
    hangs: Arc<AtomicBool>,
    wake: Arc<Notify>,
    link: watch::Sender<Link>,
) {
    loop {
        let now = Link { connected: is_up(&client, &hangs), generation: came_up.load(Ordering::Acquire) };
        link.send_if_modified(|link| std::mem::replace(link, now) != now);
        let next_look = Instant::now() + LOOK_EVERY;
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep_until(next_look) => {}
            () = link.closed() => return,
        }
    }
}

/// A place for the last error, whose lock cannot poison.
mod parking {
    use std::sync::{Mutex, PoisonError};

    #[derive(Default)]
    pub(super) struct Parking(Mutex<Option<String>>);

    impl Parking {
        /// Answers what was there before.
        pub(super) fn write(&self, text: Option<String>) -> Option<String> {
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), text)
        }

        pub(super) fn read(&self) -> Option<String> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }
}
