//! The host's side of the boundary: the vtable that plugins call. A room with `unsafe`.
//!
//! # Invariants
//! * No function here panics or blocks; each may be called from any plugin thread.
//! * A [`HostCtx`] points to a leaked [`PluginHost`]; tokens point to counted references that `call_release` and
//!   `task_release` give back.

use super::answer::{AnswerBody, Answered, Outcome, RequestBody};
use super::lending;
use crate::crash::Board;
use bytes::Bytes;
use cardcage_abi::{
    Answer, CallOut, CallToken, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, Host, HostCtx, LogRecord,
    MetricRecord, Reply, SpanRecord, TaskReply, TaskToken, code,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

/// Pieces of a streaming reply between plugin and host.
const STREAM_PIECES: usize = 8;

/// Which plugin asks.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The first number of its version.
    pub major: u32,
}

/// A task that a plugin enqueues.
#[derive(Debug, Clone, Deserialize)]
pub struct EnqueueRequest {
    /// The task's name.
    pub task: String,
    /// Another plugin's name; its own where absent.
    #[serde(default)]
    pub plugin: Option<String>,
    /// The key that makes a repeat harmless.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Not before so many milliseconds have passed.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// The request or task that enqueues.
    #[serde(skip)]
    pub context_id: [u8; 16],
    /// The author's JSON.
    #[serde(skip)]
    pub body: Bytes,
}

/// What an enqueue answers.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The task's id.
    pub id: String,
    /// Whether an earlier enqueue with the same key made it.
    pub duplicate: bool,
}

/// A call to another plugin's route.
#[derive(Debug, Clone)]
pub struct OutgoingCall {
    /// JSON `{"plugin", "major", "route", "deadline_unix_ms", "traceparent"}`.
    pub target: Bytes,
    /// Header block with method and path.
    pub headers: Bytes,
    /// The body.
    pub body: Bytes,
}

/// A service's answer: a value, or a problem (RFC 9457, JSON) for the caller.
pub type ServiceResult<T> = Result<T, cardcage_protocol::Problem>;
/// A boxed future of it.
pub type ServiceFuture<T> = Pin<Box<dyn Future<Output = ServiceResult<T>> + Send>>;

/// What the host does for plugins; each role has its own.
pub trait Services: Send + Sync + 'static {
    /// Publishes a task; done once the broker has stored it.
    fn enqueue(&self, plugin: &Identity, request: EnqueueRequest) -> ServiceFuture<Receipt>;
    /// Calls a route of another plugin; answers status, header block and body in the boundary's encoding.
    fn call(&self, plugin: &Identity, call: OutgoingCall) -> ServiceFuture<Bytes>;
    /// Broker time.
    fn now_unix_ns(&self) -> u64;
    /// Records a measurement.
    fn metric(&self, plugin: &Identity, kind: u8, name: &str, labels: &[(String, String)], value: f64);
}

/// The host, as one plugin reaches it. Leaked: a plugin's threads may call until the process ends.
pub(super) struct PluginHost {
    pub(super) identity: Identity,
    pub(super) index: u32,
    pub(super) config: Bytes,
    pub(super) services: Arc<dyn Services>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) board: Option<Board>,
}

fn host(ctx: HostCtx) -> &'static PluginHost {
    // SAFETY: the only `HostCtx` values are made by `Plugin::init` from leaked `PluginHost`s.
    // OWNERSHIP: leaked. THREADS: `PluginHost` is `Sync`.
    unsafe { &*ctx.0.cast::<PluginHost>() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds these locks panics; a poisoned one is still sound to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's side of one call.
pub(super) struct CallSide {
    reply: Mutex<Option<oneshot::Sender<Answered>>>,
    request: Mutex<Option<RequestBody>>,
    stream: Mutex<Option<PollSender<Result<Bytes, String>>>>,
    runtime: tokio::runtime::Handle,
}

impl CallSide {
    /// Must be called inside the host's runtime.
    pub(super) fn new(reply: oneshot::Sender<Answered>, request: Option<RequestBody>) -> Arc<Self> {
        Arc::new(Self {
            reply: Mutex::new(Some(reply)),
            request: Mutex::new(request),
            stream: Mutex::new(None),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    pub(super) fn into_token(self: Arc<Self>) -> CallToken {
        CallToken(Arc::into_raw(self).cast())
    }

    /// Ends a streaming reply as broken. The reader sees a closed channel as a complete body, so the error must
    /// arrive, however full the channel is: it waits for room on the host's runtime, never on the plugin's thread.
    fn break_stream(&self, sender: &PollSender<Result<Bytes, String>>, reason: String) {
        let Some(sender) = sender.get_ref().cloned() else { return };
        lending::spawn(&self.runtime, async move {
            // Fails where nobody reads any more.
            let _ = sender.send(Err(reason)).await;
        });
    }
}

impl Drop for CallSide {
    fn drop(&mut self) {
        // No `body_end` came: the handler panicked or was cancelled in the middle of its reply.
        if let Some(sender) = lock(&self.stream).take() {
            self.break_stream(&sender, "the handler ended in the middle of its reply".into());
        }
    }
}

fn call_side(token: &CallToken) -> &CallSide {
    // SAFETY: made by `CallSide::into_token`, and not yet released: the plugin holds its one reference.
    // OWNERSHIP: borrowed for as long as the token is. THREADS: `CallSide` is `Sync`.
    unsafe { &*token.0.cast::<CallSide>() }
}

extern "C" fn complete(token: CallToken, reply: Reply) {
    let side = call_side(&token);
    let Some(sender) = lock(&side.reply).take() else { return };
    let answered = match StatusCode::from_u16(reply.status) {
        Ok(status) => {
            let head = Bytes::from_owner(reply.body);
            let body = if reply.streaming == 0 {
                AnswerBody::Whole(head)
            } else {
                let (pieces, receiver) = mpsc::channel(STREAM_PIECES);
                *lock(&side.stream) = Some(PollSender::new(pieces));
                AnswerBody::Stream(head, receiver)
            };
            Answered::Response { status, headers: Bytes::from_owner(reply.headers), body }
        }
        Err(_) if reply.failure == code::PANICKED => Answered::Panicked(reply.body.to_text().into_owned()),
        Err(_) => Answered::Failed(reply.body.to_text().into_owned()),
    };
    // Nobody listens any more where the caller has gone.
    let _ = sender.send(answered);
}

/// Wakes a plugin's waker once; the boundary's wakers are one-shot.
struct Once(Mutex<Option<FfiWaker>>);

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn std_waker(waker: FfiWaker) -> Waker {
    Waker::from(Arc::new(Once(Mutex::new(Some(waker)))))
}

extern "C" fn body_poll(token: CallToken, waker: FfiWaker, out: &mut FfiBytes) -> u32 {
    let side = call_side(&token);
    let waker = std_waker(waker);
    let mut cx = Context::from_waker(&waker);
    let mut request = lock(&side.request);
    let Some(body) = request.as_mut() else { return code::END };
    loop {
        return match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => code::PENDING,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    *out = FfiBytes::from_owner(data);
                    code::READY
                }
                // Trailers are not passed on.
                Err(_) => continue,
            },
            Poll::Ready(Some(Err(_))) => {
                *request = None;
                code::BROKEN
            }
            Poll::Ready(None) => {
                *request = None;
                code::END
            }
        };
    }
}

extern "C" fn body_ready(token: CallToken, waker: FfiWaker) -> u32 {
    let side = call_side(&token);
    let waker = std_waker(waker);
    let mut stream = lock(&side.stream);
    let Some(sender) = stream.as_mut() else { return code::BROKEN };
    match sender.poll_reserve(&mut Context::from_waker(&waker)) {
        Poll::Pending => code::PENDING,
        Poll::Ready(Ok(())) => code::READY,
        Poll::Ready(Err(_)) => code::BROKEN,
    }
}

extern "C" fn body_push(token: CallToken, piece: FfiBytes) -> u32 {
    let mut stream = lock(&call_side(&token).stream);
    let sent = stream.as_mut().is_some_and(|sender| sender.send_item(Ok(Bytes::from_owner(piece))).is_ok());
    if sent { code::READY } else { code::BROKEN }
}

extern "C" fn body_end(token: CallToken, error: FfiBytes) {
    let side = call_side(&token);
    let Some(sender) = lock(&side.stream).take() else { return };
    if !error.is_empty() {
        side.break_stream(&sender, error.to_text().into_owned());
    }
}

extern "C" fn call_release(token: CallToken) {
    // SAFETY: made by `CallSide::into_token`; the plugin gives its one reference back, once.
    // OWNERSHIP: taken here. THREADS: `CallSide` is `Send + Sync`.
    drop(unsafe { Arc::from_raw(token.0.cast::<CallSide>()) });
}

/// The host's side of one attempt.
pub(super) struct TaskSide {
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl TaskSide {
    pub(super) fn token(outcome: oneshot::Sender<Outcome>) -> TaskToken {
        TaskToken(Arc::into_raw(Arc::new(Self { outcome: Mutex::new(Some(outcome)) })).cast())
    }
}

extern "C" fn task_complete(token: TaskToken, reply: TaskReply) {
    // SAFETY: made by `TaskSide::token` and not yet released. OWNERSHIP: borrowed. THREADS: `TaskSide` is `Sync`.
    let side = unsafe { &*token.0.cast::<TaskSide>() };
    let Some(sender) = lock(&side.outcome).take() else { return };
    let value = Bytes::from_owner(reply.value);
    let outcome = match reply.code {
        code::TASK_SUCCEEDED => Outcome::Succeeded(value),
        code::TASK_RETRY => Outcome::Retry(value),
        code::TASK_RETRY_AFTER => Outcome::RetryAfter(reply.delay_ms, value),
        code::TASK_FAILED => Outcome::Failed(value),
        code::TASK_DISCARDED => Outcome::Discarded(value),
        code::TASK_UNDECODABLE => Outcome::Undecodable(value),
        _ => Outcome::Panicked(value),
    };
    // Nobody listens any more where the attempt was given up.
    let _ = sender.send(outcome);
}

extern "C" fn task_release(token: TaskToken) {
    // SAFETY: made by `TaskSide::token`; the plugin gives its one reference back, once.
    // OWNERSHIP: taken here. THREADS: `TaskSide` is `Send + Sync`.
    drop(unsafe { Arc::from_raw(token.0.cast::<TaskSide>()) });
}

fn problem(problem: &cardcage_protocol::Problem) -> Answer {
    Answer { code: code::UNAVAILABLE, value: FfiBytes::from(problem.to_json()) }
}

extern "C" fn enqueue(ctx: HostCtx, head: EnqueueHead, callback: FfiCallback) {
    let host = host(ctx);
    let request: EnqueueRequest = match serde_json::from_slice(head.options.as_slice()) {
        Ok(request) => request,
        Err(error) => return callback.answer(Answer::error(code::REJECTED, error.to_string())),
    };
    let request =
        EnqueueRequest { context_id: head.context_id, body: Bytes::from_owner(head.body), ..request };
    let published = host.services.enqueue(&host.identity, request);
    lending::spawn(&host.runtime, async move {
        callback.answer(match published.await {
            Ok(receipt) => Answer::ok(serde_json::to_string(&receipt).unwrap_or_default()),
            Err(refused) => problem(&refused),
        });
    });
}

extern "C" fn call(ctx: HostCtx, call: CallOut, callback: FfiCallback) {
    let host = host(ctx);
    let call = OutgoingCall {
        target: Bytes::from_owner(call.target),
        headers: Bytes::from_owner(call.headers),
        body: Bytes::from_owner(call.body),
    };
    let answered = host.services.call(&host.identity, call);
    lending::spawn(&host.runtime, async move {
        callback.answer(match answered.await {
            Ok(value) => Answer::ok(FfiBytes::from_owner(value)),
            Err(refused) => problem(&refused),
        });
    });
}

/// A log record's JSON.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LogBody {
    message: serde_json::Value,
    fields: serde_json::Map<String, serde_json::Value>,
    spans: Vec<serde_json::Value>,
    work: Option<Work>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Work {
    route: Option<String>,
    request_id: Option<String>,
    task: Option<String>,
    task_id: Option<String>,
}

extern "C" fn log(ctx: HostCtx, record: LogRecord) {
    let host = host(ctx);
    let body: LogBody = serde_json::from_slice(record.body.as_slice()).unwrap_or_default();
    let message = body.message.as_str().map_or_else(|| body.message.to_string(), str::to_owned);
    let work = body.work.unwrap_or_default();
    let fields = (!body.fields.is_empty()).then(|| serde_json::Value::Object(body.fields).to_string());
    let spans = (!body.spans.is_empty()).then(|| serde_json::Value::Array(body.spans).to_string());
    let target = record.target.to_text();
    macro_rules! event {
        ($level:expr) => {
            tracing::event!(
                target: "plugin",
                $level,
                plugin = &*host.identity.name,
                version = &*host.identity.version,
                module = &*target,
                route = work.route,
                request_id = work.request_id,
                task = work.task,
                task_id = work.task_id,
                fields,
                spans,
                "{message}"
            )
        };
    }
    match record.level {
        code::LEVEL_ERROR => event!(tracing::Level::ERROR),
        2 => event!(tracing::Level::WARN),
        3 => event!(tracing::Level::INFO),
        4 => event!(tracing::Level::DEBUG),
        _ => event!(tracing::Level::TRACE),
    }
}

extern "C" fn span(ctx: HostCtx, record: SpanRecord) {
    let host = host(ctx);
    let took_us = record.end_unix_ns.saturating_sub(record.start_unix_ns) / 1_000;
    let span = record.body.to_text();
    tracing::debug!(target: "span", plugin = &*host.identity.name, took_us, %span, "span closed");
}

extern "C" fn now_unix_ns(ctx: HostCtx) -> u64 {
    host(ctx).services.now_unix_ns()
}

extern "C" fn config(ctx: HostCtx) -> FfiBytes {
    FfiBytes::from_owner(host(ctx).config.clone())
}

extern "C" fn metric(ctx: HostCtx, record: MetricRecord) {
    let host = host(ctx);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let labels: Vec<_> = cardcage_abi::headers::iter(record.labels.as_slice())
        .flatten()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect();
    host.services.metric(&host.identity, record.kind, &record.name.to_text(), &labels, record.value);
}

extern "C" fn polling(ctx: HostCtx, id: &[u8; 16]) {
    let host = host(ctx);
    let Some(slot) = host.board.as_ref().and_then(|board| board.thread_slot()) else { return };
    if *id == [0; 16] {
        slot.leave();
    } else {
        slot.enter(host.index, *id);
    }
}

/// The vtable handed to every plugin.
pub(super) fn vtable() -> Host {
    Host {
        complete,
        body_poll,
        body_ready,
        body_push,
        body_end,
        call_release,
        task_complete,
        task_release,
        enqueue,
        call,
        log,
        span,
        now_unix_ns,
        config,
        metric,
        polling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> (CallToken, oneshot::Receiver<Answered>) {
        let (reply, answered) = oneshot::channel();
        let token = CallSide::new(reply, None).into_token();
        let empty = FfiBytes::empty;
        complete(
            token,
            Reply { status: 200, failure: 0, streaming: 1, headers: empty(), body: empty(), ext: empty() },
        );
        (token, answered)
    }

    fn push(token: CallToken, count: usize) {
        for _ in 0..count {
            assert_eq!(body_ready(token, FfiWaker::new(Waker::noop())), code::READY);
            assert_eq!(body_push(token, FfiBytes::from_static(b"piece")), code::READY);
        }
    }

    /// How many pieces came, and what the body ended with.
    async fn read(answered: oneshot::Receiver<Answered>) -> (usize, Option<String>) {
        let Ok(Answered::Response { body: AnswerBody::Stream(_, mut pieces), .. }) = answered.await else {
            panic!("no streaming reply");
        };
        let mut count = 0;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(_) => count += 1,
                Err(reason) => return (count, Some(reason)),
            }
        }
        (count, None)
    }

    #[tokio::test]
    async fn reply_that_ends_well_ends_without_an_error() {
        let (token, answered) = streaming();
        push(token, 2);
        body_end(token, FfiBytes::empty());
        call_release(token);
        assert_eq!(read(answered).await, (2, None));
    }

    #[tokio::test]
    async fn broken_reply_is_told_even_when_the_channel_is_full() {
        let (token, answered) = streaming();
        push(token, STREAM_PIECES);
        body_end(token, FfiBytes::from_static(b"the source dried up"));
        call_release(token);
        assert_eq!(read(answered).await, (STREAM_PIECES, Some("the source dried up".into())));
    }

    #[tokio::test]
    async fn handler_that_ends_in_mid_reply_leaves_a_broken_body_and_not_a_complete_one() {
        let (token, answered) = streaming();
        push(token, STREAM_PIECES);
        call_release(token);
        let (count, reason) = read(answered).await;
        assert_eq!(count, STREAM_PIECES);
        assert!(reason.is_some_and(|reason| reason.contains("in the middle")));
    }
}
