//! Enqueueing tasks from handlers.

use crate::context::{HostHandle, NoHost, RequestContext};
use crate::{Priority, Problem, Task};
use axum::response::{IntoResponse, Response};
use cardcage_abi::{EnqueueHead, FfiBytes, FfiCallback, code};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Enqueues tasks of this plugin. An axum extractor; in a task, [`crate::TaskContext::tasks`].
#[derive(Debug, Clone)]
pub struct Tasks {
    pub(crate) host: HostHandle,
    pub(crate) context_id: [u8; 16],
    pub(crate) traceparent: Option<Arc<str>>,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Tasks {
    type Rejection = NoHost;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, NoHost> {
        let ctx = parts.extensions.get::<RequestContext>().ok_or(NoHost)?;
        Ok(Self { host: ctx.host, context_id: ctx.request_id, traceparent: ctx.traceparent.clone() })
    }
}

impl Tasks {
    /// Starts an enqueue; `.await` publishes it, and is done once the broker has stored it.
    pub fn enqueue<T: Task>(&self, _task: T, input: T::Input) -> Enqueue {
        Enqueue {
            tasks: self.clone(),
            task: T::NAME,
            body: serde_json::to_vec(&input),
            idempotency_key: None,
            priority: None,
            delay: None,
        }
    }
}

/// A task about to be published.
#[derive(Debug)]
#[must_use = "an enqueue does nothing until it is awaited"]
pub struct Enqueue {
    tasks: Tasks,
    task: &'static str,
    body: Result<Vec<u8>, serde_json::Error>,
    idempotency_key: Option<String>,
    priority: Option<Priority>,
    delay: Option<Duration>,
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

    /// Not before this time has passed.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    async fn publish(self) -> Result<Accepted, Problem> {
        let body = self.body.map_err(|error| {
            tracing::error!(task = self.task, %error, "a task's body cannot be written as JSON");
            Problem::internal("the task's body cannot be written as JSON")
        })?;
        let delay_ms = self.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let options = json!({
            "task": self.task,
            "idempotency_key": self.idempotency_key,
            "priority": self.priority,
            "delay_ms": delay_ms,
            "traceparent": self.tasks.traceparent.as_deref(),
        });
        let (answered, answer) = tokio::sync::oneshot::channel();
        let head = EnqueueHead {
            context_id: self.tasks.context_id,
            options: FfiBytes::from(options.to_string()),
            body: FfiBytes::from(body),
            ext: FfiBytes::empty(),
        };
        let host = self.tasks.host;
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

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let link = format!("/tasks/{}", self.id);
        let receipt = json!({ "id": self.id, "state": "queued", "duplicate": self.duplicate, "links": { "self": link } });
        let mut response = (StatusCode::ACCEPTED, axum::Json(receipt)).into_response();
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LOCATION, link);
        }
        response
    }
}
