//! What a plugin is made of: the builder that authors fill.

use crate::context::{InitError, PluginContext};
use crate::describe::Described;
use crate::glue::Started;
use crate::outcome::{Erased, ErasedTask};
use crate::schedule::Schedule;
use crate::task::Task;
use http::Method;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use utoipa_axum::router::UtoipaMethodRouter;

type Init<S> =
    Box<dyn FnOnce(PluginContext) -> Pin<Box<dyn Future<Output = Result<S, InitError>> + Send>> + Send>;

/// A plugin under construction: how its state starts, its routes and its tasks.
///
/// The builder is evaluated once for `describe` and once for `init`, so it must do nothing but declare.
pub struct Plugin<S> {
    init: Init<S>,
    router: axum::Router<S>,
    tasks: Vec<Arc<dyn ErasedTask<S>>>,
    described: Described,
}

impl<S> std::fmt::Debug for Plugin<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("described", &self.described).finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> Plugin<S> {
    /// A plugin whose state is made by `init` once the settings are known. `init` runs on the plugin's own runtime.
    pub fn new<F, Fut>(init: F) -> Self
    where
        F: FnOnce(PluginContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<S, InitError>> + Send + 'static,
    {
        Self {
            init: Box::new(move |ctx| Box::pin(init(ctx))),
            router: axum::Router::new(),
            tasks: Vec::new(),
            described: Described::default(),
        }
    }

    /// Routes whose handlers run on a worker, the API instance forwarding the call. The operator can move them.
    pub fn routes(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.place(routes, "worker")
    }

    /// Routes whose handlers run in the API instance. Keep them short: verify, enqueue, answer.
    pub fn inline(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.place(routes, "inline")
    }

    fn place(mut self, (schemas, paths, handlers): UtoipaMethodRouter<S>, placement: &'static str) -> Self {
        for path in paths.paths.keys() {
            let path = if path.is_empty() { "/" } else { path };
            self.router = self.router.route(path, handlers.clone());
        }
        self.described.routes(&paths, &schemas, placement);
        self
    }

    /// A route that publishes its body as a task: the host checks it against the task's schema, stores it and
    /// answers 202 with a receipt, without any code of the plugin and without a live worker.
    pub fn enqueue<T: Task<State = S>>(mut self, method: Method, path: &str, _task: T) -> Self {
        self.described.enqueue_route(&method, path, T::NAME, T::DESCRIPTION);
        self
    }

    /// A task's handler.
    pub fn task<T: Task<State = S>>(mut self, _task: T) -> Self {
        self.tasks.push(Arc::new(Erased::<T>::new()));
        self
    }

    /// Another plugin, by name and major version, that this one enqueues tasks for ([`crate::Tasks::plugin`]) or
    /// calls ([`crate::RequestContext::plugin`]). A host that does not have it refuses this one.
    pub fn needs(mut self, plugin: &str, major: u32) -> Self {
        self.described.need(plugin, major, false);
        self
    }

    /// The same; where the host does not have it, this one starts all the same, and its enqueues and calls are refused with
    /// `unknown_plugin`.
    pub fn wants(mut self, plugin: &str, major: u32) -> Self {
        self.described.need(plugin, major, true);
        self
    }

    /// A schedule of this name, unique in the plugin, that starts a task with this body. The broker holds it, and however
    /// many workers run, each of its slots is one task.
    pub fn schedule<T: Task<State = S>>(
        mut self,
        name: &str,
        schedule: Schedule,
        _task: T,
        body: T::Input,
    ) -> Self {
        self.described.schedules.push(schedule.describe(name, T::NAME, body));
        self
    }

    /// The schema of the plugin's settings, for `cardcage check`, which holds the operator's against it.
    pub fn config<C: schemars::JsonSchema>(mut self) -> Self {
        self.described.config_schema = serde_json::to_value(schemars::schema_for!(C)).ok();
        self
    }

    /// Runs the author's `init`.
    pub(crate) async fn start_here(self, ctx: PluginContext) -> Result<Here<S>, InitError> {
        let state = (self.init)(ctx).await?;
        // The host bounds every body before it comes here.
        let router = self.router.layer(axum::extract::DefaultBodyLimit::disable()).with_state(state.clone());
        Ok(Here { state: Arc::new(state), router, tasks: self.tasks })
    }

    /// Forgets the state's type.
    pub fn erase(self) -> Box<dyn ErasedPlugin> {
        Box::new(self)
    }
}

/// A plugin that has its state.
pub(crate) struct Here<S> {
    pub(crate) state: Arc<S>,
    pub(crate) router: axum::Router,
    pub(crate) tasks: Vec<Arc<dyn ErasedTask<S>>>,
}

/// A plugin with its state's type forgotten; made by [`Plugin::erase`].
pub trait ErasedPlugin: Send {
    /// Routes, tasks, schemas and OpenAPI.
    fn describe(&self, name: &str, version: &str) -> Value;
    /// Runs the author's `init`.
    fn start(
        self: Box<Self>,
        ctx: PluginContext,
    ) -> Pin<Box<dyn Future<Output = Result<Started, InitError>> + Send>>;
}

impl<S: Clone + Send + Sync + 'static> ErasedPlugin for Plugin<S> {
    fn describe(&self, name: &str, version: &str) -> Value {
        let tasks = self.tasks.iter().map(|task| task.describe()).collect();
        self.described.to_json(name, version, tasks)
    }

    fn start(
        self: Box<Self>,
        ctx: PluginContext,
    ) -> Pin<Box<dyn Future<Output = Result<Started, InitError>> + Send>> {
        Box::pin(async move {
            let routes = self.described.route_names();
            let Here { state, router, tasks } = self.start_here(ctx).await?;
            Ok(Started::new(router, routes, state, tasks))
        })
    }
}

/// What the [`plugin!`](crate::plugin) macro implements for a library.
pub trait Definition: 'static {
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    /// Evaluates the author's `build` expression.
    fn build() -> Box<dyn ErasedPlugin>;
}
