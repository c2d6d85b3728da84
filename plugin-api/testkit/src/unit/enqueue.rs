//! Tasks that the plugin's own code enqueues: at once, staged with an attempt, one by one or several together.
//!
//! What a host would refuse is refused in the host's words (`host/src/enqueue.rs`, `host/src/role/batch.rs`); the stories of
//! `plugins/chaos/src/levels.rs` hold both to them.

use super::ledger::{New, State};
use super::world::{Refused, World};
use crate::host_side::lock;
use plugin_api::abi::{Answer, EnqueueHead, FfiBytes, code};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// As many tasks as one batch may have, or one attempt may stage.
const TOGETHER_MAX: usize = 1_000;
/// As many bytes as their bodies may have in a batch.
const TOGETHER_MAX_BYTES: usize = 8 << 20;
/// As many as what an attempt stages may have, written down.
const STAGED_MAX_BYTES: usize = 192 << 10;
/// The largest body of a task.
const BODY_MAX_BYTES: usize = 512 << 10;
/// The longest idempotency key.
const KEY_MAX_BYTES: usize = 255;
/// The longest delay: a year.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A task as a handler asks for it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    options: &'a Value,
    body: &'a [u8],
}

impl<'a> Asked<'a> {
    fn text(self, name: &str) -> Option<&'a str> {
        self.options.get(name).and_then(Value::as_str)
    }

    fn task(self) -> &'a str {
        self.text("task").unwrap_or_default()
    }

    fn delay(self) -> Duration {
        let ms = self.options.get("delay_ms").and_then(Value::as_u64);
        ms.map(Duration::from_millis).unwrap_or_default()
    }

    /// The attempt that it is staged with.
    fn staged_by(self) -> Option<u64> {
        self.options.get("staged_by").and_then(Value::as_u64)
    }
}

fn invalid_batch(detail: impl Into<String>) -> Refused {
    Refused(422, "invalid_batch", detail.into())
}

impl World {
    pub(super) fn enqueue_head(&self, head: &EnqueueHead) -> Answer {
        let answer = if head.ext.is_empty() {
            let options = serde_json::from_slice(head.options.as_slice()).unwrap_or_default();
            let taken = self.enqueue_one(head, Asked { options: &options, body: head.body.as_slice() });
            taken.map(|(id, duplicate)| json!({ "id": id, "duplicate": duplicate }))
        } else {
            self.enqueue_all(head)
        };
        match answer {
            Ok(receipt) => Answer::ok(receipt.to_string()),
            Err(refused) => {
                Answer { code: code::REJECTED, value: FfiBytes::from(refused.problem().to_string()) }
            }
        }
    }

    fn enqueue_one(&self, head: &EnqueueHead, asked: Asked<'_>) -> Result<(Uuid, bool), Refused> {
        self.declares(asked)?;
        self.check(asked, asked.text("idempotency_key"))?;
        let new = self.new_task(head, asked);
        match asked.staged_by() {
            Some(attempt) => {
                let id = new.id;
                self.stage(Uuid::from_bytes(head.context_id), attempt, vec![new])?;
                Ok((id, false))
            }
            None => {
                fits(asked)?;
                self.take(new)
            }
        }
    }

    fn declares(&self, asked: Asked<'_>) -> Result<(), Refused> {
        let task = asked.task();
        if asked.text("plugin").is_none() && self.terms(task).is_none() {
            let text = format!("The plugin enqueues `{task}`, which it does not declare with `.task(…)`.");
            return Err(Refused(500, "plugin_error", text));
        }
        Ok(())
    }

    /// What can be said of a task by itself.
    fn check(&self, asked: Asked<'_>, key: Option<&str>) -> Result<(), Refused> {
        let malformed = |text: String| Err(Refused(400, "malformed_request", text));
        if asked.delay() > DELAY_MAX {
            return malformed("A task cannot be delayed by more than a year.".to_owned());
        }
        let (urgent, own) = (asked.text("priority").is_some_and(|name| name != "normal"), asked.task());
        let declared = || self.terms(own).is_some_and(|terms| terms.priorities);
        // Of another plugin's tasks nobody here knows what they declare.
        if urgent && asked.text("plugin").is_none() && !declared() {
            return malformed(format!(
                "The task {}.{own} declares no priorities, so it has none.",
                self.name
            ));
        }
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_MAX_BYTES) {
            return malformed(format!("An idempotency key has 1 to {KEY_MAX_BYTES} bytes."));
        }
        Ok(())
    }

    /// All of them, or none: everything that can be wrong is looked at before the first is taken.
    fn enqueue_all(&self, head: &EnqueueHead) -> Result<Value, Refused> {
        let all: Value = serde_json::from_slice(head.ext.as_slice()).unwrap_or_default();
        let tasks = all.get("tasks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let key = all.get("idempotency_key").and_then(Value::as_str);
        if tasks.len() > TOGETHER_MAX {
            let count = tasks.len();
            return Err(invalid_batch(format!(
                "At most {TOGETHER_MAX} tasks are enqueued together; these are {count}."
            )));
        }
        let tasks = cut(tasks, head.body.as_slice())?;
        let Some(first) = tasks.first() else { return Ok(json!({ "ids": [], "duplicate": false })) };
        for task in &tasks {
            self.declares(*task)?;
            let of = |task: &Asked<'_>| task.text("plugin").unwrap_or(&self.name).to_owned();
            let (one, other) = (of(first), of(task));
            if one != other {
                let text = format!("They are tasks of more than one plugin: of {one} and of {other}.");
                return Err(invalid_batch(text));
            }
        }
        if tasks.iter().any(|task| task.staged_by() != first.staged_by()) {
            let text = "Some of them are published at once, and others with the attempt's success.";
            return Err(invalid_batch(text));
        }
        if let (Some(_), Some(_)) = (first.staged_by(), key) {
            let text = "What a task enqueues with its success is published once without a key; `enqueue_now` takes one.";
            return Err(invalid_batch(text));
        }
        self.check_all(&tasks, key)?;
        let new: Vec<New> = tasks.iter().map(|task| self.new_task(head, *task)).collect();
        let ids: Vec<Uuid> = new.iter().map(|new| new.id).collect();
        if let Some(attempt) = first.staged_by() {
            self.stage(Uuid::from_bytes(head.context_id), attempt, new)?;
            return Ok(json!({ "ids": ids, "duplicate": false }));
        }
        let said: Vec<(String, Vec<u8>)> =
            new.iter().map(|new| (new.task.clone(), new.body.clone())).collect();
        match key.and_then(|key| lock(&self.ledger).batches.get(key).cloned()) {
            Some((ids, before)) if before == said => return Ok(json!({ "ids": ids, "duplicate": true })),
            Some(_) => return Err(Refused(422, "idempotency_conflict", String::new())),
            None => {}
        }
        tasks.iter().try_for_each(|task| fits(*task))?;
        for new in new {
            self.take(new)?;
        }
        if let Some(key) = key {
            lock(&self.ledger).batches.insert(key.to_owned(), (ids.clone(), said));
        }
        Ok(json!({ "ids": ids, "duplicate": false }))
    }

    /// What can be said of tasks that are to be enqueued together.
    fn check_all(&self, tasks: &[Asked<'_>], key: Option<&str>) -> Result<(), Refused> {
        let is_delayed = |task: &Asked<'_>| !task.delay().is_zero();
        let first_is_delayed = tasks.first().is_some_and(is_delayed);
        for task in tasks {
            self.check(*task, key)?;
            if is_delayed(task) != first_is_delayed {
                return Err(invalid_batch("Some of them are delayed and others are not."));
            }
            if task.text("idempotency_key").is_some() {
                let text = "A task among others has no idempotency key of its own; give one to all of them together.";
                return Err(invalid_batch(text));
            }
            let terms = self.terms(task.task()).filter(|_| task.text("plugin").is_none());
            let body = || serde_json::from_slice(task.body).unwrap_or_default();
            if terms.is_some_and(|terms| terms.unique_value(&body()).is_some()) {
                let text = format!(
                    "{}.{} has a unique key, and one that is queued already would not be stored again: enqueue each on its own.",
                    self.name,
                    task.task()
                );
                return Err(invalid_batch(text));
            }
        }
        let bytes: usize = tasks.iter().map(|task| task.body.len()).sum();
        if bytes > TOGETHER_MAX_BYTES {
            let text = format!(
                "Tasks enqueued together have at most {TOGETHER_MAX_BYTES} bytes; these have {bytes}."
            );
            return Err(Refused(413, "body_too_large", text));
        }
        Ok(())
    }

    fn new_task(&self, head: &EnqueueHead, asked: Asked<'_>) -> New {
        let parent = Uuid::from_bytes(head.context_id);
        New {
            id: Uuid::now_v7(),
            task: asked.task().to_owned(),
            plugin: asked.text("plugin").map(str::to_owned),
            body: asked.body.to_vec(),
            key: asked.text("idempotency_key").map(str::to_owned),
            due: self.clock.now() + asked.delay(),
            parent: lock(&self.ledger).tasks.contains_key(&parent).then_some(parent),
            cut: None,
        }
    }

    /// Keeps tasks with the attempt that enqueued them, until that has succeeded; all or none.
    fn stage(&self, parent: Uuid, attempt: u64, new: Vec<New>) -> Result<(), Refused> {
        let mut ledger = lock(&self.ledger);
        let over = || Refused(409, "attempt_over", String::new());
        let entry = ledger.tasks.get_mut(&parent).ok_or_else(over)?;
        if entry.state != State::Running || u64::from(entry.attempt) != attempt {
            return Err(over());
        }
        let too_many = |text: String| Err(Refused(413, "too_many_children", text));
        if entry.staged.len() + new.len() > TOGETHER_MAX {
            return too_many(format!("An attempt enqueues at most {TOGETHER_MAX} tasks."));
        }
        let bytes: usize = entry.staged.iter().chain(&new).map(|new| self.written(new)).sum();
        if bytes > STAGED_MAX_BYTES {
            return too_many(format!(
                "What an attempt enqueues has at most {STAGED_MAX_BYTES} bytes; with this it would be {bytes}."
            ));
        }
        entry.staged.extend(new);
        Ok(())
    }

    /// About how many bytes a staged task takes in its parent's record: nobody here knows its version or its trace.
    fn written(&self, new: &New) -> usize {
        let plugin = new.plugin.as_deref().unwrap_or(&self.name);
        let head = json!({ "plugin": plugin, "version": "0.0.0", "major": 0, "task": new.task, "body": "" });
        // The body stands there without quotes, and a comma follows.
        head.to_string().len() - 2 + new.key.as_deref().map_or(0, str::len) + new.body.len() + 1
    }
}

/// The broker takes no larger one.
fn fits(asked: Asked<'_>) -> Result<(), Refused> {
    let is_too_large = asked.body.len() > BODY_MAX_BYTES;
    if is_too_large { Err(Refused(413, "body_too_large", String::new())) } else { Ok(()) }
}

/// Each task with its body; the bodies follow each other.
fn cut<'a>(tasks: &'a [Value], mut bodies: &'a [u8]) -> Result<Vec<Asked<'a>>, Refused> {
    let mut all = Vec::with_capacity(tasks.len());
    for options in tasks {
        let bytes = options.get("body_bytes").and_then(Value::as_u64).unwrap_or_default();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let Some((body, rest)) = bodies.split_at_checked(bytes) else {
            return Err(invalid_batch("Their bodies are shorter than they say."));
        };
        bodies = rest;
        all.push(Asked { options, body });
    }
    Ok(all)
}
