//! A plugin and its tasks in the test's process: what host and broker would do for them, on one clock.
//!
//! A task whose time has come starts at once, on the test's runtime. Time itself goes on as the machine's does, until
//! somebody waits for what is to come: then it is put forward to it.
//!
//! It does not limit how many handlers run, nor their rate, nor does it keep serial keys: a broker does.

use super::clock::Clock;
use super::held::{self, Answered};
use super::ledger::{Entry, Ledger, New, State};
use super::run;
use super::terms::Terms;
use crate::host_side::{HostSide, Registered, lock, once};
use plugin_api::abi::{Answer, AskHead, EnqueueHead, FfiBytes, FfiCallback, LogRecord, code};
use plugin_api::testing::{Host, Started};
use plugin_api::tokio::runtime::Handle;
use plugin_api::tokio::sync::watch;
use plugin_api::tracing::Dispatch;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

pub(super) struct World {
    me: Weak<World>,
    place: Registered,
    pub(super) name: String,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) subscriber: OnceLock<Dispatch>,
    pub(super) plugin: OnceLock<Started>,
    pub(super) ledger: Mutex<Ledger>,
    /// Counts changes of the ledger.
    changes: watch::Sender<u64>,
    log: Mutex<String>,
}

impl World {
    pub(super) fn new(name: &str) -> Arc<Self> {
        let world = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: me.clone(),
            place: Registered::new(me.clone()),
            name: name.to_owned(),
            clock: Clock::new(),
            runtime: Handle::current(),
            subscriber: OnceLock::new(),
            plugin: OnceLock::new(),
            ledger: Mutex::default(),
            changes: watch::Sender::new(0),
            log: Mutex::default(),
        });
        let subscriber = world.host().subscriber("debug");
        world.subscriber.get_or_init(|| subscriber);
        world
    }

    pub(super) fn host(&self) -> Host {
        self.place.host()
    }

    pub(super) fn subscriber(&self) -> Dispatch {
        self.subscriber.get().cloned().unwrap_or_default()
    }

    pub(super) fn logs(&self) -> String {
        lock(&self.log).clone()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn terms(&self, task: &str) -> Option<Terms> {
        Terms::of(self.plugin.get()?, task)
    }

    /// Takes a task; its id, and whether it was there before.
    pub(super) fn take(&self, new: New) -> Result<(Uuid, bool), Refused> {
        let own = new.plugin.is_none();
        if own && self.terms(&new.task).is_none() {
            return Err(Refused(422, "unknown_task", format!("the plugin has no task `{}`", new.task)));
        }
        let mut ledger = lock(&self.ledger);
        if let Some(key) = &new.key {
            match ledger.keys.get(key) {
                Some((id, body)) if *body == new.body => return Ok((*id, true)),
                Some(_) => return Err(Refused(422, "idempotency_conflict", String::new())),
                None => drop(ledger.keys.insert(key.clone(), (new.id, new.body.clone()))),
            }
        }
        if own && let Some(id) = self.unique(&ledger, &new) {
            return Ok((id, true));
        }
        let id = new.id;
        ledger.tasks.insert(id, Entry::new(new, self.clock.now()));
        drop(ledger);
        self.changed();
        self.start_due();
        Ok((id, false))
    }

    /// The task that has the same unique key and has not ended.
    fn unique(&self, ledger: &Ledger, new: &New) -> Option<Uuid> {
        let terms = self.terms(&new.task)?;
        let value = |body: &[u8]| terms.unique_value(&serde_json::from_slice(body).unwrap_or_default());
        let mine = value(&new.body)?;
        let same = |entry: &&Entry| {
            entry.new.task == new.task
                && !entry.state.is_final()
                && value(&entry.new.body).as_ref() == Some(&mine)
        };
        ledger.tasks.values().find(same).map(|entry| entry.new.id)
    }

    /// Starts every task whose time has come.
    pub(super) fn start_due(&self) {
        let Some(world) = self.me.upgrade() else { return };
        let now = self.clock.now();
        loop {
            let mut ledger = lock(&self.ledger);
            let Some((due, id)) = ledger.next() else { return };
            if due > now {
                return;
            }
            if let Some(entry) = ledger.tasks.get_mut(&id) {
                entry.state = State::Running;
            }
            drop(ledger);
            drop(self.runtime.spawn(run::attempt(world.clone(), id)));
        }
    }

    /// Lets time pass until a task has ended, or is parked. True: it is so.
    pub(super) async fn run_until_over(&self, id: Uuid, not_after: Option<SystemTime>) -> bool {
        let mut changes = self.watch();
        loop {
            changes.borrow_and_update();
            let (state, next) = {
                let ledger = lock(&self.ledger);
                (ledger.tasks.get(&id).map(|entry| entry.state), ledger.next())
            };
            match state {
                None => return false,
                Some(state) if state.is_final() || state == State::Parked => return true,
                Some(State::Running) => {}
                Some(_) => match next {
                    Some((due, _)) if not_after.is_none_or(|limit| due <= limit) => {
                        self.clock.forward_to(due);
                        self.start_due();
                        continue;
                    }
                    _ => return false,
                },
            }
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// Lets so much time pass, with everything that is due in it; returns when nothing runs any more.
    pub(super) async fn advance(&self, time: Duration) {
        let end = self.clock.now() + time;
        let mut changes = self.watch();
        loop {
            changes.borrow_and_update();
            let (busy, next) = {
                let ledger = lock(&self.ledger);
                (ledger.tasks.values().any(|entry| entry.state == State::Running), ledger.next())
            };
            match next {
                _ if busy => drop(changes.changed().await),
                Some((due, _)) if due <= end => {
                    self.clock.forward_to(due);
                    self.start_due();
                }
                _ => return self.clock.forward_to(end),
            }
        }
    }
}

/// Why a task was not taken: status, code, detail; an empty one where a host has nothing to add to the code's title.
#[derive(Debug)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str, pub(super) String);

impl Refused {
    pub(super) fn problem(&self) -> Value {
        let Self(status, code, detail) = self;
        let title = self.title();
        let mut problem =
            json!({ "type": format!("/problems/{code}"), "status": status, "code": code, "title": title });
        if let Some(problem) = problem.as_object_mut().filter(|_| !detail.is_empty()) {
            problem.insert("detail".into(), detail.as_str().into());
        }
        problem
    }

    /// What is wrong, in one sentence.
    pub(super) fn sentence(&self) -> &str {
        if self.2.is_empty() { self.title() } else { &self.2 }
    }

    /// As hosts call it.
    fn title(&self) -> &str {
        match self.1 {
            "malformed_request" => "The request is not valid HTTP, or not valid JSON where JSON is needed.",
            "invalid_body" => "The body does not match the schema.",
            "invalid_batch" => "These tasks cannot be enqueued together.",
            "body_too_large" => "The request's body is larger than this route accepts.",
            "too_many_children" => "One attempt of a task enqueued more than its record can hold.",
            "attempt_over" => {
                "The attempt that enqueued this task is over, so nothing is enqueued in its name."
            }
            "idempotency_conflict" => "The idempotency key was used before with another body.",
            "plugin_error" => "The plugin could not handle the request.",
            _ => &self.2,
        }
    }
}

impl HostSide for World {
    fn enqueue(&self, head: EnqueueHead, callback: FfiCallback) {
        let Some(world) = self.me.upgrade() else { return };
        held::ask(Box::new(move || Some(Answered::new(callback, world.enqueue_head(&head)))));
    }

    fn ask(&self, head: AskHead, callback: FfiCallback) {
        let Some(world) = self.me.upgrade() else { return };
        held::ask(Box::new(move || world.asked(&head, callback)));
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn log(&self, record: &LogRecord) {
        let level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
        let level = level.get(usize::from(record.level).saturating_sub(1)).unwrap_or(&"?");
        let body: Value = serde_json::from_slice(record.body.as_slice()).unwrap_or_default();
        let message = body.get("message").and_then(Value::as_str).unwrap_or_default();
        let mut line = format!("{level} {}: {message}", record.target.to_text());
        for part in ["fields", "work"] {
            for (name, value) in body.get(part).and_then(Value::as_object).into_iter().flatten() {
                let _ = match value {
                    Value::String(text) => write!(line, " {name}={text}"),
                    value => write!(line, " {name}={value}"),
                };
            }
        }
        let _ = writeln!(lock(&self.log), "{line}");
    }
}

impl World {
    /// `None`: it is answered when there is something to say.
    fn asked(self: Arc<Self>, head: &AskHead, callback: FfiCallback) -> Option<Answered> {
        let question: Value = serde_json::from_slice(head.question.as_slice()).unwrap_or_default();
        let asker = Uuid::from_bytes(head.context_id);
        if let Some(entry) = lock(&self.ledger).tasks.get_mut(&asker)
            && let Some(answer) = once(&mut entry.once, &question)
        {
            return Some(Answered::new(callback, answer));
        }
        let wait = question.get("wait").and_then(|wait| {
            Some((wait.get("task_id")?.as_str()?.parse::<Uuid>().ok()?, wait.get("at_most_ms")?.as_u64()?))
        });
        let Some((id, at_most_ms)) = wait else {
            let answer = Answer::error(code::REJECTED, "the bench does not know this question");
            return Some(Answered::new(callback, answer));
        };
        let limit = self.clock.now() + Duration::from_millis(at_most_ms);
        let runtime = self.runtime.clone();
        drop(runtime.spawn(async move { callback.answer(self.waited(id, at_most_ms, limit).await) }));
        None
    }

    async fn waited(&self, id: Uuid, at_most_ms: u64, limit: SystemTime) -> Answer {
        if !lock(&self.ledger).tasks.contains_key(&id) {
            let refused = Refused(404, "no_such_task", "there is no task with this id".into());
            return Answer { code: code::REJECTED, value: FfiBytes::from(refused.problem().to_string()) };
        }
        let over = self.run_until_over(id, Some(limit));
        let _ = tokio::time::timeout(Duration::from_millis(at_most_ms), over).await;
        let view = lock(&self.ledger)
            .tasks
            .get(&id)
            .filter(|task| task.state.is_final())
            .map(|task| task.view(&self.name));
        if view.is_none() {
            // Whoever waits again, waits for a later time.
            self.clock.forward_to(limit);
            self.start_due();
        }
        Answer::ok(view.unwrap_or_default().to_string())
    }
}
