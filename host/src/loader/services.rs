//! What plugins ask of the host, as the host's other rooms see it: no type of the boundary shows here.

use crate::terms::Terms;
use bytes::Bytes;
use cardcage_protocol::Priority;
use serde::{Deserialize, Serialize};
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

/// A call to another plugin's route.
#[derive(Debug, Clone)]
pub struct OutgoingCall {
    /// JSON `{"plugin", "major", "route", "deadline_unix_ms", "traceparent"}`.
    pub target: Bytes,
    /// Header block with method and path.
    pub headers: Bytes,
    /// The body.
    pub body: Bytes,
}

/// A service's answer: a value, or a problem (RFC 9457, JSON) for the caller.
pub type ServiceResult<T> = Result<T, cardcage_protocol::Problem>;
/// A boxed future of it.
pub type ServiceFuture<T> = Pin<Box<dyn Future<Output = ServiceResult<T>> + Send>>;

/// What the host does for plugins; each role has its own.
pub trait Services: Send + Sync + 'static {
    /// Publishes a task; done once the broker has stored it. `terms` are those of the plugin's own task of that name.
    fn enqueue(
        &self,
        plugin: &Identity,
        terms: Option<Terms>,
        request: EnqueueRequest,
    ) -> ServiceFuture<Receipt>;
    /// Calls a route of another plugin; answers status, header block and body in the boundary's encoding.
    fn call(&self, plugin: &Identity, call: OutgoingCall) -> ServiceFuture<Bytes>;
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
