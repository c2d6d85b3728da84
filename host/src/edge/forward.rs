//! Routes whose handlers run on a worker: the request as a call over NATS, by [`crate::calling`], with bodies that stream.

use super::body::{EdgeBody, Received};
use super::head;
use super::inline::Prefixed;
use super::respond;
use super::router::Route;
use super::service::{Arrived, Edge};
use crate::broker::Broker;
use crate::calling::{self, Callee, CancelOnDrop};
use crate::stream::{self, Credits, Inbox};
use bytes::Bytes;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, InstanceId, Problem, ProblemCode, ReplyKind, Text,
};
use futures_util::TryStreamExt;
use http::{Method, Response, StatusCode};
use http_body_util::BodyDataStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

/// As [`CancelOnDrop`], for a streamed reply; owns the place among the requests under way too.
struct CancelStream {
    broker: Broker,
    subject: String,
    _sending: Option<Sending>,
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
    let (body, upload) = match received {
        Received::Whole(bytes) => (CallBody::Whole(bytes), None),
        Received::More(start, rest) => {
            let (rest, inbox, credits) =
                (Prefixed::new(start, rest), edge.mux.inbox(call), edge.mux.credits(call));
            (CallBody::Stream, Some(Upload { rest, inbox, credits }))
        }
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
    let mut cancel = CancelOnDrop::new(&edge.broker, edge.subjects.callctl(call));
    let callee = Callee {
        plugin: &route.identity.name,
        major: route.identity.major,
        route: route.name.as_str(),
        subject: &route.subject,
    };
    let replied =
        calling::first_reply(&edge.broker, &edge.quarantines, callee, incoming.deadline, message).await;
    let replied = match (replied, upload) {
        (Ok(reply), Some(upload)) if reply.kind == ReplyKind::GoAhead => {
            send_body(edge, incoming, call, &reply, upload)
                .await
                .map(|(reply, streams)| (reply, Some(streams)))
        }
        (replied, _) => replied.map(|reply| (reply, None)),
    };
    match replied {
        Ok((reply, streams)) => {
            cancel.answered();
            finish(edge, incoming, call, reply, streams, place)
        }
        Err(problem) => {
            cancel.failed(&problem);
            respond::problem(problem, incoming.id)
        }
    }
}

/// A request body that streams, before a worker has taken the call.
struct Upload {
    rest: Prefixed,
    inbox: Inbox,
    credits: Credits,
}

fn finish(
    edge: &Edge,
    incoming: &Arrived<'_>,
    call: CallId,
    reply: CallReply,
    streams: Option<Streams>,
    place: OwnedSemaphorePermit,
) -> Response<EdgeBody> {
    if let Some(code) = calling::refusal(&reply.kind) {
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
            let (inbox, sending) = match streams {
                Some(streams) => (streams.inbox, Some(streams.sending)),
                None => (edge.mux.inbox(call), None),
            };
            let held = CancelStream {
                broker: edge.broker.clone(),
                subject: edge.subjects.callctl(call),
                _sending: sending,
                _place: place,
            };
            let (max, length) = (edge.limits.reply_max_bytes, respond::length(&reply.header_block));
            if length.is_some_and(|length| length > max) {
                return respond::code(ProblemCode::ReplyTooLarge, incoming.id);
            }
            let peer = edge.subjects.callio(&worker, call);
            let pieces = stream::receive(edge.broker.clone(), peer, inbox, edge.limits.silence);
            EdgeBody::stream(Bytes::new(), pieces, max, length, Box::new(held))
        }
    };
    respond::plugin(status, &reply.header_block, body, is_head)
}

/// A request's body on its way to the worker that took the call. Dropping it ends the sending.
struct Sending(JoinHandle<Result<(), String>>);

impl Sending {
    /// `credits` were opened before the call went out: the worker's first grant must find somebody.
    fn start(edge: &Edge, worker: &InstanceId, call: CallId, rest: Prefixed, credits: Credits) -> Self {
        let (broker, subject, silence) =
            (edge.broker.clone(), edge.subjects.callio(worker, call), edge.limits.silence);
        Self(tokio::spawn(async move {
            let pieces = BodyDataStream::new(rest).map_err(|error| error.to_string());
            stream::send(&broker, &subject, &credits, silence, pieces).await
        }))
    }

    /// Waits until all is sent. A body that was not sent whole is no end yet: the worker may have answered without
    /// reading everything, and then its reply is on the way. Cancel-safe.
    async fn ended(&mut self) {
        if let Ok(Err(reason)) = (&mut self.0).await {
            tracing::debug!(reason, "a request body was not sent whole");
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Both directions of a call whose request body streams.
struct Streams {
    inbox: Inbox,
    /// For a handler that answers before it has read everything, and reads on.
    sending: Sending,
}

/// Streams the request's body to the worker that took the call, and waits for its final reply.
async fn send_body(
    edge: &Edge,
    incoming: &Arrived<'_>,
    call: CallId,
    go_ahead: &CallReply,
    upload: Upload,
) -> Result<(CallReply, Streams), Problem> {
    let broken = || Problem::new(ProblemCode::StreamBroken);
    let worker = InstanceId::new(&go_ahead.worker_instance).map_err(|_| broken())?;
    let Upload { rest, mut inbox, credits } = upload;
    let fault = rest.fault();
    let mut sending = Sending::start(edge, &worker, call, rest, credits);
    let answered = async {
        let mut is_sending = true;
        loop {
            tokio::select! {
                () = sending.ended(), if is_sending => is_sending = false,
                problem = calling::lost(&edge.broker) => return Err(problem),
                message = inbox.recv() => {
                    let reply = CallReply::decode(message.ok_or_else(broken)?).map_err(|_| broken())?;
                    return Ok((reply, Streams { inbox, sending }));
                }
            }
            // What is wrong with the body is the caller's to hear, whatever the handler makes of it.
            if fault.get().is_some() {
                return Err(broken());
            }
        }
    };
    match timeout_at(incoming.deadline, answered).await {
        Ok(reply) => reply,
        Err(_) => Err(Problem::new(ProblemCode::DeadlineExceeded)),
    }
}
