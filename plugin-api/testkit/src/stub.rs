//! The host vtable that tests see.
//!
//! Its context pointer is no pointer but a number, the place of the host in a register: so nothing here is unsafe, and a
//! handler that outlives its test finds nobody instead of freed memory.

use crate::Enqueued;
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
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

static HOSTS: LazyLock<Mutex<HashMap<usize, Weak<Stub>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicUsize = AtomicUsize::new(1);
static VTABLE: LazyLock<HostRef> = LazyLock::new(|| vtable().leak_into_prefix());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Inner {
    now: Option<SystemTime>,
    refuses: bool,
    enqueued: Vec<Enqueued>,
    /// Those that were enqueued together, by their key.
    batches: HashMap<String, Vec<Uuid>>,
    /// What was recorded once.
    once: HashMap<String, Value>,
}

/// One test's host.
#[derive(Debug)]
pub(crate) struct Stub {
    place: usize,
    inner: Mutex<Inner>,
}

impl Stub {
    pub(crate) fn new() -> Arc<Self> {
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        let stub = Arc::new(Self { place, inner: Mutex::default() });
        lock(&HOSTS).insert(place, Arc::downgrade(&stub));
        stub
    }

    pub(crate) fn host(&self) -> testing::Host {
        testing::Host::new(*VTABLE, HostCtx(std::ptr::without_provenance(self.place)))
    }

    pub(crate) fn set_now(&self, now: SystemTime) {
        lock(&self.inner).now = Some(now);
    }

    pub(crate) fn refuse_enqueues(&self, refuse: bool) {
        lock(&self.inner).refuses = refuse;
    }

    pub(crate) fn enqueued(&self) -> Vec<Enqueued> {
        lock(&self.inner).enqueued.clone()
    }

    fn enqueue(&self, head: &EnqueueHead) -> Answer {
        let mut inner = lock(&self.inner);
        if inner.refuses {
            let problem = json!({"status": 503, "code": "broker_unavailable", "title": "The broker is away"});
            return Answer { code: code::UNAVAILABLE, value: FfiBytes::from(problem.to_string()) };
        }
        if !head.ext.is_empty() {
            return inner.enqueue_all(head);
        }
        let options: Value = serde_json::from_slice(head.options.as_slice()).unwrap_or_default();
        let key = text(&options, "idempotency_key");
        let known = inner.enqueued.iter().find(|task| key.is_some() && task.idempotency_key == key);
        let (id, duplicate) = known.map_or_else(|| (Uuid::now_v7(), false), |task| (task.id, true));
        if !duplicate {
            inner.enqueued.push(enqueued(id, &options, head.body.as_slice(), key));
        }
        Answer::ok(json!({"id": id, "duplicate": duplicate}).to_string())
    }
}

fn text(options: &Value, name: &str) -> Option<String> {
    options.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn enqueued(id: Uuid, options: &Value, body: &[u8], idempotency_key: Option<String>) -> Enqueued {
    Enqueued {
        id,
        task: text(options, "task").unwrap_or_default(),
        body: serde_json::from_slice(body).unwrap_or_default(),
        idempotency_key,
        delay: options.get("delay_ms").and_then(Value::as_u64).map(Duration::from_millis),
    }
}

impl Inner {
    /// Several tasks, and their one key.
    fn enqueue_all(&mut self, head: &EnqueueHead) -> Answer {
        let asked: Value = serde_json::from_slice(head.ext.as_slice()).unwrap_or_default();
        let key = text(&asked, "idempotency_key");
        let known = key.as_ref().and_then(|key| self.batches.get(key));
        if let Some(ids) = known {
            return Answer::ok(json!({"ids": ids, "duplicate": true}).to_string());
        }
        let (mut ids, mut bodies) = (Vec::new(), head.body.as_slice());
        for task in asked.get("tasks").and_then(Value::as_array).into_iter().flatten() {
            let bytes = task.get("body_bytes").and_then(Value::as_u64).unwrap_or_default();
            let (body, rest) = bodies.split_at(usize::try_from(bytes).map_or(0, |n| n.min(bodies.len())));
            bodies = rest;
            ids.push(Uuid::now_v7());
            self.enqueued.extend(ids.last().map(|id| enqueued(*id, task, body, key.clone())));
        }
        let answer = json!({"ids": ids, "duplicate": false});
        self.batches.extend(key.map(|key| (key, ids)));
        Answer::ok(answer.to_string())
    }
}

impl Stub {
    fn ask(&self, head: &AskHead) -> Answer {
        let question: Value = serde_json::from_slice(head.question.as_slice()).unwrap_or_default();
        let of = |name: &str| question.get(name).and_then(|asked| Some((asked.get("key")?.as_str()?, asked)));
        let mut inner = lock(&self.inner);
        if let Some((key, _)) = of("once_look") {
            return Answer::ok(recorded(inner.once.get(key)).to_string());
        }
        if let Some((key, asked)) = of("once_keep") {
            let earlier = recorded(inner.once.get(key));
            inner
                .once
                .entry(key.to_owned())
                .or_insert_with(|| asked.get("value").cloned().unwrap_or_default());
            return Answer::ok(earlier.to_string());
        }
        Answer::error(code::REJECTED, "the test host runs no tasks to wait for")
    }
}

fn recorded(value: Option<&Value>) -> Value {
    match value {
        Some(value) => json!({ "found": true, "value": value }),
        None => json!({ "found": false }),
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        lock(&HOSTS).remove(&self.place);
    }
}

fn find(ctx: HostCtx) -> Option<Arc<Stub>> {
    lock(&HOSTS).get(&ctx.0.addr()).and_then(Weak::upgrade)
}

extern "C" fn enqueue(ctx: HostCtx, head: EnqueueHead, callback: FfiCallback) {
    let nobody = || Answer::error(code::UNAVAILABLE, "the test host is gone");
    callback.answer(find(ctx).map_or_else(nobody, |stub| stub.enqueue(&head)));
}

extern "C" fn ask(ctx: HostCtx, head: AskHead, callback: FfiCallback) {
    let nobody = || Answer::error(code::UNAVAILABLE, "the test host is gone");
    callback.answer(find(ctx).map_or_else(nobody, |stub| stub.ask(&head)));
}

extern "C" fn now_unix_ns(ctx: HostCtx) -> u64 {
    let now = find(ctx).and_then(|stub| lock(&stub.inner).now).unwrap_or_else(SystemTime::now);
    now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[allow(clippy::print_stdout, reason = "the test runner shows it where a test fails")]
extern "C" fn log(_: HostCtx, record: LogRecord) {
    println!("{} {}", record.target.to_text(), record.body.to_text());
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
