//! The host vtable that plugins in the test's process see.
//!
//! Its context pointer is no pointer but a number, the place of the host in a register: so nothing here is unsafe, and a
//! handler that outlives its test finds nobody instead of freed memory.

use plugin_api::abi::abi_stable::prefix_type::PrefixTypeTrait;
use plugin_api::abi::{
    Answer, AskHead, CallOut, CallToken, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, Host, HostCtx,
    HostRef, LogRecord, MetricRecord, Reply, SpanRecord, TaskNote, TaskReply, TaskToken, code,
};
use plugin_api::testing;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

static HOSTS: LazyLock<Mutex<HashMap<usize, Weak<dyn HostSide>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(1);
static VTABLE: LazyLock<HostRef> = LazyLock::new(|| vtable().leak_into_prefix());

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a host does for a plugin that runs in the test.
pub(crate) trait HostSide: Send + Sync {
    /// Takes a task, and answers.
    fn enqueue(&self, head: EnqueueHead, callback: FfiCallback);
    /// Answers a question.
    fn ask(&self, head: AskHead, callback: FfiCallback);
    /// The clock.
    fn now(&self) -> SystemTime;
    /// Takes a log event.
    fn log(&self, record: &LogRecord);
}

/// A place in the register; free again when dropped.
#[derive(Debug)]
pub(crate) struct Registered(usize);

impl Registered {
    pub(crate) fn new(side: Weak<dyn HostSide>) -> Self {
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&HOSTS).insert(place, side);
        Self(place)
    }

    pub(crate) fn host(&self) -> testing::Host {
        testing::Host::new(*VTABLE, HostCtx(std::ptr::without_provenance(self.0)))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&HOSTS).remove(&self.0);
    }
}

fn find(ctx: HostCtx) -> Option<Arc<dyn HostSide>> {
    lock(&HOSTS).get(&ctx.0.addr()).and_then(Weak::upgrade)
}

/// What a once-recorded value is answered as.
pub(crate) fn recorded(value: Option<&Value>) -> Value {
    match value {
        Some(value) => json!({ "found": true, "value": value }),
        None => json!({ "found": false }),
    }
}

/// The questions of `once`, answered from what is recorded; `None` for any other question.
pub(crate) fn once(recorded_so_far: &mut HashMap<String, Value>, question: &Value) -> Option<Answer> {
    let of = |name: &str| question.get(name).and_then(|asked| Some((asked.get("key")?.as_str()?, asked)));
    if let Some((key, _)) = of("once_look") {
        return Some(Answer::ok(recorded(recorded_so_far.get(key)).to_string()));
    }
    let (key, asked) = of("once_keep")?;
    let earlier = recorded(recorded_so_far.get(key));
    let value = || asked.get("value").cloned().unwrap_or_default();
    recorded_so_far.entry(key.to_owned()).or_insert_with(value);
    Some(Answer::ok(earlier.to_string()))
}

fn gone() -> Answer {
    Answer::error(code::UNAVAILABLE, "the test host is gone")
}

extern "C" fn enqueue(ctx: HostCtx, head: EnqueueHead, callback: FfiCallback) {
    match find(ctx) {
        Some(side) => side.enqueue(head, callback),
        None => callback.answer(gone()),
    }
}

extern "C" fn ask(ctx: HostCtx, head: AskHead, callback: FfiCallback) {
    match find(ctx) {
        Some(side) => side.ask(head, callback),
        None => callback.answer(gone()),
    }
}

extern "C" fn now_unix_ns(ctx: HostCtx) -> u64 {
    let now = find(ctx).map_or_else(SystemTime::now, |side| side.now());
    now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

extern "C" fn log(ctx: HostCtx, record: LogRecord) {
    if let Some(side) = find(ctx) {
        side.log(&record);
    }
}

// Calls and attempts go to handlers directly, so the functions that answer them are never called.
extern "C" fn complete(_: CallToken, _: Reply) {}
extern "C" fn body_poll(_: CallToken, _: FfiWaker, _: &mut FfiBytes) -> u32 {
    code::BROKEN
}
extern "C" fn body_ready(_: CallToken, _: FfiWaker) -> u32 {
    code::BROKEN
}
extern "C" fn body_push(_: CallToken, _: FfiBytes) -> u32 {
    code::BROKEN
}
extern "C" fn body_end(_: CallToken, _: FfiBytes) {}
extern "C" fn call_release(_: CallToken) {}
extern "C" fn task_complete(_: TaskToken, _: TaskReply) {}
extern "C" fn task_release(_: TaskToken) {}
extern "C" fn span(_: HostCtx, _: SpanRecord) {}
extern "C" fn metric(_: HostCtx, _: MetricRecord) {}
extern "C" fn polling(_: HostCtx, _: &[u8; 16]) {}

extern "C" fn task_progress(_: HostCtx, _: TaskNote) {}
extern "C" fn config(_: HostCtx) -> FfiBytes {
    FfiBytes::from_static(b"{}")
}
extern "C" fn call(_: HostCtx, _: CallOut, callback: FfiCallback) {
    callback.answer(Answer::error(code::REJECTED, "the test host has no other plugins"));
}

fn vtable() -> Host {
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
        task_progress,
        ask,
    }
}
