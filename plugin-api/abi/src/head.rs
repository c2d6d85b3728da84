//! What crosses with each call, task and reply. Plain structs: their fields can never change.
//! What must grow goes into `ext`, a header block ([`crate::headers`]) that either side may ignore.

use crate::FfiBytes;
use abi_stable::StableAbi;

/// The host's side of one plugin in one process. Lives as long as the process.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCtx(pub *const ());
// SAFETY: an opaque pointer that only the host reads, to a `Sync` value it never frees.
// OWNERSHIP: the host's. THREADS: any.
unsafe impl Send for HostCtx {}
// SAFETY: as for `Send`. OWNERSHIP: the host's. THREADS: any.
unsafe impl Sync for HostCtx {}

/// The plugin's instance, made by `init`. Lives as long as the process.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(pub *const ());
// SAFETY: an opaque pointer that only the plugin reads, to a `Sync` value it never frees.
// OWNERSHIP: the plugin's. THREADS: any.
unsafe impl Send for Instance {}
// SAFETY: as for `Send`. OWNERSHIP: the plugin's. THREADS: any.
unsafe impl Sync for Instance {}

/// The host's side of one call. The plugin owns one reference and gives it back by `call_release`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallToken(pub *const ());
// SAFETY: an opaque pointer to a `Send + Sync` value of the host. OWNERSHIP: one counted reference.
// THREADS: any, the host synchronises.
unsafe impl Send for CallToken {}
// SAFETY: as for `Send`. OWNERSHIP: one counted reference. THREADS: any.
unsafe impl Sync for CallToken {}

/// The host's side of one task attempt. The plugin owns one reference and gives it back by `task_release`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskToken(pub *const ());
// SAFETY: an opaque pointer to a `Send + Sync` value of the host. OWNERSHIP: one counted reference.
// THREADS: any, the host synchronises.
unsafe impl Send for TaskToken {}
// SAFETY: as for `Send`. OWNERSHIP: one counted reference. THREADS: any.
unsafe impl Sync for TaskToken {}

/// The plugin's side of a running handler. The host owns it and gives it back by `forget`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running(pub *mut ());
// SAFETY: an opaque pointer to a `Send + Sync` value of the plugin. OWNERSHIP: the host, once.
// THREADS: any, one at a time.
unsafe impl Send for Running {}
// SAFETY: as for `Send`; the host calls `cancel` and `forget` one at a time. OWNERSHIP: the host, once.
// THREADS: any, one at a time.
unsafe impl Sync for Running {}

/// A request for a route.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct CallHead {
    /// The request's id: 16 random bytes, in logs as 32 hex digits.
    pub request_id: [u8; 16],
    /// When the caller stops waiting: milliseconds since the Unix epoch, broker time.
    pub deadline_unix_ms: u64,
    /// Header block, starting with the pseudo-headers `:method` and `:path`; trace context is `traceparent`.
    pub headers: FfiBytes,
    /// The whole body, where `streaming` is 0.
    pub body: FfiBytes,
    /// Which of the plugin's routes: its place in the `routes` of `describe`.
    pub route: u32,
    /// 1: the body comes piece by piece from `body_poll`.
    pub streaming: u8,
    /// 1: the host lends its thread, so the plugin may poll the handler there once before `call` returns. It does
    /// so only where the handler's polls are known to be short; a handler that is not done then moves to the plugin's
    /// own threads.
    pub in_place: u8,
    /// Extension block.
    pub ext: FfiBytes,
}

/// A route's answer.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Reply {
    /// HTTP status. 0: the handler failed, `failure` says how, and the body is a text for the host's log.
    pub status: u16,
    /// Where `status` is 0: [`crate::code::PANICKED`], [`crate::code::REJECTED`] or [`crate::code::FAILED`].
    pub failure: u32,
    /// 1: `body` is only the start, more follows by `body_push` and `body_end`.
    pub streaming: u8,
    /// Header block.
    pub headers: FfiBytes,
    /// The body, whole or its start.
    pub body: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// One attempt of a task.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct TaskHead {
    /// The task's id, a UUIDv7.
    pub task_id: [u8; 16],
    /// Which of the plugin's tasks: its place in the `tasks` of `describe`.
    pub task: u32,
    /// Counted from 1.
    pub attempt: u32,
    /// The hard limit of this attempt: milliseconds since the Unix epoch, broker time.
    pub deadline_unix_ms: u64,
    /// When the task was accepted: milliseconds since the Unix epoch, broker time.
    pub enqueued_unix_ms: u64,
    /// Header block: `traceparent`, `tracestate`, root and parent ids.
    pub headers: FfiBytes,
    /// The author's JSON.
    pub body: FfiBytes,
    /// 1: the host lends its thread, as in [`CallHead`].
    pub in_place: u8,
    /// Extension block.
    pub ext: FfiBytes,
}

/// How an attempt ended.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct TaskReply {
    /// One of the `TASK_…` codes of [`crate::code`].
    pub code: u32,
    /// For [`crate::code::TASK_RETRY_AFTER`].
    pub delay_ms: u64,
    /// The result, or the error `{"message": …, "details": …}`, as JSON.
    pub value: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// Something that a task's handler tells the host while it runs.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct TaskNote {
    /// The task's id.
    pub task_id: [u8; 16],
    /// The attempt that tells it.
    pub attempt: u32,
    /// What it tells, as JSON.
    pub value: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// Something that a handler asks the host and waits for.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct AskHead {
    /// The context: id of the request or task that asks, zero outside one.
    pub context_id: [u8; 16],
    /// The attempt that asks; 0 outside a task.
    pub attempt: u32,
    /// JSON, an object of one member, which names the question: `{"once_look": {"key"}}`,
    /// `{"once_keep": {"key", "value"}}` or `{"wait": {"task_id", "at_most_ms"}}`.
    pub question: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// What a plugin gets at `init`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct InitHead {
    /// The plugin's settings as JSON, references to secrets resolved.
    pub config: FfiBytes,
    /// Which log events the host wants: directives as in `RUST_LOG`.
    pub log_filter: FfiBytes,
    /// How many threads the plugin's runtime may use.
    pub threads: u32,
    /// Extension block.
    pub ext: FfiBytes,
}

/// What `init` made. `answer.code` other than 0: the instance is null.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct InitReply {
    /// Success, or why not.
    pub answer: crate::Answer,
    /// The instance.
    pub instance: Instance,
}

/// A call to a plugin's route by another plugin's handler.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct CallOut {
    /// JSON `{"plugin", "major", "deadline_unix_ms"}`. The host finds the route by the head.
    pub target: FfiBytes,
    /// Header block, starting with `:method` and `:path`; trace context is `traceparent`.
    pub headers: FfiBytes,
    /// The whole body.
    pub body: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// A task to publish.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct EnqueueHead {
    /// The context: id of the request or task that enqueues, zero outside one.
    pub context_id: [u8; 16],
    /// JSON `{"task", "plugin"?, "major"?, "idempotency_key"?, "delay_ms"?, "traceparent"?}`.
    pub options: FfiBytes,
    /// The author's JSON.
    pub body: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// A log event.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct LogRecord {
    /// 1 error … 5 trace.
    pub level: u8,
    /// Module path or target.
    pub target: FfiBytes,
    /// JSON `{"message", "fields": {…}, "spans": [{"name", "fields"}]}`, outermost span first.
    pub body: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// A span that closed.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct SpanRecord {
    /// Nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
    /// JSON `{"name", "target", "id", "parent"?, "fields": {…}}`.
    pub body: FfiBytes,
    /// Extension block.
    pub ext: FfiBytes,
}

/// A measurement.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct MetricRecord {
    /// 0 counter (adds), 1 gauge (sets), 2 histogram (observes).
    pub kind: u8,
    /// `[a-z0-9_]{1,64}`; the host prefixes the plugin's name.
    pub name: FfiBytes,
    /// Header block of label names and values.
    pub labels: FfiBytes,
    /// The amount, in the unit that the name ends with.
    pub value: f64,
    /// Extension block.
    pub ext: FfiBytes,
}
