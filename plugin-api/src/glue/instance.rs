//! A started plugin: its runtime, its router and its tasks.

use super::guarded::Work;
use crate::context::{HostHandle, InitError, PluginContext};
use crate::plugin::Definition;
use crate::task::{AttemptInfo, ErasedTask, Outcome, TaskContext};
use cardcage_abi::{HostCtx, HostRef, InitHead};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

type AttemptFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type RunTask = Box<dyn Fn(AttemptInfo, &[u8]) -> AttemptFuture + Send + Sync>;

/// What an author's `init` made, with the state's type forgotten.
pub struct Started {
    router: axum::Router,
    tasks: Vec<(Arc<str>, RunTask)>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Started {
    pub(crate) fn new<S: Send + Sync + 'static>(
        router: axum::Router,
        state: Arc<S>,
        tasks: Vec<Arc<dyn ErasedTask<S>>>,
    ) -> Self {
        let erase = |task: Arc<dyn ErasedTask<S>>| {
            let (state, name) = (state.clone(), Arc::from(task.name()));
            let run: RunTask =
                Box::new(move |info, body| task.run(TaskContext { state: state.clone(), info }, body));
            (name, run)
        };
        Self { router, tasks: tasks.into_iter().map(erase).collect() }
    }

    /// The plugin's routes, for `cardcage-testkit`.
    pub(crate) fn into_router(self) -> axum::Router {
        self.router
    }
}

/// See the module. Never freed: its threads may run the library's code until the process ends.
pub(super) struct PluginInstance {
    pub(super) host: HostHandle,
    pub(super) router: axum::Router,
    tasks: Vec<(Arc<str>, RunTask)>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl PluginInstance {
    pub(super) fn start<D: Definition>(
        host: HostRef,
        ctx: HostCtx,
        head: &InitHead,
    ) -> Result<Self, InitError> {
        let host = HostHandle { vtable: host, ctx };
        crate::telemetry::install(host, &head.log_filter.to_text());
        let threads = usize::try_from(head.threads).unwrap_or(1).max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(D::NAME)
            .enable_all()
            .build()
            .map_err(|error| InitError::new(format!("its runtime cannot start: {error}")))?;
        let context = PluginContext { host, config: Arc::from(head.config.as_slice()) };
        let started = runtime.block_on(D::build().start(context))?;
        Ok(Self {
            host,
            router: started.router,
            tasks: started.tasks,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The future of one attempt, and the task's name; `None` for a place that `describe` did not list.
    pub(super) fn attempt(&self, task: u32, info: AttemptInfo, body: &[u8]) -> Option<(Work, AttemptFuture)> {
        let (name, run) = self.tasks.get(usize::try_from(task).ok()?)?;
        let work = Work { kind: "task", name: name.clone(), id: info.id };
        Some((work, run(info, body)))
    }

    pub(super) fn drain(&self) {
        tracing::debug!("the host drains");
    }

    pub(super) fn stop(&self, within: Duration) {
        let runtime = self.runtime.lock().ok().and_then(|mut runtime| runtime.take());
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(within);
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.runtime.lock().is_ok_and(|runtime| runtime.is_some())
    }
}
