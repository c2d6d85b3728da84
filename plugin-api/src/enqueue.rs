//! Enqueueing tasks from handlers.

use crate::context::{HostHandle, NoHost, RequestContext};
use crate::{Priority, Problem, Task};
use axum::response::{IntoResponse, Response};
use cardcage_abi::{EnqueueHead, FfiBytes, FfiCallback, code};
use http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Enqueues tasks of this plugin. An axum extractor; in a task, [`crate::TaskContext::tasks`].
#[derive(Debug, Clone)]
pub struct Tasks {
    pub(crate) host: HostHandle,
    pub(crate) context_id: [u8; 16],
    pub(crate) traceparent: Option<Arc<str>>,
    /// In a task: which attempt.
    pub(crate) attempt: Option<u32>,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Tasks {
    type Rejection = NoHost;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, NoHost> {
        let ctx = parts.extensions.get::<RequestContext>().ok_or(NoHost)?;
        Ok(Self {
            host: ctx.host,
            context_id: ctx.request_id,
            traceparent: ctx.traceparent.clone(),
            attempt: None,
        })
    }
}

impl Tasks {
    /// Starts an enqueue.
    ///
    /// In a route `.await` publishes it, and is done once the broker has stored it.
    ///
    /// In a task `.await` *stages* it: it becomes a part of this attempt's success, and is published once that is
    /// recorded. So an attempt that fails, or whose worker dies, enqueues nothing, and a retry does not enqueue twice. The
    /// id is known at once; the task is not there before the handler has returned, so waiting for it in the handler is
    /// waiting for ever. An attempt stages at most 1,000 tasks of together 192 KiB.
    pub fn enqueue<T: Task>(&self, task: T, input: T::Input) -> Enqueue {
        Enqueue { staged_by: self.attempt, ..self.enqueue_now(task, input) }
    }

    /// Starts an enqueue that `.await` publishes at once, also in a task.
    ///
    /// In a task, what was published stays published however the attempt ends, and the next attempt may publish it
    /// again: give it an idempotency key that all attempts share.
    pub fn enqueue_now<T: Task>(&self, _task: T, input: T::Input) -> Enqueue {
        Enqueue {
            tasks: self.clone(),
            task: T::NAME.into(),
            plugin: None,
            body: serde_json::to_vec(&input),
            idempotency_key: None,
            priority: None,
            due: None,
            staged_by: None,
        }
    }
}

impl Tasks {
    /// Another plugin's tasks, for a plugin that declares it by [`needs`](crate::Plugin::needs) or
    /// [`wants`](crate::Plugin::wants).
    pub fn plugin(&self, name: impl Into<Cow<'static, str>>, major: u32) -> OtherTasks {
        OtherTasks { tasks: self.clone(), name: name.into(), major }
    }
}

/// Enqueues tasks of another plugin; made by [`Tasks::plugin`].
#[derive(Debug, Clone)]
pub struct OtherTasks {
    tasks: Tasks,
    name: Cow<'static, str>,
    major: u32,
}

impl OtherTasks {
    /// Starts an enqueue, as [`Tasks::enqueue`] does. The host holds the body against the schema that the task has in
    /// the version of the plugin that it knows, and refuses with 422 `invalid_body` what does not fit.
    ///
    /// In a task it is staged, as its own tasks are.
    pub fn enqueue<I: Serialize>(&self, task: impl Into<Cow<'static, str>>, input: &I) -> Enqueue {
        Enqueue { staged_by: self.tasks.attempt, ..self.enqueue_now(task, input) }
    }

    /// The same, published at once, as [`Tasks::enqueue_now`] does.
    pub fn enqueue_now<I: Serialize>(&self, task: impl Into<Cow<'static, str>>, input: &I) -> Enqueue {
        Enqueue {
            tasks: self.tasks.clone(),
            task: task.into(),
            plugin: Some((self.name.clone(), self.major)),
            body: serde_json::to_vec(input),
            idempotency_key: None,
            priority: None,
            due: None,
            staged_by: None,
        }
    }
}

/// A task about to be published.
#[derive(Debug)]
#[must_use = "an enqueue does nothing until it is awaited"]
pub struct Enqueue {
    tasks: Tasks,
    task: Cow<'static, str>,
    /// Another plugin and its major.
    plugin: Option<(Cow<'static, str>, u32)>,
    body: Result<Vec<u8>, serde_json::Error>,
    idempotency_key: Option<String>,
    priority: Option<Priority>,
    due: Option<Due>,
    staged_by: Option<u32>,
}

/// When a task may start.
#[derive(Debug, Clone, Copy)]
enum Due {
    After(Duration),
    At(SystemTime),
}

impl Enqueue {
    /// A second enqueue with the same key and body answers the first one's id and runs nothing again.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// How urgent it is. A task that does not declare `priorities` is refused any but [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Not before this time has passed; at most a year, beyond which the enqueue is refused. It waits in the broker,
    /// whichever hosts come and go.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Some(Due::After(delay));
        self
    }

    /// Not before this time, by the broker's clock ([`crate::RequestContext::now`], [`crate::TaskContext::now`]); one that
    /// is past is now. See [`delay`](Self::delay).
    pub fn at(mut self, time: SystemTime) -> Self {
        self.due = Some(Due::At(time));
        self
    }

    /// What the host is told of it, and the body.
    pub(crate) fn into_parts(self) -> Result<(Map<String, Value>, Vec<u8>), Problem> {
        let body = self.body.map_err(|error| {
            tracing::error!(task = &*self.task, %error, "a task's body cannot be written as JSON");
            Problem::internal("the task's body cannot be written as JSON")
        })?;
        let delay = self.due.map(|due| match due {
            Due::After(delay) => delay,
            Due::At(time) => time.duration_since(self.tasks.host.now()).unwrap_or_default(),
        });
        // Rounded up: never early.
        let delay_ms =
            delay.map(|delay| u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        let mut options = Map::new();
        let mut put = |name: &str, value: Value| options.insert(name.to_owned(), value);
        put("task", self.task.into());
        if let Some((plugin, major)) = self.plugin {
            put("plugin", plugin.into());
            put("major", major.into());
        }
        put("idempotency_key", self.idempotency_key.into());
        put("priority", json!(self.priority));
        put("delay_ms", delay_ms.into());
        put("staged_by", self.staged_by.into());
        put("traceparent", self.tasks.traceparent.as_deref().into());
        Ok((options, body))
    }

    async fn publish(self) -> Result<Accepted, Problem> {
        let (host, context_id) = (self.tasks.host, self.tasks.context_id);
        let (options, body) = self.into_parts()?;
        let options = FfiBytes::from(Value::Object(options).to_string());
        accepted(
            host,
            EnqueueHead { context_id, options, body: FfiBytes::from(body), ext: FfiBytes::empty() },
        )
        .await
    }
}

/// Asks the host to accept it; answers its receipt.
pub(crate) async fn accepted<T: DeserializeOwned>(host: HostHandle, head: EnqueueHead) -> Result<T, Problem> {
    let (answered, answer) = tokio::sync::oneshot::channel();
    // The receiver may be gone when a cancelled handler's answer comes: then nobody waits for it.
    let callback = FfiCallback::new(move |answer| drop(answered.send(answer)));
    (host.vtable.enqueue())(host.ctx, head, callback);
    let Ok(answer) = answer.await else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "The host is stopping and did not accept the task",
        )
        .retry_after_s(1));
    };
    if answer.code != code::OK {
        return Err(Problem::from_host(answer.value.as_slice()));
    }
    serde_json::from_slice(answer.value.as_slice()).map_err(|error| {
        tracing::error!(%error, "the host's receipt cannot be read");
        Problem::internal("the host's receipt cannot be read")
    })
}

impl IntoFuture for Enqueue {
    type Output = Result<Accepted, Problem>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

/// The broker has stored a task. As a response: 202 with a receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The task's id.
    pub id: uuid::Uuid,
    /// True where an earlier enqueue with the same idempotency key made the task.
    #[serde(default)]
    pub duplicate: bool,
}

impl Accepted {
    fn link(&self) -> String {
        format!("/tasks/{}", self.id)
    }

    pub(crate) fn receipt(&self) -> Value {
        let links = json!({ "self": self.link() });
        json!({ "id": self.id, "state": "queued", "duplicate": self.duplicate, "links": links })
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::ACCEPTED, axum::Json(self.receipt())).into_response();
        if let Ok(link) = HeaderValue::from_str(&self.link()) {
            response.headers_mut().insert(header::LOCATION, link);
        }
        response
    }
}
