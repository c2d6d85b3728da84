//! Connections: accept, serve HTTP/1.1 or HTTP/2, and drain.
//!
//! A drain closes what is idle at once. Where another child has taken over the listener, idle connections of HTTP/1 linger:
//! a request may be on its way on each, and would meet a closed door. It is answered here, with the word that the connection
//! ends, so that the next one is made to the other child. HTTP/2 says for itself what it still answers.

use super::activity::Activity;
use super::patience::Patient;
use super::service::Edge;
use super::unparsable::{AnswersUnparsable, Exchanges};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// hyper's smallest buffer for a head, so that a head somewhat over the edge's bound is the edge's to answer.
const HEAD_BUFFER_MIN_BYTES: usize = 64 * 1024;

/// Time for the answers to those who are cut off at the end of the grace. The process' watchdog waits little longer.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Time for a connection that is closed for want of requests to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where nobody said how.
const AT_ONCE: Departure = Departure { grace: Duration::ZERO, is_followed: false };

/// Longest that an idle connection lingers after a handover.
const LINGER: Duration = Duration::from_secs(2);

/// How a server is to go.
#[derive(Debug, Clone, Copy)]
pub struct Departure {
    /// Time for what is under way.
    pub grace: Duration,
    /// Whether another one answers on the listener.
    pub is_followed: bool,
}

impl Departure {
    fn linger(&self) -> Duration {
        if self.is_followed { LINGER.min(self.grace / 2) } else { Duration::ZERO }
    }
}

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Time a client has to send a request's head, and may be without a request.
    pub header_read_timeout: Duration,
    /// Longest time in which a caller takes nothing of what is sent to it.
    pub write_timeout: Duration,
    /// Largest head.
    pub headers_max_bytes: usize,
    /// Connections at the same time; further ones wait in the listener's backlog.
    pub connections_max: usize,
}

/// A server on a listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    edge: Arc<Edge>,
    options: ServerOptions,
}

impl Server {
    /// A server on a listener that the supervisor has bound.
    ///
    /// # Errors
    /// Where the runtime cannot take the listener over.
    pub fn new(
        listener: std::net::TcpListener,
        edge: Arc<Edge>,
        options: ServerOptions,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, edge, options })
    }

    /// Accepts connections and serves them until `stop`, and has given up the listener when it returns. The departure is set
    /// before the stop.
    pub async fn accept_until(self, stop: CancellationToken, departure: Arc<OnceLock<Departure>>) -> Leaving {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // The edge's own bound is checked after parsing; hyper's is beyond it, and ends the connection.
        let buffer = self.options.headers_max_bytes.saturating_add(1024).max(HEAD_BUFFER_MIN_BYTES);
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_read_timeout)
            .max_buf_size(buffer);
        // No `pipeline_flush`: it keeps hyper's answer to an unparsable request from being written.
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(buffer).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .max_concurrent_streams(256);
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.options.connections_max));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else { continue };
            // Small answers must not wait for a full segment.
            let _ = stream.set_nodelay(true);
            let (edge, exchanges, activity) = (self.edge.clone(), Exchanges::default(), Activity::new());
            let (watched, leaving) = (activity.clone(), stop.clone());
            let stream = Patient::new(stream, self.options.write_timeout);
            let stream = AnswersUnparsable::new(stream, exchanges.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let is_multiplexed = request.version() >= Version::HTTP_2;
                let exchange = exchanges.begin(request.version(), activity.begin(is_multiplexed));
                let (edge, leaving) = (edge.clone(), leaving.clone());
                async move {
                    let mut response = edge.answer(request).await;
                    if leaving.is_cancelled() && !is_multiplexed {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response.map(|body| exchange.of(body)))
                }
            });
            let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
            let (stop, idle_max) = (stop.clone(), self.options.header_read_timeout);
            let departure = departure.clone();
            connections.spawn(async move {
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    biased;
                    ended = connection.as_mut() => ended,
                    () = watched.idle_for(idle_max) => {
                        connection.as_mut().graceful_shutdown();
                        // A peer that does not close its end is left alone.
                        tokio::time::timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
                    }
                    () = async {
                        stop.cancelled().await;
                        if !watched.is_multiplexed() {
                            watched.idle_for(known(&departure).linger()).await;
                        }
                    } => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
        drop(self.listener);
        self.edge.leave();
        Leaving { edge: self.edge, connections, departure }
    }
}

/// A server that accepts no more connections, and still has some.
#[derive(Debug)]
pub struct Leaving {
    edge: Arc<Edge>,
    connections: TaskTracker,
    departure: Arc<OnceLock<Departure>>,
}

impl Leaving {
    /// Lets requests under way end, for the grace at most, after which they are answered 503. Answers whether all ended by
    /// themselves.
    pub async fn end(self) -> bool {
        self.connections.close();
        let mut ended = std::pin::pin!(self.connections.wait());
        if tokio::time::timeout(known(&self.departure).grace, &mut ended).await.is_ok() {
            return true;
        }
        self.edge.cut_off();
        let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
        false
    }
}

fn known(departure: &OnceLock<Departure>) -> Departure {
    *departure.get().unwrap_or(&AT_ONCE)
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Out of descriptors or memory: a pause lets some come back; spinning would not.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
