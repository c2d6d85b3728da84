//! What plugins get from the host, in either role: enqueueing, calls to other plugins, the clock, metrics.

use super::metrics::PluginMetrics;
use crate::broker::Broker;
use crate::enqueue::{self, NewTask};
use crate::loader::{EnqueueRequest, Identity, OutgoingCall, Receipt, ServiceFuture, Services};
use crate::terms::Terms;
use crate::worker::tasks::ProgressReports;
use bytes::Bytes;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, InstanceId, Name, Problem, ProblemCode, ReplyKind, Text,
};
use serde::Deserialize;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Longest wait for another plugin's answer where the caller names no deadline.
const CALL_TIMEOUT_MS: u64 = 30_000;

/// The services of one child.
#[derive(Debug, Clone)]
pub(super) struct HostServices {
    pub(super) broker: Broker,
    pub(super) instance: InstanceId,
    pub(super) enqueue_timeout: Duration,
    pub(super) metrics: PluginMetrics,
    /// Where tasks run: set once the engine is there.
    pub(super) progress: Arc<OnceLock<ProgressReports>>,
}

#[derive(Deserialize)]
struct Target {
    plugin: String,
    major: u32,
    route: String,
    #[serde(default)]
    deadline_unix_ms: Option<u64>,
}

fn unusable(what: &str) -> Problem {
    Problem::new(ProblemCode::Internal)
        .detail(format!("The plugin asked the host for something unusable: {what}."))
}

impl Services for HostServices {
    fn enqueue(
        &self,
        plugin: &Identity,
        terms: Option<Terms>,
        request: EnqueueRequest,
    ) -> ServiceFuture<Receipt> {
        let (this, identity) = (self.clone(), plugin.clone());
        Box::pin(async move {
            if request.plugin.as_deref().is_some_and(|other| other != &*identity.name) {
                return Err(unusable("tasks of other plugins cannot be enqueued yet"));
            }
            let task = Name::new(&request.task).map_err(|error| unusable(&error.to_string()))?;
            let unknown = || unusable(&format!("it has no task `{task}` registered"));
            let terms = terms.ok_or_else(unknown)?;
            let new = NewTask {
                identity: &identity,
                task: &task,
                route: "",
                idempotency_key: request.idempotency_key,
                traceparent: request.traceparent,
                // A request's id is no task's: only a UUIDv7 names a parent.
                parent: cardcage_protocol::TaskId::from_bytes(request.context_id).ok(),
                priority: request.priority.unwrap_or_default(),
                delay: request.delay_ms.map(Duration::from_millis),
                terms,
                body: request.body,
            };
            let published = enqueue::publish(&this.broker, new, this.enqueue_timeout).await?;
            Ok(Receipt { id: published.id.to_string(), duplicate: published.duplicate })
        })
    }

    fn call(&self, _plugin: &Identity, call: OutgoingCall) -> ServiceFuture<Bytes> {
        let this = self.clone();
        Box::pin(async move {
            let target: Target =
                serde_json::from_slice(&call.target).map_err(|error| unusable(&error.to_string()))?;
            let name = Name::new(&target.plugin).map_err(|error| unusable(&error.to_string()))?;
            let route = Name::new(&target.route).map_err(|error| unusable(&error.to_string()))?;
            let now = this.broker.now_unix_ms();
            let deadline_unix_ms = target.deadline_unix_ms.unwrap_or(now.saturating_add(CALL_TIMEOUT_MS));
            let id = CallId::generate();
            let request = CallRequest {
                call_id: id,
                deadline_unix_ms,
                route: Text::from(route.as_str()),
                request_id: *id.as_bytes(),
                caller_instance: Text::from(this.instance.as_str()),
                header_block: call.headers,
                body: CallBody::Whole(call.body),
                ext: Bytes::new(),
            };
            let message = request.encode().map_err(|error| unusable(&error.to_string()))?;
            let subject = this.broker.subjects().call(&name, target.major, &route);
            let left = Duration::from_millis(deadline_unix_ms.saturating_sub(now));
            let reply = this.broker.call(subject, message, left).await.map_err(|error| {
                Problem::new(match error {
                    crate::broker::Error::NoResponders { .. } => ProblemCode::NoWorker,
                    crate::broker::Error::Timeout { .. } => ProblemCode::DeadlineExceeded,
                    _ => ProblemCode::BrokerUnavailable,
                })
            })?;
            answer(reply)
        })
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
fn answer(reply: Bytes) -> Result<Bytes, Problem> {
    let reply = CallReply::decode(reply).map_err(|_| Problem::new(ProblemCode::PluginError))?;
    let body = match (reply.kind, reply.body) {
        (ReplyKind::Done, CallBody::Whole(body)) => body,
        (ReplyKind::Done, CallBody::Stream) => return Err(Problem::new(ProblemCode::ReplyTooLarge)),
        (ReplyKind::Busy, _) => return Err(Problem::new(ProblemCode::WorkerBusy)),
        (ReplyKind::Crashed, _) => return Err(Problem::new(ProblemCode::WorkerCrashed)),
        (ReplyKind::Expired, _) => return Err(Problem::new(ProblemCode::DeadlineExceeded)),
        (ReplyKind::GoAhead, _) => return Err(Problem::new(ProblemCode::StreamBroken)),
        (ReplyKind::Refused(code), _) => {
            return Err(Problem::new(ProblemCode::from_code(&code).unwrap_or(ProblemCode::PluginError)));
        }
    };
    let mut out = Vec::with_capacity(6 + reply.header_block.len() + body.len());
    out.extend_from_slice(&reply.status.to_le_bytes());
    out.extend_from_slice(&u32::try_from(reply.header_block.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&reply.header_block);
    out.extend_from_slice(&body);
    Ok(Bytes::from(out))
}
