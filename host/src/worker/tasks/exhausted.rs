//! The task that is run when another one is given up. It is a part of the failure: kept in the dead task's record, in the
//! write that ends it, and published after the dead letter by whoever carries that out, under the same id.
//!
//! A task without an outcome of its own has none: what is cancelled, expired or no envelope at all is nobody's failure.

use super::carry_out::Carried;
use super::payer::Payer;
use super::place::WhenFull;
use super::plan::Plan;
use crate::terms::Terms;
use bytes::Bytes;
use cardcage_protocol::exhausted::Exhausted;
use cardcage_protocol::{FollowUp, Name, Priority, StagedTask, State, TaskEnvelope, TaskRecord};
use serde_json::value::to_raw_value;
use tokio::time::Instant;

/// What a task declares to be run when it is given up.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    /// The task.
    pub(super) task: Name,
    /// What that one's declaration asks for.
    pub(super) terms: Terms,
    /// The version that declares both.
    pub(super) version: String,
    /// The first number of it.
    pub(super) major: u32,
}

impl Plan {
    /// A dead letter brings the task that is to be run then.
    pub(super) fn with_hook(mut self, hook: Option<&Hook>) -> Self {
        let (Some(hook), Some(write)) = (hook, &mut self.write) else { return self };
        let record = &mut write.record;
        let reason = record.follow_up.iter().find_map(|owed| match owed {
            FollowUp::DeadLetter { reason } => Some(reason),
            _ => None,
        });
        let Some(reason) = reason.filter(|_| record.state == State::Failed) else { return self };
        let Ok(body) = to_raw_value(&Exhausted::of(record, reason)) else { return self };
        record.exhausted = Some(Box::new(StagedTask {
            plugin: record.plugin.clone(),
            version: hook.version.clone(),
            major: hook.major,
            task: hook.task.clone(),
            priority: Priority::Normal,
            at: None,
            expires_ms: hook.terms.expires.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            idempotency_key: None,
            from: None,
            unique_key: hook.terms.unique_key.as_deref().map(str::to_owned),
            serial_key: hook.terms.serial_key.as_deref().map(str::to_owned),
            traceparent: record.traceparent.clone(),
            body,
        }));
        record.follow_up.push(FollowUp::Exhausted);
        self.then.push(FollowUp::Exhausted);
        self
    }
}

impl Payer {
    /// Publishes what the record of a dead task owes.
    pub(super) async fn publish_hook(
        &self,
        envelope: &TaskEnvelope,
        record: &TaskRecord,
        until: Instant,
        when_full: WhenFull<'_>,
    ) -> Result<(), Carried> {
        let Some(hook) = &record.exhausted else { return Ok(()) };
        let report = serde_json::from_str::<Exhausted>(hook.body.get());
        let body = match report.and_then(|report| report.encode_with(&envelope.body)) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                // A newer host's, perhaps. What it wrote is better than nothing.
                tracing::warn!(task = %record.id, %error, "a dead task's report is not understood, and goes on without its body");
                Bytes::copy_from_slice(hook.body.get().as_bytes())
            }
        };
        self.publish_owed(record, Exhausted::id_of(record.id), hook, body, until, when_full).await
    }
}
