//! Publishing the tasks that a record owes: a success its children, a failure the task that is run then (`exhausted`).
//!
//! Each has the same id whoever publishes it, so a repeat is a duplicate to the broker as long as it remembers; whoever
//! publishes later looks first.

use super::carry_out::{AGAIN_MIN, Carried, PUBLISH_TIMEOUT};
use super::payer::Payer;
use super::place::WhenFull;
use crate::enqueue::{self, Fixed, NewTask};
use crate::failpoint::{Point, reach};
use crate::loader::Identity;
use crate::terms::Terms;
use bytes::Bytes;
use cardcage_protocol::{Name, ProblemCode, StagedTask, TaskId, TaskRecord, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Half of the time for which the broker knows a message id again.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Payer {
    /// Publishes the record's children.
    pub(super) async fn publish_children(
        &self,
        record: &TaskRecord,
        until: Instant,
        when_full: WhenFull<'_>,
    ) -> Result<(), Carried> {
        for (n, child) in (0..).zip(&record.children) {
            let body = Bytes::copy_from_slice(child.body.get().as_bytes());
            self.publish_owed(record, TaskId::derive(record.id, n), child, body, until, when_full).await?;
            reach(Point::AfterChild);
        }
        Ok(())
    }

    /// Publishes one of them under this id, unless it is there.
    pub(super) async fn publish_owed(
        &self,
        record: &TaskRecord,
        id: TaskId,
        child: &StagedTask,
        body: Bytes,
        until: Instant,
        when_full: WhenFull<'_>,
    ) -> Result<(), Carried> {
        let now = Timestamp::from_unix_ms(self.broker.now_unix_ms());
        let remembered_ms = u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX);
        // Whoever was stopped since the record cannot know who has been here meanwhile.
        let look = record.finished_at.is_none_or(|end| now > end.plus_ms(remembered_ms));
        let there = look && {
            let find = || self.broker.find_task(id);
            self.again(until, "a task's child could not be looked for; trying again", find).await?.is_some()
        };
        if there { Ok(()) } else { self.publish_child(record, id, child, body, until, when_full).await }
    }

    async fn publish_child(
        &self,
        parent: &TaskRecord,
        id: TaskId,
        child: &StagedTask,
        body: Bytes,
        until: Instant,
        when_full: WhenFull<'_>,
    ) -> Result<(), Carried> {
        let identity = Identity {
            name: child.plugin.as_str().into(),
            version: child.version.as_str().into(),
            major: child.major,
        };
        let mut pause = AGAIN_MIN;
        let from = child.from.as_ref().map(Name::as_str);
        let route = from.map_or_else(String::new, enqueue::keys_of_plugin);
        loop {
            let now_ms = self.broker.now_unix_ms();
            let delay_ms = child.at.map(|at| at.unix_ms().saturating_sub(now_ms));
            let new = NewTask {
                identity: &identity,
                task: &child.task,
                route: &route,
                idempotency_key: child.idempotency_key.clone(),
                traceparent: child.traceparent.clone(),
                parent: Some(parent.id),
                root: None,
                fixed: Some(Fixed { id, root: parent.root_id }),
                priority: child.priority,
                delay: delay_ms.map(Duration::from_millis),
                terms: Terms {
                    // Looked at when it was staged.
                    priorities: true,
                    expires: child.expires_ms.map(Duration::from_millis),
                    unique_key: child.unique_key.as_deref().map(Arc::from),
                    serial_key: child.serial_key.as_deref().map(Arc::from),
                },
                body: body.clone(),
            };
            let problem = match enqueue::publish(&self.broker, new, PUBLISH_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            };
            let (task, parent) = (id, parent.id);
            if !problem.code.is_retryable() {
                tracing::error!(%task, %parent, %problem, "a task's child is refused for good, and dropped");
                return Ok(());
            }
            if problem.code == ProblemCode::QueueFull {
                match when_full {
                    WhenFull::GiveUp => return Err(Carried::GivenUp),
                    WhenFull::Wait(place) => place.leave_to(&child.plugin).await,
                }
            }
            tracing::warn!(%task, %parent, %problem, "a task's child could not be published; trying again");
            Box::pin(self.pause(&mut pause, until)).await?;
        }
    }
}
