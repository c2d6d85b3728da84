//! The host, as one plugin reaches it through the vtable that is handed to it. A file with `unsafe`.
//!
//! # Invariants
//! * No function here panics or blocks; each may be called from any plugin thread.
//! * A [`HostCtx`] points to a leaked [`PluginHost`].
//!
//! # What it refuses
//! It decides nothing: what a plugin asks for goes to the role's [`Services`].

use super::description::Description;
use super::neighbours::Neighbours;
use super::services::{Asker, CallTarget, EnqueueRequest, Identity, OutgoingCall, Question, Services};
use super::{call_side, enqueue_all, lending, task_side};
use crate::crash::Board;
use crate::terms::Terms;
use bytes::Bytes;
use cardcage_abi::{
    Answer, AskHead, CallOut, EnqueueHead, FfiBytes, FfiCallback, Host, HostCtx, LogRecord, MetricRecord,
    SpanRecord, TaskNote, code,
};
use cardcage_protocol::{Problem, ProblemCode};
use serde::Deserialize;
use std::sync::Arc;

/// The host, as one plugin reaches it. Leaked: a plugin's threads may call until the process ends.
pub(super) struct PluginHost {
    pub(super) identity: Identity,
    pub(super) description: Arc<Description>,
    pub(super) neighbours: Arc<Neighbours>,
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

/// A problem as the SDK reads it: what callers get as a header, it gets as a member.
pub(super) fn problem(problem: &Problem) -> Answer {
    let mut problem = problem.clone();
    if let Some(seconds) = problem.retry_after_s {
        problem = problem.member("retry_after_s", seconds);
    }
    Answer { code: code::UNAVAILABLE, value: FfiBytes::from(problem.to_json()) }
}

extern "C" fn enqueue(ctx: HostCtx, head: EnqueueHead, callback: FfiCallback) {
    let host = host(ctx);
    if !head.ext.is_empty() {
        return enqueue_all::enqueue_all(host, head, callback);
    }
    let request: EnqueueRequest = match serde_json::from_slice(head.options.as_slice()) {
        Ok(request) => request,
        Err(error) => return callback.answer(Answer::error(code::REJECTED, error.to_string())),
    };
    let request =
        EnqueueRequest { context_id: head.context_id, body: Bytes::from_owner(head.body), ..request };
    let (identity, terms, request) = match target(host, request) {
        Ok(target) => target,
        Err(refused) => return callback.answer(problem(&refused)),
    };
    let published = host.services.enqueue(&identity, terms, request);
    lending::spawn(&host.runtime, async move {
        callback.answer(match published.await {
            Ok(receipt) => Answer::ok(serde_json::to_string(&receipt).unwrap_or_default()),
            Err(refused) => problem(&refused),
        });
    });
}

/// Whose task it is that the plugin enqueues, and on which terms.
pub(super) fn target(
    host: &PluginHost,
    request: EnqueueRequest,
) -> Result<(Identity, Terms, EnqueueRequest), Problem> {
    let is_own = request.plugin.as_deref().is_none_or(|plugin| *plugin == *host.identity.name);
    if is_own && host.description.task_index(&request.task).is_none() {
        let detail =
            format!("The plugin enqueues `{}`, which it does not declare with `.task(…)`.", request.task);
        tracing::error!(
            plugin = &*host.identity.name,
            task = request.task,
            "a plugin enqueues a task that it does not declare"
        );
        return Err(Problem::new(ProblemCode::PluginError).detail(detail));
    }
    let own = host.description.tasks.iter().find(|task| is_own && task.name == request.task);
    let (identity, terms) = match own {
        Some(task) => (host.identity.clone(), Terms::of(task)),
        None => host.neighbours.task(&host.description, &request)?,
    };
    Ok((identity, terms, EnqueueRequest { from: (!is_own).then(|| host.identity.name.clone()), ..request }))
}

extern "C" fn call(ctx: HostCtx, call: CallOut, callback: FfiCallback) {
    let host = host(ctx);
    let target: CallTarget = match serde_json::from_slice(call.target.as_slice()) {
        Ok(target) => target,
        Err(error) => return callback.answer(Answer::error(code::REJECTED, error.to_string())),
    };
    let found = host.neighbours.route(&host.description, &target, call.headers.as_slice());
    let (identity, route) = match found {
        Ok(found) => found,
        Err(refused) => return callback.answer(problem(&refused)),
    };
    let answered = host.services.call(OutgoingCall {
        target: identity,
        route,
        deadline_unix_ms: target.deadline_unix_ms,
        headers: Bytes::from_owner(call.headers),
        body: Bytes::from_owner(call.body),
    });
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

extern "C" fn task_progress(ctx: HostCtx, note: TaskNote) {
    let host = host(ctx);
    if let Some(tell) = host.services.progress(note.task_id, note.attempt, note.value.as_slice()) {
        lending::spawn(&host.runtime, tell);
    }
}

extern "C" fn ask(ctx: HostCtx, head: AskHead, callback: FfiCallback) {
    let host = host(ctx);
    let question: Question = match serde_json::from_slice(head.question.as_slice()) {
        Ok(question) => question,
        Err(error) => return callback.answer(Answer::error(code::REJECTED, error.to_string())),
    };
    let answered = host.services.ask(Asker { context_id: head.context_id, attempt: head.attempt }, question);
    lending::spawn(&host.runtime, async move {
        callback.answer(match answered.await {
            Ok(value) => Answer::ok(FfiBytes::from_owner(value)),
            Err(refused) => problem(&refused),
        });
    });
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
    let Some(board) = host.board.as_ref() else { return };
    if *id == [0; 16] {
        // A new thread of the plugin's, which may never poll a handler, has no slot and takes none.
        if let Some(slot) = board.held_slot() {
            slot.leave();
        }
    } else if let Some(slot) = board.thread_slot() {
        slot.enter(host.index, *id);
    }
}

/// The vtable handed to every plugin.
pub(super) fn vtable() -> Host {
    Host {
        complete: call_side::complete,
        body_poll: call_side::body_poll,
        body_ready: call_side::body_ready,
        body_push: call_side::body_push,
        body_end: call_side::body_end,
        call_release: call_side::call_release,
        task_complete: task_side::task_complete,
        task_release: task_side::task_release,
        enqueue,
        call,
        log,
        span,
        now_unix_ns,
        config,
        metric,
        polling,
        task_progress,
        ask,
    }
}
