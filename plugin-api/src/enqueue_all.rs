//! Enqueueing several tasks together: all of them, or none.
//!
//! They go to the host in the extension field of one enqueue, their bodies in one piece; which of them may go together
//! is the host's to say.

use crate::enqueue::{Enqueue, Tasks, accepted};
use crate::{Accepted, Problem};
use axum::response::{IntoResponse, Response};
use cardcage_abi::{EnqueueHead, FfiBytes};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

impl Tasks {
    /// Starts an enqueue of several tasks: once it is done all are stored, and if it is refused, none. They are the
    /// enqueues of [`enqueue`](Self::enqueue), or of [`OtherTasks::enqueue`](crate::OtherTasks::enqueue).
    ///
    /// ```
    /// # use plugin_api::prelude::*;
    /// # #[derive(Clone)] struct App;
    /// # #[task] async fn enrol(_: TaskContext<App>, learner: String) -> TaskResult<()> { Ok(()) }
    /// # #[task] async fn invoice(_: TaskContext<App>, order: u64) -> TaskResult<()> { Ok(()) }
    /// async fn accept(tasks: Tasks, order: u64) -> Result<AcceptedAll, Problem> {
    ///     let all = [tasks.enqueue(enrol, "Ada".into()), tasks.enqueue(invoice, order)];
    ///     tasks.enqueue_all(all).idempotency_key(order.to_string()).await
    /// }
    /// ```
    ///
    /// At most 1,000 tasks of together 8 MiB; of one plugin; all at once, or all delayed; without idempotency keys or
    /// unique keys of their own. Otherwise it is refused with 422 `invalid_batch`, whose detail says what is wrong.
    ///
    /// In a task they are staged, as by [`enqueue`](Self::enqueue): each is published once when the attempt has
    /// succeeded, and with it, all are. Enqueues of [`enqueue_now`](Self::enqueue_now) are published at once, also there.
    pub fn enqueue_all(&self, tasks: impl IntoIterator<Item = Enqueue>) -> EnqueueAll {
        EnqueueAll { tasks: self.clone(), all: tasks.into_iter().collect(), idempotency_key: None }
    }
}

/// Tasks about to be published together; made by [`Tasks::enqueue_all`].
#[derive(Debug)]
#[must_use = "an enqueue does nothing until it is awaited"]
pub struct EnqueueAll {
    tasks: Tasks,
    all: Vec<Enqueue>,
    idempotency_key: Option<String>,
}

impl EnqueueAll {
    /// A second enqueue of the same tasks and bodies with the same key answers the first one's ids and runs nothing again.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    async fn publish(self) -> Result<AcceptedAll, Problem> {
        let (mut tasks, mut bodies) = (Vec::with_capacity(self.all.len()), Vec::new());
        for enqueue in self.all {
            let (mut options, body) = enqueue.into_parts()?;
            options.insert("body_bytes".to_owned(), body.len().into());
            tasks.push(options);
            bodies.extend(body);
        }
        let asked = json!({ "tasks": tasks, "idempotency_key": self.idempotency_key });
        let head = EnqueueHead {
            context_id: self.tasks.context_id,
            // A host that does not know batches finds no task here, and refuses.
            options: FfiBytes::from_static(b"{}"),
            body: FfiBytes::from(bodies),
            ext: FfiBytes::from(asked.to_string()),
        };
        accepted(self.tasks.host, head).await
    }
}

impl IntoFuture for EnqueueAll {
    type Output = Result<AcceptedAll, Problem>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

/// The broker has stored all of these tasks. As a response: 202 with a receipt for each, under `tasks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptedAll {
    /// The tasks' ids, in the order in which they were enqueued.
    pub ids: Vec<uuid::Uuid>,
    /// True where an earlier enqueue with the same idempotency key made the tasks.
    #[serde(default)]
    pub duplicate: bool,
}

impl IntoResponse for AcceptedAll {
    fn into_response(self) -> Response {
        let receipt = |id: &uuid::Uuid| Accepted { id: *id, duplicate: self.duplicate }.receipt();
        let tasks: Vec<_> = self.ids.iter().map(receipt).collect();
        (StatusCode::ACCEPTED, axum::Json(json!({ "tasks": tasks }))).into_response()
    }
}
