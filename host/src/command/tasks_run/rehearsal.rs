//! What a task gets from its host where there is none: what would leave the process is noted and shown instead.
//!
//! Invariant: nothing leaves this process. An enqueue is answered as if it had been stored, with an id that nobody knows.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cardcage_protocol::{Name, Problem, ProblemCode, TaskId, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::enqueue::{NewTask, check_all};
use crate::loader::{
    Asker, EnqueueAllRequest, EnqueueRequest, Identity, OutgoingCall, Question, Receipt, Receipts,
    ServiceFuture, Services,
};
use crate::once::Recorded;
use crate::terms::Terms;

/// Notes what a task asks for.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    enqueued: Mutex<Vec<Value>>,
    /// What the task did once, by its key.
    done: Mutex<HashMap<String, Box<RawValue>>>,
}

impl Rehearsal {
    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        // Nothing that holds the lock panics.
        self.enqueued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would have been enqueued, in its order.
    pub(super) fn enqueued(&self) -> Vec<Value> {
        self.lock().clone()
    }
}

impl Rehearsal {
    /// Answers the id that the task does not have.
    fn note(&self, plugin: &Identity, request: EnqueueRequest) -> String {
        let of = plugin.name.to_string();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        tracing::info!(
            plugin = of, task = request.task, delay_ms = request.delay_ms, key = request.idempotency_key, %body,
            "a task would be enqueued now"
        );
        self.lock().push(json!({
            "plugin": of, "task": request.task, "body": body, "delay_ms": request.delay_ms,
            "idempotency_key": request.idempotency_key,
        }));
        TaskId::generate().to_string()
    }
}

impl Services for Rehearsal {
    fn enqueue(&self, plugin: &Identity, _: Terms, request: EnqueueRequest) -> ServiceFuture<Receipt> {
        let id = self.note(plugin, request);
        Box::pin(std::future::ready(Ok(Receipt { id, duplicate: false })))
    }

    fn enqueue_all(&self, plugin: &Identity, request: EnqueueAllRequest) -> ServiceFuture<Receipts> {
        let names: Vec<_> = request.tasks.iter().filter_map(|(_, task)| Name::new(&task.task).ok()).collect();
        let tasks = names.iter().zip(request.tasks.clone());
        let tasks = tasks.map(|(name, (terms, task))| NewTask::asked(plugin, name, "", terms, task));
        if let Err(problem) = check_all(&tasks.collect::<Vec<_>>(), request.idempotency_key.as_deref()) {
            return Box::pin(std::future::ready(Err(problem)));
        }
        let ids = request.tasks.into_iter().map(|(_, task)| self.note(plugin, task)).collect();
        Box::pin(std::future::ready(Ok(Receipts { ids, duplicate: false })))
    }

    fn call(&self, call: OutgoingCall) -> ServiceFuture<Bytes> {
        tracing::warn!(
            plugin = &*call.target.name,
            "a call to another plugin was refused: nothing else runs here"
        );
        let detail = "The task runs in the foreground, without other plugins.";
        Box::pin(std::future::ready(Err(Problem::new(ProblemCode::NoWorker).detail(detail))))
    }

    fn ask(&self, _: Asker, question: Question) -> ServiceFuture<Bytes> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = match question {
            Question::OnceLook { key } => Ok(Recorded::from(done.get(&key).cloned())),
            Question::OnceKeep { key, value } => {
                tracing::info!(key, value = value.get(), "this would be recorded as done");
                Ok(Recorded::from(done.insert(key, value)))
            }
            Question::Wait { .. } => {
                let detail = "The task runs in the foreground, and no other one does.";
                Err(Problem::new(ProblemCode::NoSuchTask).detail(detail))
            }
        };
        let json = recorded.and_then(|recorded| {
            serde_json::to_vec(&recorded).map_err(|_| Problem::new(ProblemCode::Internal))
        });
        Box::pin(std::future::ready(json.map(Bytes::from)))
    }

    fn progress(
        &self,
        _: [u8; 16],
        _: u32,
        report: &[u8],
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let report = String::from_utf8_lossy(report).into_owned();
        tracing::info!(report, "the task told its progress");
        None
    }

    fn now_unix_ns(&self) -> u64 {
        Timestamp::now().unix_ms().saturating_mul(1_000_000)
    }

    fn metric(&self, plugin: &Identity, _: u8, name: &str, labels: &[(String, String)], value: f64) {
        tracing::debug!(plugin = %plugin.name, name, ?labels, value, "the task recorded a measurement");
    }
}

/// The services, and the same for looking at what they noted.
pub(super) fn services() -> (Arc<dyn Services>, Arc<Rehearsal>) {
    let rehearsal = Arc::new(Rehearsal::default());
    (rehearsal.clone(), rehearsal)
}
