//! Tasks that a handler enqueues together: all or none, whether they are published at once or staged with an attempt.

use super::services::{HostServices, unusable};
use crate::enqueue::{self, NewTask};
use crate::loader::{EnqueueAllRequest, Identity, Receipts};
use cardcage_protocol::{Name, Problem, ProblemCode, TaskId};

impl HostServices {
    pub(super) async fn accept_all(
        &self,
        plugin: &Identity,
        request: EnqueueAllRequest,
    ) -> Result<Receipts, Problem> {
        let EnqueueAllRequest { tasks, idempotency_key } = request;
        let names = tasks.iter().map(|(_, task)| Name::new(&task.task));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(&error.to_string()))?;
        let Some((_, first)) = tasks.first() else {
            return Ok(Receipts { ids: Vec::new(), duplicate: false });
        };
        let staged_by = first.staged_by;
        if tasks.iter().any(|(_, task)| task.staged_by != staged_by) {
            let detail = "Some of them are published at once, and others with the attempt's success.";
            return Err(Problem::new(ProblemCode::InvalidBatch).detail(detail));
        }
        let parent = TaskId::from_bytes(first.context_id).ok();
        let root = self.root(parent);
        // A key belongs to whoever chose it.
        let route = first.from.as_deref().map_or_else(String::new, enqueue::keys_of_plugin);
        let new =
            |(name, (terms, task))| NewTask { root, ..NewTask::asked(plugin, name, &route, terms, task) };
        let (Some(attempt), Some(parent)) = (staged_by, parent) else {
            let new = names.iter().zip(tasks).map(new).collect();
            let all = enqueue::publish_all(&self.broker, new, idempotency_key, self.enqueue_timeout).await?;
            return Ok(Receipts { ids: texts(&all.ids), duplicate: all.duplicate });
        };
        if idempotency_key.is_some() {
            let detail = "What a task enqueues with its success is published once without a key; `enqueue_now` takes one.";
            return Err(Problem::new(ProblemCode::InvalidBatch).detail(detail));
        }
        enqueue::check_all(&names.iter().zip(tasks.clone()).map(new).collect::<Vec<_>>(), None)?;
        let staging = self.staging.get().ok_or_else(|| unusable("no task runs here"))?;
        let staged = names.into_iter().zip(tasks);
        let staged = staged.map(|(name, (terms, task))| self.staged(plugin, name, &terms, task));
        let ids = staging.stage_all(parent, attempt, staged.collect::<Result<Vec<_>, _>>()?)?;
        Ok(Receipts { ids: texts(&ids), duplicate: false })
    }
}

fn texts(ids: &[TaskId]) -> Vec<String> {
    ids.iter().map(TaskId::to_string).collect()
}
