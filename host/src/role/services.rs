//! What plugins get from the host, in either role: enqueueing, calls to other plugins, the clock, metrics.

use super::metrics::PluginMetrics;
use crate::broker::Broker;
use crate::calling::{self, Callee, CancelOnDrop};
use crate::enqueue::{self, NewTask};
use crate::follow::Follower;
use crate::loader::{
    Asker, EnqueueAllRequest, EnqueueRequest, Identity, OutgoingCall, Question, Receipt, Receipts,
    ServiceFuture, Services,
};
use crate::quarantine::Quarantines;
use crate::terms::Terms;
use crate::worker::tasks::{ProgressReports, Staging};
use crate::{lookup, once};
use bytes::Bytes;
use cardcage_abi::headers;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, InstanceId, Name, Problem, ProblemCode, StagedTask, TaskId,
    Text, Timestamp, limits,
};
use serde_json::Value;
use serde_json::value::RawValue;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Handlers of one process that wait for tasks at the same time; each costs the broker a subscription.
const WAITERS_MAX: usize = 1_000;
/// Longest wait of one question; the SDK asks again. A handler that is gone has nobody waiting for longer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Places for those who wait.
pub(super) fn waiters() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WAITERS_MAX))
}

/// The services of one child.
#[derive(Debug, Clone)]
pub(super) struct HostServices {
    pub(super) broker: Broker,
    pub(super) instance: InstanceId,
    pub(super) enqueue_timeout: Duration,
    pub(super) metrics: PluginMetrics,
    /// What takes no calls now.
    pub(super) quarantines: Quarantines,
    /// Handlers that wait for tasks.
    pub(super) waiters: Arc<Semaphore>,
    /// Where tasks run: set once the engine is there.
    pub(super) progress: Arc<OnceLock<ProgressReports>>,
    /// The same, for the tasks that handlers enqueue.
    pub(super) staging: Arc<OnceLock<Staging>>,
}

pub(super) fn unusable(what: &str) -> Problem {
    Problem::new(ProblemCode::Internal)
        .detail(format!("The plugin asked the host for something unusable: {what}."))
}

impl HostServices {
    async fn answer(&self, asker: Asker, question: Question) -> Result<Bytes, Problem> {
        let task = || {
            let outside = |_| unusable("what is done once belongs to a task's attempt");
            TaskId::from_bytes(asker.context_id).map_err(outside)
        };
        let json = match question {
            Question::OnceLook { key } => {
                let id = task()?;
                if let Some(staging) = self.staging.get() {
                    staging.note_once(id);
                }
                serde_json::to_vec(&once::look(&self.broker, id, asker.attempt, &key).await?)
            }
            Question::OnceKeep { key, value } => {
                serde_json::to_vec(&once::keep(&self.broker, task()?, asker.attempt, &key, &value).await?)
            }
            Question::Wait { task_id, at_most_ms } => {
                serde_json::to_vec(&self.wait(task_id, Duration::from_millis(at_most_ms)).await?)
            }
        };
        json.map(Bytes::from).map_err(|error| unusable(&error.to_string()))
    }

    /// The task as it is when it has ended; null when it has not by then.
    async fn wait(&self, task: TaskId, at_most: Duration) -> Result<Value, Problem> {
        let _place = self.waiters.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("As many handlers of this process wait for tasks as may ({WAITERS_MAX}).");
            Problem::new(ProblemCode::Overloaded).detail(detail).retry_after_s(1)
        })?;
        let failed = |error: crate::broker::Error| Problem::new(error.problem_code());
        let follower = Follower::begin(&self.broker, task).await.map_err(failed)?;
        let follower = follower.ok_or(Problem::new(ProblemCode::NoSuchTask))?;
        let view = follower.wait_end(at_most.min(WAIT_MAX)).await.map_err(failed)?;
        Ok(if lookup::has_ended(&view) { view } else { Value::Null })
    }

    async fn call_route(&self, call: OutgoingCall) -> Result<Bytes, Problem> {
        let plugin = Name::new(&call.target.name).map_err(|error| unusable(&error.to_string()))?;
        let route = Name::new(&call.route).map_err(|error| unusable(&error.to_string()))?;
        let left = Duration::from_millis(call.deadline_unix_ms.saturating_sub(self.broker.now_unix_ms()));
        if left.is_zero() {
            return Err(Problem::new(ProblemCode::DeadlineExceeded));
        }
        if call.body.len() > limits::INLINE_BODY_MAX_BYTES {
            let detail = format!(
                "A call from plugin to plugin carries at most {} bytes.",
                limits::INLINE_BODY_MAX_BYTES
            );
            return Err(Problem::new(ProblemCode::BodyTooLarge).detail(detail));
        }
        let id = CallId::generate();
        let mut head = call.headers.to_vec();
        headers::push(&mut head, "x-request-id", id.to_string().as_bytes());
        let request = CallRequest {
            call_id: id,
            deadline_unix_ms: call.deadline_unix_ms,
            route: Text::from(route.as_str()),
            request_id: *id.as_bytes(),
            caller_instance: Text::from(self.instance.as_str()),
            header_block: Bytes::from(head),
            body: CallBody::Whole(call.body),
            ext: Bytes::new(),
        };
        let message = request.encode().map_err(|error| {
            tracing::warn!(%error, route = route.as_str(), "a call from plugin to plugin exceeds what one carries");
            Problem::new(ProblemCode::HeadersTooLarge)
        })?;
        let (broker, major) = (&self.broker, call.target.major);
        let subject = broker.subjects().call(&plugin, major, &route);
        let callee = Callee { plugin: plugin.as_str(), major, route: route.as_str(), subject: &subject };
        let mut cancel = CancelOnDrop::new(broker, broker.subjects().callctl(id));
        let deadline = Instant::now() + left;
        match calling::first_reply(broker, &self.quarantines, callee, deadline, message).await {
            Ok(reply) => {
                // A reply that streams is left to nobody: its handler is told.
                if !matches!(reply.body, CallBody::Stream) {
                    cancel.answered();
                }
                answer(reply)
            }
            Err(problem) => {
                cancel.failed(&problem);
                Err(problem)
            }
        }
    }

    /// The first task of the tree of one that runs here.
    pub(super) fn root(&self, of: Option<TaskId>) -> Option<TaskId> {
        of.and_then(|task| self.staging.get()?.root(task))
    }

    /// What is wrong with it is said while the handler can still do something about it.
    pub(super) fn staged(
        &self,
        plugin: &Identity,
        task: Name,
        terms: &Terms,
        request: EnqueueRequest,
    ) -> Result<StagedTask, Problem> {
        let delay = request.delay_ms.map(Duration::from_millis);
        let priority = request.priority.unwrap_or_default();
        enqueue::check(plugin, &task, terms, priority, delay, request.idempotency_key.as_deref())?;
        let body = std::str::from_utf8(&request.body).ok().map(str::to_owned);
        let body = body.and_then(|body| RawValue::from_string(body).ok());
        let now = Timestamp::from_unix_ms(self.broker.now_unix_ms());
        Ok(StagedTask {
            plugin: Name::new(&plugin.name).map_err(|error| unusable(&error.to_string()))?,
            version: plugin.version.to_string(),
            major: plugin.major,
            task,
            priority,
            at: request.delay_ms.filter(|ms| *ms > 0).map(|ms| now.plus_ms(ms)),
            expires_ms: terms.expires.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            idempotency_key: request.idempotency_key,
            from: request.from.as_deref().and_then(|from| Name::new(from).ok()),
            unique_key: terms.unique_key.as_deref().map(str::to_owned),
            serial_key: terms.serial_key.as_deref().map(str::to_owned),
            traceparent: request.traceparent,
            body: body.ok_or_else(|| unusable("the task's body is not JSON"))?,
        })
    }
}

impl Services for HostServices {
    fn enqueue(&self, plugin: &Identity, terms: Terms, request: EnqueueRequest) -> ServiceFuture<Receipt> {
        let (this, identity) = (self.clone(), plugin.clone());
        Box::pin(async move {
            let task = Name::new(&request.task).map_err(|error| unusable(&error.to_string()))?;
            let parent = TaskId::from_bytes(request.context_id).ok();
            if let (Some(attempt), Some(parent)) = (request.staged_by, parent) {
                let staging = this.staging.get().ok_or_else(|| unusable("no task runs here"))?;
                let id = staging.stage(parent, attempt, this.staged(&identity, task, &terms, request)?)?;
                return Ok(Receipt { id: id.to_string(), duplicate: false });
            }
            // A key belongs to whoever chose it.
            let route = request.from.as_deref().map_or_else(String::new, enqueue::keys_of_plugin);
            let root = this.root(parent);
            let new = NewTask { root, ..NewTask::asked(&identity, &task, &route, terms, request) };
            let published = enqueue::publish(&this.broker, new, this.enqueue_timeout).await?;
            Ok(Receipt { id: published.id.to_string(), duplicate: published.duplicate })
        })
    }

    fn enqueue_all(&self, plugin: &Identity, request: EnqueueAllRequest) -> ServiceFuture<Receipts> {
        let (this, identity) = (self.clone(), plugin.clone());
        Box::pin(async move { this.accept_all(&identity, request).await })
    }

    fn call(&self, call: OutgoingCall) -> ServiceFuture<Bytes> {
        let this = self.clone();
        Box::pin(async move { this.call_route(call).await })
    }

    fn ask(&self, asker: Asker, question: Question) -> ServiceFuture<Bytes> {
        let this = self.clone();
        Box::pin(async move { this.answer(asker, question).await })
    }

    fn progress(
        &self,
        task_id: [u8; 16],
        attempt: u32,
        report: &[u8],
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let tell = self.progress.get()?.report(task_id, attempt, report)?;
        Some(Box::pin(tell))
    }

    fn now_unix_ns(&self) -> u64 {
        self.broker.now_unix_ms().saturating_mul(1_000_000)
    }

    fn metric(&self, plugin: &Identity, kind: u8, name: &str, labels: &[(String, String)], value: f64) {
        self.metrics.record(plugin, kind, name, labels, value);
    }
}

/// The boundary's encoding: `u16 status, u32 header block length, block, body`.
fn answer(reply: CallReply) -> Result<Bytes, Problem> {
    if let Some(code) = calling::refusal(&reply.kind) {
        return Err(Problem::new(code));
    }
    let CallBody::Whole(body) = reply.body else {
        let detail = format!(
            "An answer from plugin to plugin is in one piece of at most {} bytes.",
            limits::INLINE_BODY_MAX_BYTES
        );
        return Err(Problem::new(ProblemCode::ReplyTooLarge).detail(detail));
    };
    let mut out = Vec::with_capacity(6 + reply.header_block.len() + body.len());
    out.extend_from_slice(&reply.status.to_le_bytes());
    out.extend_from_slice(&u32::try_from(reply.header_block.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&reply.header_block);
    out.extend_from_slice(&body);
    Ok(Bytes::from(out))
}
