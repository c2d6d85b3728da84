//! Tests of handlers one by one, typed, without a host and without a broker.
//!
//! A [`TestHost`] stands in for the host: it calls a task's handler or a route with the contexts that they take, keeps
//! what they enqueue, prints what they log, and has a clock that the test can set.
//!
//! ```
//! use plugin_api::prelude::*;
//!
//! #[derive(Debug, Clone)]
//! struct App;
//!
//! /// Greets.
//! #[task]
//! async fn greet(ctx: TaskContext<App>, name: String) -> TaskResult<String> {
//!     if ctx.attempt() == 1 { Err(TaskError::retry("not yet awake")) } else { Ok(format!("Hello {name}")) }
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let host = testkit::TestHost::new();
//! assert!(matches!(host.run_task(greet, App, "Ada".into()).await, Err(TaskError::Retry(_))));
//! assert_eq!(host.attempt(2).run_task(greet, App, "Ada".into()).await.unwrap(), "Hello Ada");
//! # });
//! ```
//!
//! # What it refuses
//! It does not check bodies against schemas, apply retry policies or end handlers at their deadline: those are the
//! host's. [`Bench`](crate::Bench) does that.

use crate::stub::Stub;
use plugin_api::axum::body::Body;
use plugin_api::axum::response::Response;
use plugin_api::http::{Request, StatusCode};
use plugin_api::{InitError, Plugin, PluginContext, Task, TaskResult, axum, testing};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// A task that a handler enqueued.
#[derive(Debug, Clone, PartialEq)]
pub struct Enqueued {
    /// The id that the handler got. The same for a repeated idempotency key.
    pub id: Uuid,
    /// The task's name.
    pub task: String,
    /// Its body.
    pub body: Value,
    /// Its idempotency key, or that of the tasks with which it was enqueued.
    pub idempotency_key: Option<String>,
    /// How long it waits.
    pub delay: Option<Duration>,
}

/// A host for one test. Clones share what was enqueued and the clock.
#[derive(Debug, Clone)]
pub struct TestHost {
    stub: Arc<Stub>,
    attempt: u32,
    time_limit: Duration,
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHost {
    /// A host whose clock is the machine's; attempts are the first, and everything has 30 seconds.
    pub fn new() -> Self {
        Self { stub: Stub::new(), attempt: 1, time_limit: Duration::from_secs(30) }
    }

    /// The same host, for attempt number `attempt`, counted from 1.
    #[must_use]
    pub fn attempt(&self, attempt: u32) -> Self {
        Self { attempt, ..self.clone() }
    }

    /// The same host, with another time until deadlines. Nothing is ended when it is over.
    #[must_use]
    pub fn time_limit(&self, time_limit: Duration) -> Self {
        Self { time_limit, ..self.clone() }
    }

    /// Stops the clock at this time.
    pub fn set_now(&self, now: SystemTime) {
        self.stub.set_now(now);
    }

    /// From now on each enqueue is answered 503, as while the broker is away; `false` ends that.
    pub fn refuse_enqueues(&self, refuse: bool) {
        self.stub.refuse_enqueues(refuse);
    }

    /// What was enqueued so far, in order; a repeated idempotency key adds nothing.
    pub fn enqueued(&self) -> Vec<Enqueued> {
        self.stub.enqueued()
    }

    /// What a plugin with these settings gets when it starts.
    pub fn plugin_context(&self, config: &Value) -> PluginContext {
        self.host().plugin_context(config)
    }

    /// Runs one attempt of a task's handler. What it does by `once` is kept with the host: an attempt after it, as by
    /// [`attempt(2)`](Self::attempt), finds it.
    ///
    /// # Errors
    /// What the handler answered.
    pub async fn run_task<T: Task>(
        &self,
        _task: T,
        state: T::State,
        input: T::Input,
    ) -> TaskResult<T::Output> {
        let id = Uuid::now_v7().into_bytes();
        T::run(self.host().task_context(state, id, self.attempt, self.time_limit), input).await
    }

    /// Starts a plugin for its routes.
    ///
    /// # Errors
    /// What the plugin's `init` answered.
    pub async fn serve<S: Clone + Send + Sync + 'static>(
        &self,
        plugin: Plugin<S>,
        config: &Value,
    ) -> Result<TestRoutes, InitError> {
        let started = testing::start(plugin, self.plugin_context(config)).await?;
        Ok(TestRoutes { host: self.clone(), router: started.router() })
    }

    fn host(&self) -> testing::Host {
        self.stub.host()
    }
}

/// The routes of a started plugin, wherever they are placed. Paths are those below the plugin's prefix.
#[derive(Debug, Clone)]
pub struct TestRoutes {
    host: TestHost,
    router: axum::Router,
}

impl TestRoutes {
    /// Calls a route.
    pub async fn send(&self, mut request: Request<Body>) -> Response {
        let ctx = self.host.host().request_context(Uuid::new_v4().into_bytes(), self.host.time_limit);
        request.extensions_mut().insert(ctx);
        let mut router = self.router.clone();
        // A router's own errors are `Infallible`.
        let Ok(response) = tower::Service::call(&mut router, request).await;
        response
    }

    /// Calls a route and reads the answer as JSON; `Null` where it is none.
    pub async fn send_json(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.send(request).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::prelude::*;

    #[derive(Debug, Clone)]
    struct App {
        greeting: String,
    }

    impl App {
        async fn start(ctx: PluginContext) -> Result<App, InitError> {
            #[derive(Deserialize)]
            struct Settings {
                greeting: String,
            }
            Ok(App { greeting: ctx.config::<Settings>()?.greeting })
        }
    }

    /// Greets.
    #[task]
    async fn greet(ctx: TaskContext<App>, name: String) -> TaskResult<String> {
        Ok(format!("{} {name}", ctx.state().greeting))
    }

    /// Greets later.
    #[utoipa::path(post, path = "/later")]
    async fn later(tasks: Tasks, name: String) -> Result<Accepted, Problem> {
        tasks.enqueue(greet, name).idempotency_key("once").delay(Duration::from_secs(1)).await
    }

    /// Greets all, or none.
    #[utoipa::path(post, path = "/all")]
    async fn all(tasks: Tasks, names: String) -> Result<AcceptedAll, Problem> {
        let greetings = names.split(' ').map(|name| tasks.enqueue(greet, name.to_owned()));
        tasks.enqueue_all(greetings).idempotency_key(&*names).await
    }

    fn definition() -> Plugin<App> {
        Plugin::new(App::start).inline(routes!(later)).inline(routes!(all)).task(greet)
    }

    fn request() -> Request<Body> {
        Request::post("/later").body(Body::from("Ada")).unwrap()
    }

    #[tokio::test]
    async fn enqueued_tasks_are_kept_and_a_repeated_key_adds_none() {
        let host = TestHost::new();
        let routes = host.serve(definition(), &json!({"greeting": "Hello"})).await.unwrap();
        let (status, first) = routes.send_json(request()).await;
        assert_eq!((status, &first["duplicate"]), (StatusCode::ACCEPTED, &json!(false)));
        let (_, again) = routes.send_json(request()).await;
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
        let [task] = host.enqueued().try_into().unwrap();
        assert_eq!(
            (task.task.as_str(), task.body, task.delay),
            ("greet", json!("Ada"), Some(Duration::from_secs(1)))
        );
    }

    #[tokio::test]
    async fn tasks_enqueued_together_are_kept_each_and_a_repeated_key_adds_none() {
        let host = TestHost::new();
        let routes = host.serve(definition(), &json!({"greeting": "Hello"})).await.unwrap();
        let request = || Request::post("/all").body(Body::from("Ada Grace")).unwrap();
        let (status, first) = routes.send_json(request()).await;
        assert_eq!((status, first["tasks"].as_array().unwrap().len()), (StatusCode::ACCEPTED, 2));
        let bodies: Vec<_> = host.enqueued().into_iter().map(|task| (task.id, task.body)).collect();
        let ids: Vec<Uuid> =
            (0..2).map(|n| first["tasks"][n]["id"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(bodies, [(ids[0], json!("Ada")), (ids[1], json!("Grace"))]);
        let (_, again) = routes.send_json(request()).await;
        assert_eq!(
            (&again["tasks"][1]["id"], &again["tasks"][1]["duplicate"]),
            (&first["tasks"][1]["id"], &json!(true))
        );
        assert_eq!(host.enqueued().len(), 2);
        host.refuse_enqueues(true);
        let (status, _) = routes.send_json(Request::post("/all").body(Body::from("Alan")).unwrap()).await;
        assert_eq!((status, host.enqueued().len()), (StatusCode::SERVICE_UNAVAILABLE, 2));
    }

    #[tokio::test]
    async fn refused_enqueue_is_503_and_keeps_nothing() {
        let host = TestHost::new();
        let routes = host.serve(definition(), &json!({"greeting": "Hello"})).await.unwrap();
        host.refuse_enqueues(true);
        let (status, problem) = routes.send_json(request()).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("broker_unavailable"))
        );
        assert!(host.enqueued().is_empty());
    }

    #[tokio::test]
    async fn settings_that_do_not_fit_are_named() {
        let error = TestHost::new().serve(definition(), &json!({"greeting": 1})).await.unwrap_err();
        assert!(error.to_string().contains("greeting"), "{error}");
    }

    #[tokio::test]
    async fn the_clock_stands_where_it_was_set() {
        let host = TestHost::new();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        host.set_now(then);
        assert_eq!(host.host().request_context([0; 16], Duration::ZERO).now(), then);
        let app = App { greeting: "Hello".into() };
        assert_eq!(host.run_task(greet, app, "Ada".into()).await.unwrap(), "Hello Ada");
    }
}
