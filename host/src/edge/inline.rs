//! Routes whose handlers run in this process.

use super::body::{EdgeBody, Fault, Limited, Received};
use super::head;
use super::respond;
use super::router::Route;
use super::service::{Arrived, Edge};
use crate::loader::{AnswerBody, Answered, Call, RequestBody};
use bytes::Bytes;
use cardcage_protocol::ProblemCode;
use http::{Method, Response};
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

pub(super) async fn answer(
    edge: &Edge,
    route: &Route,
    incoming: &Arrived<'_>,
    received: Received,
    place: OwnedSemaphorePermit,
) -> Response<EdgeBody> {
    let Some(plugin) = &route.plugin else {
        tracing::error!(plugin = &*route.identity.name, "an inline route's plugin is not loaded");
        return respond::code(ProblemCode::Internal, incoming.id);
    };
    let headers =
        head::block(incoming.method, incoming.path, incoming.headers, &incoming.traceparent, incoming.id);
    let (body, stream) = match received {
        Received::Whole(body) => (body, None),
        Received::More(start, rest) => {
            (Bytes::new(), Some(Box::pin(Prefixed::new(start, rest)) as RequestBody))
        }
    };
    let call = Call {
        route: route.index,
        request_id: incoming.id.0,
        deadline_unix_ms: incoming.deadline_unix_ms,
        headers,
        body,
        stream,
    };
    let noted = plugin.note_inline(route.name.as_str(), incoming.id.0, incoming.deadline_unix_ms);
    // Dropping the call, by the deadline or by a caller that hangs up, cancels the handler.
    let Ok((answered, running)) = tokio::time::timeout_at(incoming.deadline, plugin.call(call)).await else {
        return respond::code(ProblemCode::DeadlineExceeded, incoming.id);
    };
    match answered {
        Answered::Response { status, headers, body } => {
            let is_head = *incoming.method == Method::HEAD;
            let body = match body {
                AnswerBody::Whole(bytes) if bytes.len() > edge.limits.reply_max_bytes => {
                    return respond::code(ProblemCode::ReplyTooLarge, incoming.id);
                }
                AnswerBody::Whole(bytes) => EdgeBody::whole(bytes),
                AnswerBody::Stream(first, pieces) => {
                    let (max, length) = (edge.limits.reply_max_bytes, respond::length(&headers));
                    if length.is_some_and(|length| length > max) {
                        return respond::code(ProblemCode::ReplyTooLarge, incoming.id);
                    }
                    EdgeBody::stream(first, pieces, max, length, Box::new((running, place, noted)))
                }
            };
            respond::plugin(status, &headers, body, is_head)
        }
        Answered::Panicked(text) => {
            log(route, incoming, &text, "a handler panicked");
            respond::code(ProblemCode::HandlerPanicked, incoming.id)
        }
        Answered::Failed(text) => {
            log(route, incoming, &text, "a handler failed");
            respond::code(ProblemCode::PluginError, incoming.id)
        }
    }
}

fn log(route: &Route, incoming: &Arrived<'_>, text: &str, message: &'static str) {
    let (plugin, version) = (&*route.identity.name, &*route.identity.version);
    tracing::error!(
        plugin,
        version,
        route = route.name.as_str(),
        request_id = incoming.id.hex(),
        error = text,
        message
    );
}

/// A body whose start was read already.
pub(super) struct Prefixed {
    start: Option<Bytes>,
    rest: Limited,
}

impl Prefixed {
    pub(super) fn new(start: Bytes, rest: Limited) -> Self {
        Self { start: Some(start).filter(|start| !start.is_empty()), rest }
    }

    pub(super) fn fault(&self) -> Fault {
        self.rest.fault()
    }
}

impl Body for Prefixed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(start) = self.start.take() {
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}
