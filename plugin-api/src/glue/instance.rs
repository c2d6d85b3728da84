//! A started plugin: its runtime, its router and its tasks.

use super::guarded::Work;
use super::lane::Lane;
use crate::context::{HostHandle, InitError, PluginContext};
use crate::outcome::{ErasedTask, Outcome};
use crate::plugin::Definition;
use crate::task::{AttemptInfo, TaskContext};
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
    routes: Vec<Handler>,
    tasks: Vec<(Handler, RunTask)>,
}

/// A route's or a task's handler, as logs and the choice of its thread know it.
pub(super) struct Handler {
    pub(super) name: Arc<str>,
    pub(super) lane: Lane,
}

impl Handler {
    fn new(name: Arc<str>) -> Self {
        Self { name, lane: Lane::default() }
    }
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Started {
    pub(crate) fn new<S: Send + Sync + 'static>(
        router: axum::Router,
        routes: Vec<Arc<str>>,
        state: Arc<S>,
        tasks: Vec<Arc<dyn ErasedTask<S>>>,
    ) -> Self {
        let erase = |task: Arc<dyn ErasedTask<S>>| {
            let (state, handler) = (state.clone(), Handler::new(Arc::from(task.name())));
            let run: RunTask =
                Box::new(move |info, body| task.run(TaskContext { state: state.clone(), info }, body));
            (handler, run)
        };
        let routes = routes.into_iter().map(Handler::new).collect();
        Self { router, routes, tasks: tasks.into_iter().map(erase).collect() }
    }
}

/// See the module. Never freed: its threads may run the library's code until the process ends.
pub(super) struct PluginInstance {
    pub(super) host: HostHandle,
    pub(super) router: axum::Router,
    routes: Vec<Handler>,
    tasks: Vec<(Handler, RunTask)>,
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
            // The host readies each thread for the report of a crash, such as the overflow of its stack.
            .on_thread_start(move || (host.vtable.polling())(host.ctx, &[0; 16]))
            .enable_all()
            .build()
            .map_err(|error| InitError::new(format!("its runtime cannot start: {error}")))?;
        let context = PluginContext { host, config: Arc::from(head.config.as_slice()) };
        let started = runtime.block_on(D::build().start(context))?;
        Ok(Self {
            host,
            router: started.router,
            routes: started.routes,
            tasks: started.tasks,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The handler of a route; `None` for a place that `describe` did not list.
    pub(super) fn route(&self, route: u32) -> Option<&Handler> {
        self.routes.get(usize::try_from(route).ok()?)
    }

    /// The handler of a task; `None` for a place that `describe` did not list.
    pub(super) fn task(&self, task: u32) -> Option<&Handler> {
        self.tasks.get(usize::try_from(task).ok()?).map(|(handler, _)| handler)
    }

    /// The future of one attempt, and for whom it works; `None` for a place that `describe` did not list.
    pub(super) fn attempt(&self, task: u32, info: AttemptInfo, body: &[u8]) -> Option<(Work, AttemptFuture)> {
        let (handler, run) = self.tasks.get(usize::try_from(task).ok()?)?;
        let work = Work { kind: "task", name: handler.name.clone(), id: info.id };
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
