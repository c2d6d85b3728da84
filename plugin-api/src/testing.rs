//! What `cardcage-testkit` needs to call handlers without a host: contexts around a host vtable of its own, and a
//! plugin whose routes and tasks run in the test's process.
//!
//! Not for plugins: hidden from the documentation, and free to change with the test kit.

use crate::context::{HostHandle, InitError, PluginContext, RequestContext};
use crate::glue::{Guarded, Work};
use crate::outcome::ErasedTask;
use crate::plugin::{ErasedPlugin as _, Here, Plugin};
use crate::task::{AttemptInfo, TaskContext};
use axum::Router;
use cardcage_abi::{HostCtx, HostRef, code};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// A host that lives in the test.
#[derive(Debug, Clone, Copy)]
pub struct Host(HostHandle);

impl Host {
    /// `ctx` comes back with each call of the vtable.
    pub fn new(vtable: HostRef, ctx: HostCtx) -> Self {
        Self(HostHandle { vtable, ctx })
    }

    /// What a plugin with these settings gets when it starts.
    pub fn plugin_context(self, config: &Value) -> PluginContext {
        PluginContext { host: self.0, config: Arc::from(config.to_string().into_bytes()) }
    }

    /// The extension that the extractors of a request read.
    pub fn request_context(self, request_id: [u8; 16], time_limit: Duration) -> RequestContext {
        RequestContext { request_id, deadline: self.0.now() + time_limit, host: self.0, traceparent: None }
    }

    /// One attempt of a task.
    pub fn task_context<S>(
        self,
        state: S,
        id: [u8; 16],
        attempt: u32,
        time_limit: Duration,
    ) -> TaskContext<S> {
        let enqueued_at = self.0.now();
        let attempt = Attempt { id, n: attempt, time_limit, soft_limit: None, enqueued_at };
        TaskContext { state: Arc::new(state), info: self.info(attempt, CancellationToken::new()) }
    }

    /// Where `tracing` events of whatever is polled under it go: to this host.
    pub fn subscriber(self, filter: &str) -> tracing::Dispatch {
        crate::telemetry::dispatch(self.0, filter)
    }

    fn info(self, attempt: Attempt, cancellation: CancellationToken) -> AttemptInfo {
        AttemptInfo {
            host: self.0,
            id: attempt.id,
            attempt: attempt.n,
            deadline: self.0.now() + attempt.time_limit,
            soft_deadline: attempt.soft_limit.map(|limit| self.0.now() + limit),
            enqueued_at: attempt.enqueued_at,
            traceparent: None,
            cancellation,
        }
    }
}

/// An attempt of a task.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The task's id.
    pub id: [u8; 16],
    /// Counted from 1.
    pub n: u32,
    /// How long it may take.
    pub time_limit: Duration,
    /// When it is told to end.
    pub soft_limit: Option<Duration>,
    /// When the task was accepted.
    pub enqueued_at: SystemTime,
}

/// What an attempt came to, as it would cross to a host.
#[derive(Debug, Clone)]
pub struct Ended {
    /// One of the boundary's `TASK_…` codes.
    pub code: u32,
    /// For a retry after some time.
    pub delay_ms: u64,
    /// Result or failure, as JSON; of a panic its text.
    pub value: Vec<u8>,
}

/// A handler at work, and the token by which it is told that its task was cancelled.
pub type AtWork<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type RunTask = Box<dyn Fn(Host, Attempt, &[u8]) -> (AtWork<Ended>, CancellationToken) + Send + Sync>;
type Accepts = Box<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

struct TestTask {
    name: &'static str,
    run: RunTask,
    accepts: Accepts,
}

/// A plugin that runs in the test's process.
pub struct Started {
    router: Router,
    description: Value,
    tasks: Vec<TestTask>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Started {
    /// The plugin's routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What a library would answer to `describe`.
    pub fn description(&self) -> &Value {
        &self.description
    }

    /// Whether a task's handler takes this body; `None` where there is no such task.
    pub fn accepts(&self, task: &str, body: &[u8]) -> Option<Result<(), String>> {
        self.task(task).map(|task| (task.accepts)(body))
    }

    /// Begins an attempt; `None` where there is no such task.
    pub fn attempt(
        &self,
        host: Host,
        task: &str,
        attempt: Attempt,
        body: &[u8],
    ) -> Option<(AtWork<Ended>, CancellationToken)> {
        self.task(task).map(|task| (task.run)(host, attempt, body))
    }

    fn task(&self, name: &str) -> Option<&TestTask> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// Starts a plugin on the caller's runtime.
///
/// # Errors
/// What the plugin's `init` answered.
pub async fn start<S: Clone + Send + Sync + 'static>(
    plugin: Plugin<S>,
    ctx: PluginContext,
) -> Result<Started, InitError> {
    let description = plugin.describe("plugin", "0.0.0");
    let Here { state, router, tasks } = plugin.start_here(ctx).await?;
    let tasks = tasks.into_iter().map(|task| erase(task, state.clone())).collect();
    Ok(Started { router, description, tasks })
}

fn erase<S: Send + Sync + 'static>(task: Arc<dyn ErasedTask<S>>, state: Arc<S>) -> TestTask {
    let (name, other) = (task.name(), task.clone());
    let run = move |host: Host, attempt: Attempt, body: &[u8]| -> (AtWork<Ended>, CancellationToken) {
        let cancellation = CancellationToken::new();
        let work = Work { kind: "task", name: Arc::from(name), id: attempt.id };
        let info = host.info(attempt, cancellation.clone());
        let (task, ctx, body) = (task.clone(), TaskContext { state: state.clone(), info }, body.to_vec());
        // Decoding runs the author's `Deserialize`, so it happens under the guard's eyes too.
        let running = Guarded::new(host.0, work, async move { task.run(ctx, &body).await });
        let ended = async move {
            match running.await {
                Ok(outcome) => Ended { code: outcome.code, delay_ms: outcome.delay_ms, value: outcome.value },
                Err(panic) => Ended { code: code::TASK_PANICKED, delay_ms: 0, value: panic.into_bytes() },
            }
        };
        (Box::pin(ended), cancellation)
    };
    TestTask { name, run: Box::new(run), accepts: Box::new(move |body| other.accepts(body)) }
}

/// A route's handler, so that its panic is an error as it is in a host, and its events know whose they are.
///
/// # Errors
/// The panic's text.
pub async fn guarded<T: Send>(
    host: Host,
    route: &str,
    id: [u8; 16],
    handler: impl Future<Output = T> + Send,
) -> Result<T, String> {
    Guarded::new(host.0, Work { kind: "route", name: Arc::from(route), id }, handler).await
}
