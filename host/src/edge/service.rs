//! One request: limits, routing, and the answer by placement.

use super::body::{self, EdgeBody, ReadError, Received};
use super::cutoff::Cutoff;
use super::head::{self, RequestId};
use super::router::{Matched, Route, Router};
use super::{enqueue, forward, inline, problem_pages, respond, tasks};
use crate::broker::Broker;
use crate::loader::Placement;
use crate::quarantine::Quarantines;
use crate::stream::{Mux, Silence};
use cardcage_protocol::{InstanceId, Problem, ProblemCode, Subjects, limits};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The edge's bounds.
#[derive(Debug, Clone, Copy)]
pub struct EdgeLimits {
    /// Largest request body.
    pub body_max_bytes: usize,
    /// Largest request head.
    pub headers_max_bytes: usize,
    /// Largest reply.
    pub reply_max_bytes: usize,
    /// Largest body of a task.
    pub task_body_max_bytes: usize,
    /// Deadline of a call.
    pub call_timeout: Duration,
    /// Deadline of an enqueue.
    pub enqueue_timeout: Duration,
    /// Longest silence in a stream.
    pub silence: Silence,
    /// Requests at the same time.
    pub in_flight_max: usize,
    /// Of these, so many may wait for a task's end or stream its events.
    pub followers_max: usize,
}

/// The edge of one API instance. Shared by all connections.
#[derive(Debug)]
pub struct Edge {
    pub(super) broker: Broker,
    pub(super) subjects: Subjects,
    pub(super) instance: InstanceId,
    pub(super) mux: Arc<Mux>,
    pub(super) limits: EdgeLimits,
    pub(super) quarantines: Quarantines,
    router: Router,
    openapi: Value,
    places: Arc<Semaphore>,
    cutoff: Cutoff,
    /// Comes when the drain begins: whoever only waits for a task leaves.
    pub(super) leaving: Arc<Cutoff>,
    pub(super) followers: Arc<Semaphore>,
    counters: Counters,
}

/// What the edge has answered, by class of status.
#[derive(Debug, Default)]
struct Counters {
    classes: [AtomicU64; 6],
}

/// A request after its head was read.
pub(super) struct Arrived<'a> {
    pub(super) id: RequestId,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) traceparent: String,
    pub(super) deadline: Instant,
    pub(super) deadline_unix_ms: u64,
}

impl Edge {
    /// An edge around a routing table.
    #[must_use]
    pub fn new(
        broker: Broker,
        instance: InstanceId,
        mux: Arc<Mux>,
        limits: EdgeLimits,
        quarantines: Quarantines,
        mounted: &[super::Mounted],
        router: Router,
    ) -> Self {
        Self {
            subjects: broker.subjects().clone(),
            broker,
            instance,
            mux,
            openapi: super::openapi::merge(mounted),
            router,
            places: Arc::new(Semaphore::new(limits.in_flight_max)),
            limits,
            quarantines,
            cutoff: Cutoff::default(),
            leaving: Arc::default(),
            followers: Arc::new(Semaphore::new(limits.followers_max)),
            counters: Counters::default(),
        }
    }

    /// How many requests are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight_max.saturating_sub(self.places.available_permits())
    }

    /// Lets those leave who only wait for a task.
    pub(super) fn leave(&self) {
        self.leaving.now();
    }

    /// Gives up on every request under way: its caller gets 503, its handler is cancelled.
    pub(super) fn cut_off(&self) {
        self.cutoff.now();
    }

    /// Answers so far, by the status' first digit.
    #[must_use]
    pub fn answered(&self) -> [u64; 6] {
        self.counters.classes.each_ref().map(|class| class.load(Ordering::Relaxed))
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<EdgeBody> {
        let id = RequestId::generate();
        let response = match self.places.clone().try_acquire_owned() {
            Ok(place) => tokio::select! {
                biased;
                response = self.routed(request, id, place) => response,
                () = self.cutoff.came() => respond::code(ProblemCode::ShuttingDown, id),
            },
            Err(_) => respond::code(ProblemCode::Overloaded, id),
        };
        let class = usize::from(response.status().as_u16() / 100);
        if let Some(counter) = self.counters.classes.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        response
    }

    async fn routed(
        &self,
        request: Request<Incoming>,
        id: RequestId,
        place: OwnedSemaphorePermit,
    ) -> Response<EdgeBody> {
        let (mut parts, body) = request.into_parts();
        if head_bytes(&parts.uri, &parts.headers) > self.limits.headers_max_bytes {
            return respond::code(ProblemCode::HeadersTooLarge, id);
        }
        if parts.version == Version::HTTP_11 && !parts.headers.contains_key(header::HOST) {
            // RFC 9112, section 3.2.
            let detail = "An HTTP/1.1 request needs a Host header.";
            return respond::problem(Problem::new(ProblemCode::MalformedRequest).detail(detail), id);
        }
        let path = parts.uri.path();
        let route = match self.router.find(&parts.method, path) {
            Matched::Route(route) => route,
            Matched::Methods(allow) => return wrong_method(allow, id),
            Matched::Nothing => return self.own(&parts, id, place).await,
        };
        head::with_host(&mut parts.headers, &parts.uri);
        let timeout = match route.placement {
            Placement::Enqueue => self.limits.enqueue_timeout,
            Placement::Worker | Placement::Inline => self.limits.call_timeout,
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.get(route.prefix_len..).unwrap_or("/");
        let incoming = Arrived {
            id,
            method: &parts.method,
            path: if path.is_empty() { "/" } else { path },
            headers: &parts.headers,
            traceparent: head::traceparent(&parts.headers, id),
            deadline: Instant::now() + timeout,
            deadline_unix_ms: self.broker.now_unix_ms().saturating_add(millis(timeout)),
        };
        let inline_max = limits::INLINE_BODY_MAX_BYTES;
        let max = match route.placement {
            Placement::Enqueue => self.limits.task_body_max_bytes.min(self.limits.body_max_bytes),
            Placement::Worker | Placement::Inline => self.limits.body_max_bytes,
        };
        let reading = body::read(body, inline_max.min(max), max, self.limits.silence.0);
        // What fits into one message must be here within a call's time, however it trickles.
        let received = match tokio::time::timeout(self.limits.call_timeout, reading).await {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => return unreadable(error, max, id),
            Err(_) => return unreadable(ReadError::Slow, max, id),
        };
        let fault = received.fault();
        let response = self.placed(route, &incoming, received, place).await;
        match fault.and_then(|fault| fault.get()) {
            Some(error) => unreadable(error, max, id),
            None => respond::with_id(response, id),
        }
    }

    async fn placed(
        &self,
        route: &Arc<Route>,
        incoming: &Arrived<'_>,
        received: Received,
        place: OwnedSemaphorePermit,
    ) -> Response<EdgeBody> {
        match (route.placement, received) {
            (Placement::Inline, received) => inline::answer(self, route, incoming, received, place).await,
            (Placement::Worker, received) => forward::answer(self, route, incoming, received, place).await,
            (Placement::Enqueue, Received::Whole(body)) => enqueue::answer(self, route, incoming, body).await,
            (Placement::Enqueue, Received::More(..)) => respond::code(ProblemCode::BodyTooLarge, incoming.id),
        }
    }

    /// The host's own routes.
    async fn own(&self, parts: &Parts, id: RequestId, place: OwnedSemaphorePermit) -> Response<EdgeBody> {
        let (method, path) = (&parts.method, parts.uri.path());
        if let Some(task) = path.strip_prefix("/tasks/") {
            return tasks::answer(self, method, task, parts.uri.query(), id, place).await;
        }
        let is_own = path == "/openapi.json" || path == "/problems" || path.starts_with("/problems/");
        if !is_own {
            return respond::code(ProblemCode::NoSuchRoute, id);
        }
        if *method != Method::GET && *method != Method::HEAD {
            return wrong_method("GET, HEAD", id);
        }
        match path {
            "/openapi.json" => respond::json(StatusCode::OK, &self.openapi, id),
            path => problem_pages::answer(path, id),
        }
    }
}

pub(super) fn wrong_method(allow: &str, id: RequestId) -> Response<EdgeBody> {
    let problem = Problem::new(ProblemCode::MethodNotAllowed).detail(format!("This path takes {allow}."));
    let mut response = respond::problem(problem, id);
    if let Ok(allow) = http::HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn unreadable(error: ReadError, max: usize, id: RequestId) -> Response<EdgeBody> {
    match error {
        ReadError::TooLarge => {
            let detail = format!("At most {max} bytes are accepted.");
            let mut response = respond::problem(Problem::new(ProblemCode::BodyTooLarge).detail(detail), id);
            // The rest of the body is not read.
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
            response
        }
        ReadError::Broken => {
            respond::problem(Problem::new(ProblemCode::MalformedRequest).detail("The body broke off."), id)
        }
        ReadError::Slow => {
            let detail = "The body came too slowly.";
            respond::problem(Problem::new(ProblemCode::MalformedRequest).detail(detail), id)
        }
    }
}

fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().fold(path, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
