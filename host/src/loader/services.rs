//! What plugins ask of the host, as the host's other rooms see it: no type of the boundary shows here.

use crate::terms::Terms;
use bytes::Bytes;
use cardcage_protocol::{Priority, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Which plugin asks.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The first number of its version.
    pub major: u32,
}

/// A task that a plugin enqueues.
#[derive(Debug, Clone, Deserialize)]
pub struct EnqueueRequest {
    /// The task's name.
    pub task: String,
    /// Another plugin's name; its own where absent.
    #[serde(default)]
    pub plugin: Option<String>,
    /// With it the other plugin's major.
    #[serde(default)]
    pub major: Option<u32>,
    /// The plugin that enqueues, where it is another one than the task's.
    #[serde(skip)]
    pub from: Option<Arc<str>>,
    /// The key that makes a repeat harmless.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Not before so many milliseconds have passed.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// The attempt that enqueues, where the task is published when that attempt has succeeded; absent: at once.
    #[serde(default)]
    pub staged_by: Option<u32>,
    /// The request or task that enqueues.
    #[serde(skip)]
    pub context_id: [u8; 16],
    /// The author's JSON.
    #[serde(skip)]
    pub body: Bytes,
}

/// What an enqueue answers.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The task's id.
    pub id: String,
    /// Whether an earlier enqueue with the same key made it.
    pub duplicate: bool,
}

/// Tasks of one plugin that are enqueued together.
#[derive(Debug)]
pub struct EnqueueAllRequest {
    /// Each with the terms of its task.
    pub tasks: Vec<(Terms, EnqueueRequest)>,
    /// The key that makes a repeat of all of them harmless.
    pub idempotency_key: Option<String>,
}

/// What an enqueue of several answers.
#[derive(Debug, Clone, Serialize)]
pub struct Receipts {
    /// The tasks' ids, in their order.
    pub ids: Vec<String>,
    /// Whether an earlier enqueue with the same key made them.
    pub duplicate: bool,
}

/// A call to another plugin's route.
#[derive(Debug, Clone)]
pub struct OutgoingCall {
    /// The other plugin, as this host knows it.
    pub target: Identity,
    /// The route's name; empty where the plugin is [loaded alone](super::LoadOptions::is_alone).
    pub route: String,
    /// When the caller stops waiting, by the broker's clock.
    pub deadline_unix_ms: u64,
    /// Header block with method and path.
    pub headers: Bytes,
    /// The body.
    pub body: Bytes,
}

/// Whom a plugin calls, as it says so.
#[derive(Debug, Deserialize)]
pub(super) struct CallTarget {
    pub(super) plugin: String,
    pub(super) major: u32,
    pub(super) deadline_unix_ms: u64,
}

/// Who asks: a request's or an attempt's handler.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The request's or the task's id; zeros outside of both.
    pub context_id: [u8; 16],
    /// The attempt; 0 outside of one.
    pub attempt: u32,
}

/// What a handler asks and waits for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What an earlier attempt recorded under this key.
    OnceLook {
        /// The key.
        key: String,
    },
    /// To record what was done under this key.
    OnceKeep {
        /// The key.
        key: String,
        /// What it brought.
        value: Box<RawValue>,
    },
    /// For a task's end.
    Wait {
        /// The task.
        task_id: TaskId,
        /// For at most so many milliseconds.
        at_most_ms: u64,
    },
}

/// A service's answer: a value, or a problem (RFC 9457, JSON) for the caller.
pub type ServiceResult<T> = Result<T, cardcage_protocol::Problem>;
/// A boxed future of it.
pub type ServiceFuture<T> = Pin<Box<dyn Future<Output = ServiceResult<T>> + Send>>;

/// What the host does for plugins; each role has its own.
pub trait Services: Send + Sync + 'static {
    /// Publishes a task of `plugin`; done once the broker has stored it. `terms` are those of the task.
    fn enqueue(&self, plugin: &Identity, terms: Terms, request: EnqueueRequest) -> ServiceFuture<Receipt>;
    /// Publishes all of these tasks of `plugin`, or none.
    fn enqueue_all(&self, plugin: &Identity, request: EnqueueAllRequest) -> ServiceFuture<Receipts>;
    /// Calls a route of another plugin; answers status, header block and body in the boundary's encoding.
    fn call(&self, call: OutgoingCall) -> ServiceFuture<Bytes>;
    /// Answers what a handler asks, as JSON.
    fn ask(&self, asker: Asker, question: Question) -> ServiceFuture<Bytes>;
    /// Keeps what a task's handler says of its progress; what is left to do, if anything, is to tell it.
    fn progress(
        &self,
        task_id: [u8; 16],
        attempt: u32,
        report: &[u8],
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>;
    /// Broker time.
    fn now_unix_ns(&self) -> u64;
    /// Records a measurement.
    fn metric(&self, plugin: &Identity, kind: u8, name: &str, labels: &[(String, String)], value: f64);
}
