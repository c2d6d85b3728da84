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

impl HostSide for Stub {
    fn enqueue(&self, head: &EnqueueHead) -> Answer {
        let options: Value = serde_json::from_slice(head.options.as_slice()).unwrap_or_default();
        let text = |name: &str| options.get(name).and_then(Value::as_str).map(str::to_owned);
        let key = text("idempotency_key");
        let mut inner = lock(&self.inner);
        if inner.refuses {
            let problem = json!({"status": 503, "code": "broker_unavailable", "title": "The broker is away"});
            return Answer { code: code::UNAVAILABLE, value: FfiBytes::from(problem.to_string()) };
        }
        let known = inner.enqueued.iter().find(|task| key.is_some() && task.idempotency_key == key);
        let (id, duplicate) = known.map_or_else(|| (Uuid::now_v7(), false), |task| (task.id, true));
        if !duplicate {
            inner.enqueued.push(Enqueued {
                id,
                task: text("task").unwrap_or_default(),
                body: serde_json::from_slice(head.body.as_slice()).unwrap_or_default(),
                idempotency_key: key,
                delay: options.get("delay_ms").and_then(Value::as_u64).map(Duration::from_millis),
            });
        }
        Answer::ok(json!({"id": id, "duplicate": duplicate}).to_string())
    }

    fn ask(&self, head: &AskHead, callback: FfiCallback) {
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
