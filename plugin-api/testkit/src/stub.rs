//! The host of a [`TestHost`](crate::TestHost): keeps what is enqueued, and runs none of it.

use crate::Enqueued;
use crate::host_side::{HostSide, Registered, lock, once};
use plugin_api::abi::{Answer, AskHead, EnqueueHead, FfiBytes, FfiCallback, LogRecord, code};
use plugin_api::testing;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

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
    place: Registered,
    inner: Mutex<Inner>,
}

impl Stub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            place: Registered::new(me.clone()),
            inner: Mutex::default(),
        })
    }

    pub(crate) fn host(&self) -> testing::Host {
        self.place.host()
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
}

impl Stub {
    fn take(&self, head: &EnqueueHead) -> Answer {
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

impl HostSide for Stub {
    fn enqueue(&self, head: EnqueueHead, callback: FfiCallback) {
        callback.answer(self.take(&head));
    }

    fn ask(&self, head: AskHead, callback: FfiCallback) {
        let question: Value = serde_json::from_slice(head.question.as_slice()).unwrap_or_default();
        let answer = once(&mut lock(&self.inner).once, &question);
        callback.answer(answer.unwrap_or_else(|| {
            Answer::error(code::REJECTED, "the test host runs no tasks to wait for: use a `Bench`")
        }));
    }

    fn now(&self) -> SystemTime {
        lock(&self.inner).now.unwrap_or_else(SystemTime::now)
    }

    #[allow(clippy::print_stdout, reason = "the test runner shows it where a test fails")]
    fn log(&self, record: &LogRecord) {
        println!("{} {}", record.target.to_text(), record.body.to_text());
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
