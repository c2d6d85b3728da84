//! One call of a route: request in, handler on the plugin's runtime, reply out.

use super::body::{CallGuard, HostBody};
use super::guarded::{Guarded, Work};
use super::instance::PluginInstance;
use super::start;
use crate::context::{HostHandle, RequestContext};
use axum::body::Body;
use bytes::Bytes;
use cardcage_abi::{CallHead, CallToken, FfiBytes, FfiWaker, Reply, code, headers};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};
use tokio::task::AbortHandle;
use tower::ServiceExt;

/// Starts the handler; `None` where it has ended already.
pub(super) fn start(
    plugin: &'static PluginInstance,
    head: CallHead,
    token: CallToken,
) -> Option<AbortHandle> {
    let guard = Arc::new(CallGuard::new(plugin.host, token));
    let Some(handler) = plugin.route(head.route) else {
        guard.complete(failure(code::REJECTED, format!("the plugin has no route number {}", head.route)));
        return None;
    };
    let work = Work { kind: "route", name: handler.name.clone(), id: head.request_id };
    let (host, in_place) = (plugin.host, head.in_place != 0);
    let body_guard = guard.clone();
    let handle = async move {
        let Some(request) = request(head, host, body_guard.clone()) else {
            body_guard.complete(failure(code::REJECTED, "the request head cannot be read"));
            return;
        };
        // A router's own errors are `Infallible`.
        let Ok(response) = plugin.router.clone().oneshot(request).await;
        respond(&body_guard, response).await;
    };
    let guarded = Guarded::new(host, work, handle);
    let answered = Answered { guarded, guard };
    start::handler(plugin.handle(), &handler.lane, in_place, answered)
}

/// The guarded handler, and the answer to its panic.
struct Answered<F> {
    guarded: Guarded<F>,
    guard: Arc<CallGuard>,
}

impl<F: Future<Output = ()>> Future for Answered<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = std::task::ready!(Pin::new(&mut self.guarded).poll(cx));
        if let Err(panic) = ended {
            self.guard.complete(failure(code::PANICKED, panic));
        }
        Poll::Ready(())
    }
}

fn request(head: CallHead, host: HostHandle, guard: Arc<CallGuard>) -> Option<Request<Body>> {
    let mut request = Request::new(Body::empty());
    let mut traceparent = None;
    for header in headers::iter(head.headers.as_slice()) {
        let (name, value) = header.ok()?;
        match name {
            headers::METHOD => *request.method_mut() = Method::from_bytes(value).ok()?,
            headers::PATH => *request.uri_mut() = Uri::try_from(value).ok()?,
            name => {
                if name == "traceparent" {
                    traceparent = std::str::from_utf8(value).ok().map(Arc::from);
                }
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    let deadline = UNIX_EPOCH + Duration::from_millis(head.deadline_unix_ms);
    let ctx = RequestContext { request_id: head.request_id, deadline, host, traceparent };
    request.extensions_mut().insert(ctx);
    *request.body_mut() = match head.streaming {
        0 if head.body.is_empty() => Body::empty(),
        0 => Body::from(Bytes::from_owner(head.body)),
        _ => Body::new(HostBody::new(guard)),
    };
    Some(request)
}

fn failure(failure: u32, text: impl Into<String>) -> Reply {
    Reply {
        status: 0,
        failure,
        streaming: 0,
        headers: FfiBytes::empty(),
        body: FfiBytes::from(text.into()),
        ext: FfiBytes::empty(),
    }
}

fn bytes(bytes: Bytes) -> FfiBytes {
    FfiBytes::from_owner(bytes)
}

async fn respond(guard: &CallGuard, response: Response<Body>) {
    let (parts, mut body) = response.into_parts();
    let mut block = Vec::with_capacity(32 * parts.headers.len());
    for (name, value) in &parts.headers {
        headers::push(&mut block, name.as_str(), value.as_bytes());
    }
    let reply = |body: FfiBytes, streaming: bool| Reply {
        status: parts.status.as_u16(),
        failure: 0,
        streaming: u8::from(streaming),
        headers: FfiBytes::from(block),
        body,
        ext: FfiBytes::empty(),
    };
    // The fast path: a body that is there already goes with its head.
    let first = if body.is_end_stream() { None } else { next_chunk(&mut body).await };
    match first {
        None => guard.complete(reply(FfiBytes::empty(), false)),
        Some(Ok(chunk)) if body.is_end_stream() => guard.complete(reply(bytes(chunk), false)),
        Some(Ok(chunk)) => {
            guard.complete(reply(bytes(chunk), true));
            stream(guard, body).await;
        }
        Some(Err(error)) => guard.complete(failure(code::FAILED, error)),
    }
}

async fn next_chunk(body: &mut Body) -> Option<Result<Bytes, String>> {
    loop {
        match body.frame().await? {
            // Trailers are not passed on.
            Ok(frame) => match frame.into_data() {
                Ok(data) if data.is_empty() => continue,
                Ok(data) => return Some(Ok(data)),
                Err(_) => continue,
            },
            Err(error) => return Some(Err(error.to_string())),
        }
    }
}

async fn stream(guard: &CallGuard, mut body: Body) {
    let (host, token) = (guard.host.vtable, guard.token);
    while let Some(chunk) = next_chunk(&mut body).await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::warn!(%error, "a response body failed");
                return (host.body_end())(token, FfiBytes::from(error));
            }
        };
        let ready = poll_fn(|cx| match (host.body_ready())(token, FfiWaker::new(cx.waker())) {
            code::PENDING => Poll::Pending,
            other => Poll::Ready(other),
        })
        .await;
        if ready != code::READY || (host.body_push())(token, bytes(chunk)) != code::READY {
            return;
        }
    }
    (host.body_end())(token, FfiBytes::empty());
}
