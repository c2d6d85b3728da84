//! Tasks that the plugin's own code enqueues: at once, staged with an attempt, one by one or several together.

use super::ledger::{New, State};
use super::world::{Refused, World};
use crate::host_side::lock;
use plugin_api::abi::{Answer, EnqueueHead, FfiBytes, code};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// As many tasks as one attempt may stage, or one batch may have.
const TOGETHER_MAX: usize = 1_000;

impl World {
    pub(super) fn enqueue_head(&self, head: &EnqueueHead) -> Answer {
        let answer = if head.ext.is_empty() {
            let options = serde_json::from_slice(head.options.as_slice()).unwrap_or_default();
            let taken = self.enqueue_one(head, &options, head.body.as_slice());
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

    fn enqueue_one(&self, head: &EnqueueHead, options: &Value, body: &[u8]) -> Result<(Uuid, bool), Refused> {
        let new = self.new_task(head, options, body);
        self.check_priority(options, &new)?;
        match options.get("staged_by").and_then(Value::as_u64) {
            Some(attempt) => self.stage(Uuid::from_bytes(head.context_id), attempt, new),
            None => self.take(new),
        }
    }

    fn check_priority(&self, options: &Value, new: &New) -> Result<(), Refused> {
        let urgent = options.get("priority").and_then(Value::as_str).is_some_and(|name| name != "normal");
        let declared = || self.terms(&new.task).is_some_and(|terms| terms.priorities);
        if urgent && new.plugin.is_none() && !declared() {
            return Err(Refused(422, "invalid_body", format!("the task `{}` has no priorities", new.task)));
        }
        Ok(())
    }

    /// All of them, or none: everything that can be wrong is looked at before the first is taken.
    fn enqueue_all(&self, head: &EnqueueHead) -> Result<Value, Refused> {
        let asked: Value = serde_json::from_slice(head.ext.as_slice()).unwrap_or_default();
        let tasks = asked.get("tasks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let key = asked.get("idempotency_key").and_then(Value::as_str);
        if let Some(ids) = key.and_then(|key| lock(&self.ledger).batches.get(key).cloned()) {
            return Ok(json!({ "ids": ids, "duplicate": true }));
        }
        if tasks.is_empty() || tasks.len() > TOGETHER_MAX {
            let text = format!("a batch has 1 to {TOGETHER_MAX} tasks");
            return Err(Refused(422, "invalid_batch", text));
        }
        let mut bodies = head.body.as_slice();
        let mut parts = Vec::with_capacity(tasks.len());
        for options in tasks {
            let bytes = options.get("body_bytes").and_then(Value::as_u64).unwrap_or_default();
            let (body, rest) = bodies.split_at(usize::try_from(bytes).map_or(0, |n| n.min(bodies.len())));
            bodies = rest;
            let new = self.new_task(head, options, body);
            self.check_priority(options, &new)?;
            let known = new.plugin.is_some() || self.terms(&new.task).is_some();
            if !known || new.key.is_some() {
                let text = format!("the task `{}` is unknown, or has a key of its own", new.task);
                return Err(Refused(422, "invalid_batch", text));
            }
            parts.push((options, body));
        }
        let taken = parts.into_iter().map(|(options, body)| Ok(self.enqueue_one(head, options, body)?.0));
        let ids = taken.collect::<Result<Vec<_>, Refused>>()?;
        if let Some(key) = key {
            lock(&self.ledger).batches.insert(key.to_owned(), ids.clone());
        }
        Ok(json!({ "ids": ids, "duplicate": false }))
    }

    fn new_task(&self, head: &EnqueueHead, options: &Value, body: &[u8]) -> New {
        let text = |name: &str| options.get(name).and_then(Value::as_str).map(str::to_owned);
        let delay = options.get("delay_ms").and_then(Value::as_u64).map(Duration::from_millis);
        let parent = Uuid::from_bytes(head.context_id);
        New {
            id: Uuid::now_v7(),
            task: text("task").unwrap_or_default(),
            plugin: text("plugin"),
            body: body.to_vec(),
            key: text("idempotency_key"),
            due: self.clock.now() + delay.unwrap_or_default(),
            parent: lock(&self.ledger).tasks.contains_key(&parent).then_some(parent),
            cut: None,
        }
    }

    /// Keeps a task with the attempt that enqueued it, until that has succeeded.
    fn stage(&self, parent: Uuid, attempt: u64, new: New) -> Result<(Uuid, bool), Refused> {
        let mut ledger = lock(&self.ledger);
        let over = || Refused(409, "attempt_over", "the attempt that enqueued this task is over".into());
        let entry = ledger.tasks.get_mut(&parent).ok_or_else(over)?;
        if entry.state != State::Running || u64::from(entry.attempt) != attempt {
            return Err(over());
        }
        if entry.staged.len() >= TOGETHER_MAX {
            let text = format!("an attempt stages at most {TOGETHER_MAX} tasks");
            return Err(Refused(413, "too_many_children", text));
        }
        let id = new.id;
        entry.staged.push(new);
        Ok((id, false))
    }
}
