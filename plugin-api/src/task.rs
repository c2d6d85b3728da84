//! Durable tasks: what an author declares, and how a handler says how it went.

use crate::context::HostHandle;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Why an attempt did not succeed, and what follows.
///
/// `?` on any error means [`TaskError::Retry`]: what failed now may work later.
#[derive(Debug)]
pub enum TaskError {
    /// Try again, with the task's backoff, until its attempts are used up.
    Retry(Failure),
    /// Try again after this time; counts as an attempt.
    RetryAfter(Duration, Failure),
    /// Trying again is of no use: ends `failed` and becomes a dead letter.
    Fail(Failure),
    /// No longer wanted: ends `cancelled`, no dead letter.
    Discard(Failure),
}

/// The text and the details of a failure, as `GET /tasks/{id}` and dead letters show them. Of the last one, 64 KiB of text are
/// kept, and details of up to 64 KiB; of those before it, 4 KiB each. A dead letter keeps less of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, for operators and callers of `GET /tasks/{id}`.
    pub message: String,
    /// Anything more, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// Longer messages are cut before they cross to the host, which keeps no more than that.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// Larger details are left out, as the host would do.
const DETAILS_MAX_BYTES: usize = 64 * 1024;

impl Failure {
    /// As the host reads it, within its bounds: what is larger it would keep as the beginning of a text.
    pub(crate) fn encode(mut self) -> Vec<u8> {
        if self.message.len() > MESSAGE_MAX_BYTES {
            self.message.truncate(self.message.floor_char_boundary(MESSAGE_MAX_BYTES));
            self.message.push('…');
        }
        let fits = |details: &Value| details.to_string().len() <= DETAILS_MAX_BYTES;
        self.details = self.details.filter(fits);
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

impl TaskError {
    /// See [`TaskError::Retry`].
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(Failure { message: message.into(), details: None })
    }

    /// See [`TaskError::RetryAfter`].
    pub fn retry_after(delay: Duration, message: impl Into<String>) -> Self {
        Self::RetryAfter(delay, Failure { message: message.into(), details: None })
    }

    /// See [`TaskError::Fail`].
    pub fn fail(message: impl Into<String>) -> Self {
        Self::Fail(Failure { message: message.into(), details: None })
    }

    /// See [`TaskError::Discard`].
    pub fn discard(message: impl Into<String>) -> Self {
        Self::Discard(Failure { message: message.into(), details: None })
    }

    /// Adds details.
    pub fn with(mut self, value: impl Into<Value>) -> Self {
        let (Self::Retry(failure)
        | Self::RetryAfter(_, failure)
        | Self::Fail(failure)
        | Self::Discard(failure)) = &mut self;
        failure.details = Some(value.into());
        self
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::retry(message)
    }
}

/// What a task's handler answers.
pub type TaskResult<T> = Result<T, TaskError>;

/// What a task declares of itself. `None`: the operator's default.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskOptions {
    /// How many attempts at most, the first included.
    pub max_attempts: Option<u32>,
    /// The wait before the second attempt; doubles from then on, with jitter.
    pub backoff_initial_ms: Option<u64>,
    /// The longest wait.
    pub backoff_max_ms: Option<u64>,
    /// The hard limit of one attempt.
    pub timeout_ms: Option<u64>,
    /// When the handler is told that its attempt should come to an end.
    pub soft_timeout_ms: Option<u64>,
    /// How long result and record are kept.
    pub result_ttl_s: Option<u64>,
    /// Handlers at the same time, per worker.
    pub concurrency: Option<u32>,
    /// Handlers at the same time, over all workers.
    pub max_running: Option<u32>,
    /// Whether it can be enqueued with a [`Priority`].
    pub priorities: bool,
    /// Starts over all workers, as in `10/s`.
    pub rate: Option<&'static str>,
    /// The body's field, as `order.id`, of which one value is queued or running at a time.
    pub unique_key: Option<&'static str>,
    /// The body's field of which one value is running at a time.
    pub serial_key: Option<&'static str>,
    /// How long the task may wait before it ends `expired`.
    pub expires_ms: Option<u64>,
    /// Whether it is tried again when its worker was lost.
    pub on_lost: Option<OnLost>,
    /// The task of the same plugin that is run when this one is given up, with [`Exhausted`](crate::Exhausted) as its body.
    pub exhausted: Option<&'static str>,
    /// Makes a body of this version of one that is none.
    pub upcast: Option<Upcast>,
}

/// Makes a body that a task's handler takes of one that an earlier version took; `None` where it knows no such body. It is
/// asked only where the body does not fit as it is, runs before the handler and costs no attempt; it has no context, for
/// what it answers must depend on the body alone.
pub type Upcast = fn(Value) -> Option<Value>;

/// How urgent a task is that declares `priorities`. While tasks of all three wait, a worker takes 16 of high for 4 of
/// normal and 1 of low; what one leaves goes to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// As a task is that has no priorities.
    #[default]
    Normal,
    /// After the others.
    Low,
}

/// What becomes of a task whose worker was lost while it ran, so that nobody knows how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// It is tried again.
    Retry,
    /// It ends `failed` and becomes a dead letter: it is never started a second time unless its handler asks for it.
    Fail,
}

/// A task that the `#[task]` attribute made of a function.
pub trait Task: Send + Sync + 'static {
    /// The plugin's state.
    type State: Send + Sync + 'static;
    /// The body.
    type Input: DeserializeOwned + Serialize + JsonSchema + Send + 'static;
    /// The result.
    type Output: Serialize + JsonSchema + Send + 'static;
    /// `[a-z0-9_-]{1,64}`; part of the wire format.
    const NAME: &'static str;
    /// The function's doc comment.
    const DESCRIPTION: &'static str;
    /// What the attribute declares.
    const OPTIONS: TaskOptions;

    /// Runs one attempt.
    fn run(
        ctx: TaskContext<Self::State>,
        input: Self::Input,
    ) -> impl Future<Output = TaskResult<Self::Output>> + Send;
}

/// What a task's handler knows of its attempt.
#[derive(Debug)]
pub struct TaskContext<S> {
    pub(crate) state: Arc<S>,
    pub(crate) info: AttemptInfo,
}

impl<S> Clone for TaskContext<S> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), info: self.info.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct AttemptInfo {
    pub(crate) host: HostHandle,
    pub(crate) id: [u8; 16],
    pub(crate) attempt: u32,
    pub(crate) deadline: SystemTime,
    pub(crate) soft_deadline: Option<SystemTime>,
    pub(crate) enqueued_at: SystemTime,
    pub(crate) traceparent: Option<Arc<str>>,
    pub(crate) cancellation: CancellationToken,
}

impl<S> TaskContext<S> {
    /// The plugin's state.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The task's id: the same for all attempts, so good as an idempotency key for other services.
    pub fn id(&self) -> uuid::Uuid {
        uuid::Uuid::from_bytes(self.info.id)
    }

    /// Which attempt this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.info.attempt
    }

    /// The host's clock: broker time, the same for all hosts.
    pub fn now(&self) -> SystemTime {
        self.info.host.now()
    }

    /// When the attempt is ended from outside, by the clock of [`now`](Self::now).
    pub fn deadline(&self) -> SystemTime {
        self.info.deadline
    }

    /// When the task was accepted.
    pub fn enqueued_at(&self) -> SystemTime {
        self.info.enqueued_at
    }

    /// The W3C trace context, to pass on to other services.
    pub fn traceparent(&self) -> Option<&str> {
        self.info.traceparent.as_deref()
    }

    /// Waits until somebody cancels the task. From then on the handler has `tasks.cancel_grace_ms` (10 s, unless the
    /// operator says otherwise) to end: what it returns decides. `Ok` ends the task `succeeded`, anything else ends it
    /// `cancelled` and is not tried again. After that time the handler is dropped at its next await.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # struct App;
    /// # async fn next_page() -> Option<u32> { None }
    /// # async fn import(ctx: TaskContext<App>) -> TaskResult<u32> {
    /// let mut pages = 0;
    /// loop {
    ///     tokio::select! {
    ///         page = next_page() => match page {
    ///             Some(_) => pages += 1,
    ///             None => return Ok(pages),
    ///         },
    ///         () = ctx.cancelled() => return Err(TaskError::discard("cancelled between two pages")),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn cancelled(&self) {
        self.info.cancellation.cancelled().await;
    }

    /// The token behind [`cancelled`](Self::cancelled), for what the handler spawns or calls. Only the host cancels it.
    pub fn cancellation(&self) -> CancellationToken {
        // A child: cancelling it is the author's own affair and ends nobody else's.
        self.info.cancellation.child_token()
    }

    /// For enqueueing further tasks, as a part of this attempt's success.
    pub fn tasks(&self) -> crate::Tasks {
        crate::Tasks {
            host: self.info.host,
            context_id: self.info.id,
            traceparent: self.info.traceparent.clone(),
            attempt: Some(self.info.attempt),
        }
    }
}
