//! Routes whose handlers run on a worker: the request as a call over NATS.
//!
//! A call is sent again only where it is certain that no handler has started: the worker said `busy`. Everything else
//! that goes wrong is the caller's to judge.

use super::body::{EdgeBody, Received};
use super::head;
use super::inline::Prefixed;
use super::respond;
use super::router::Route;
use super::service::{Arrived, Edge};
use crate::broker::{Broker, Error};
use crate::stream::{self, Line};
use bytes::Bytes;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, InstanceId, Problem, ProblemCode, ReplyKind, Text,
};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

/// Waits between tries after `busy`, doubling, each with jitter.
const BUSY_FIRST: Duration = Duration::from_millis(5);
const BUSY_LONGEST: Duration = Duration::from_millis(200);
/// After so long only `busy`, the caller hears it: waiting longer helps nobody behind it.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// Tells the workers that nobody waits for this call any more, unless it was answered.
struct CancelOnDrop<'a> {
    broker: &'a Broker,
    subject: Option<String>,
}

impl CancelOnDrop<'_> {
    fn answered(&mut self) {
        self.subject = None;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let Some(subject) = self.subject.take() else { return };
        let broker = self.broker.clone();
        tokio::spawn(async move {
            // Best effort: without it the handler runs until its deadline.
            let _ = broker.publish(subject, Bytes::new()).await;
        });
    }
}

/// As [`CancelOnDrop`], for a streamed reply; owns the place among the requests under way too.
struct CancelStream {
    broker: Broker,
    subject: String,
    _place: OwnedSemaphorePermit,
}

impl Drop for CancelStream {
    fn drop(&mut self) {
        let (broker, subject) = (self.broker.clone(), std::mem::take(&mut self.subject));
        tokio::spawn(async move {
            // After a complete stream nobody has the call any more, and nothing happens.
            let _ = broker.publish(subject, Bytes::new()).await;
        });
    }
}

pub(super) async fn answer(
    edge: &Edge,
    route: &Route,
    incoming: &Arrived<'_>,
    received: Received,
    place: OwnedSemaphorePermit,
) -> Response<EdgeBody> {
    if !edge.broker.connected() {
        return respond::code(ProblemCode::BrokerUnavailable, incoming.id);
    }
    let call = CallId::from_bytes(incoming.id.0);
    let (body, rest) = match received {
        Received::Whole(bytes) => (CallBody::Whole(bytes), None),
        Received::More(start, rest) => (CallBody::Stream, Some(Prefixed::new(start, rest))),
    };
    let request = CallRequest {
        call_id: call,
        deadline_unix_ms: incoming.deadline_unix_ms,
        route: Text::from(route.name.as_str()),
        request_id: incoming.id.0,
        caller_instance: Text::from(edge.instance.as_str()),
        header_block: head::block(
            incoming.method,
            incoming.path,
            incoming.headers,
            &incoming.traceparent,
            incoming.id,
        ),
        body,
        ext: Bytes::new(),
    };
    let message = match request.encode() {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(%error, route = route.name.as_str(), "a request exceeds what a call carries");
            return respond::code(ProblemCode::HeadersTooLarge, incoming.id);
        }
    };
    let mut cancel = CancelOnDrop { broker: &edge.broker, subject: Some(edge.subjects.callctl(call)) };
    let line = rest.as_ref().map(|_| edge.mux.open(call));
    let replied = first_reply(edge, route, incoming.deadline, message).await;
    let replied = match (replied, rest, line) {
        (Ok(reply), Some(rest), Some(line)) if reply.kind == ReplyKind::GoAhead => {
            send_body(edge, incoming, call, &reply, rest, line).await
        }
        (replied, _, _) => replied,
    };
    let reply = match replied {
        Ok(reply) => reply,
        Err(problem) => {
            if problem.code != ProblemCode::DeadlineExceeded {
                cancel.answered();
            }
            return respond::problem(problem, incoming.id);
        }
    };
    cancel.answered();
    finish(edge, incoming, call, reply, place)
}

fn finish(
    edge: &Edge,
    incoming: &Arrived<'_>,
    call: CallId,
    reply: CallReply,
    place: OwnedSemaphorePermit,
) -> Response<EdgeBody> {
    let code = match &reply.kind {
        ReplyKind::Done => None,
        ReplyKind::Busy => Some(ProblemCode::WorkerBusy),
        ReplyKind::Crashed => Some(ProblemCode::WorkerCrashed),
        ReplyKind::Expired => Some(ProblemCode::DeadlineExceeded),
        ReplyKind::Refused(code) => Some(ProblemCode::from_code(code).unwrap_or(ProblemCode::PluginError)),
        ReplyKind::GoAhead => Some(ProblemCode::StreamBroken),
    };
    if let Some(code) = code {
        return respond::code(code, incoming.id);
    }
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        return respond::code(ProblemCode::PluginError, incoming.id);
    };
    let is_head = *incoming.method == Method::HEAD;
    let body = match reply.body {
        CallBody::Whole(bytes) if bytes.len() > edge.limits.reply_max_bytes => {
            return respond::code(ProblemCode::ReplyTooLarge, incoming.id);
        }
        CallBody::Whole(bytes) => EdgeBody::whole(bytes),
        CallBody::Stream => {
            let Ok(worker) = InstanceId::new(&reply.worker_instance) else {
                return respond::code(ProblemCode::PluginError, incoming.id);
            };
            let peer = edge.subjects.callio(&worker, call);
            let line = edge.mux.open(call);
            let pieces = stream::receive(edge.broker.clone(), peer, line, edge.limits.silence);
            let held = CancelStream {
                broker: edge.broker.clone(),
                subject: edge.subjects.callctl(call),
                _place: place,
            };
            EdgeBody::stream(Bytes::new(), pieces, edge.limits.reply_max_bytes, Box::new(held))
        }
    };
    respond::plugin(status, &reply.header_block, body, is_head)
}

/// Sends the call until a worker takes it, within the deadline.
async fn first_reply(
    edge: &Edge,
    route: &Route,
    deadline: Instant,
    message: Bytes,
) -> Result<CallReply, Problem> {
    let impatient = (Instant::now() + BUSY_PATIENCE).min(deadline);
    let mut wait = BUSY_FIRST;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reply = match edge.broker.call(route.subject.clone(), message.clone(), left).await {
            Ok(bytes) => CallReply::decode(bytes).map_err(|error| {
                tracing::warn!(%error, route = route.name.as_str(), "a worker's reply cannot be read");
                Problem::new(ProblemCode::PluginError)
            })?,
            Err(error) => return Err(unanswered(&error, route)),
        };
        let pause = wait.mul_f64(0.5 + fastrand::f64());
        if reply.kind != ReplyKind::Busy || Instant::now() + pause >= impatient {
            return Ok(reply);
        }
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(BUSY_LONGEST);
    }
}

fn unanswered(error: &Error, route: &Route) -> Problem {
    match error {
        Error::NoResponders { .. } => {
            let detail = format!("No worker has {} {}.", route.identity.name, route.identity.major);
            Problem::new(ProblemCode::NoWorker).detail(detail).retry_after_s(2)
        }
        Error::Timeout { .. } => Problem::new(ProblemCode::DeadlineExceeded),
        Error::Unavailable { .. } => Problem::new(ProblemCode::BrokerUnavailable),
        other => {
            tracing::error!(error = %other, route = route.name.as_str(), "a call could not be sent");
            Problem::new(ProblemCode::Internal)
        }
    }
}

/// Streams the request's body to the worker that took the call, and waits for its final reply.
async fn send_body(
    edge: &Edge,
    incoming: &Arrived<'_>,
    call: CallId,
    go_ahead: &CallReply,
    rest: Prefixed,
    mut line: Line,
) -> Result<CallReply, Problem> {
    let broken = || Problem::new(ProblemCode::StreamBroken);
    let worker = InstanceId::new(&go_ahead.worker_instance).map_err(|_| broken())?;
    let subject = edge.subjects.callio(&worker, call);
    let rest = tokio::sync::Mutex::new(Box::pin(rest));
    let next = || {
        let rest = &rest;
        async move {
            loop {
                match rest.lock().await.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => return Some(Ok(data)),
                        Err(_) => continue,
                    },
                    Err(error) => return Some(Err(error.to_string())),
                }
            }
        }
    };
    let credits = line.credits.clone();
    let send = stream::send(&edge.broker, &subject, &credits, edge.limits.silence, next);
    let sent_or_answered = async {
        let mut send = std::pin::pin!(send);
        let mut sending = true;
        loop {
            tokio::select! {
                sent = &mut send, if sending => match sent {
                    Ok(()) => sending = false,
                    Err(reason) if reason.contains("api.body_max_bytes") => return Err(Problem::new(ProblemCode::BodyTooLarge)),
                    // The worker may have answered without reading everything: its reply is on the way.
                    Err(reason) => {
                        tracing::debug!(reason, "a request body was not sent whole");
                        sending = false;
                    }
                },
                message = line.frames.recv() => {
                    let message = message.ok_or_else(broken)?;
                    return CallReply::decode(message).map_err(|_| broken());
                }
            }
        }
    };
    match timeout_at(incoming.deadline, sent_or_answered).await {
        Ok(reply) => reply,
        Err(_) => Err(Problem::new(ProblemCode::DeadlineExceeded)),
    }
}
