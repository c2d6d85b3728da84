//! Waiting for a task's end.

use crate::ask::ask;
use crate::{Failure, Problem, Task, Tasks};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait of one question. The host is not told when a handler is dropped: this is how soon it gives up.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Pause where the host cannot wait now.
const AGAIN: Duration = Duration::from_millis(500);

/// How a task ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Ended<T> {
    /// With this result.
    Succeeded(T),
    /// Its attempts are used up, or it failed for good.
    Failed(Failure),
    /// Somebody cancelled it, or its handler discarded it.
    Cancelled(Failure),
    /// It waited longer than it may.
    Expired(Failure),
}

impl<T> Ended<T> {
    /// The result, or why there is none.
    ///
    /// # Errors
    /// The failure of any other end.
    pub fn succeeded(self) -> Result<T, Failure> {
        match self {
            Self::Succeeded(result) => Ok(result),
            Self::Failed(failure) | Self::Cancelled(failure) | Self::Expired(failure) => Err(failure),
        }
    }
}

#[derive(Deserialize)]
struct View {
    state: String,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<Failure>,
}

impl Tasks {
    /// Waits until a task has ended, for at most so long; `None` where it has not by then. It is the task's record that
    /// says so. Dropping the future ends the waiting, and has no effect on the task.
    ///
    /// A handler that waits keeps its place: on a worker whose handlers all wait for tasks of the same plugin, nothing
    /// goes on. In a task, rather enqueue what comes after; only what was enqueued by [`enqueue_now`](Self::enqueue_now)
    /// can be waited for there, since what is staged is not there before the handler has returned.
    ///
    /// # Errors
    /// 404 `no_such_task`; 503 where the broker is away all the time, or too many handlers wait; 500 where the result is
    /// of another type.
    pub async fn wait<T: Task>(
        &self,
        _task: T,
        id: uuid::Uuid,
        at_most: Duration,
    ) -> Result<Option<Ended<T::Output>>, Problem>
    where
        T::Output: DeserializeOwned,
    {
        self.wait_as(id, at_most).await
    }

    /// The same for a task of any type.
    ///
    /// # Errors
    /// See [`wait`](Self::wait).
    pub async fn wait_as<O: DeserializeOwned>(
        &self,
        id: uuid::Uuid,
        at_most: Duration,
    ) -> Result<Option<Ended<O>>, Problem> {
        let end = Instant::now() + at_most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let part = u64::try_from(left.min(ASK_MAX).as_millis()).unwrap_or(u64::MAX);
            let question = json!({ "wait": { "task_id": id, "at_most_ms": part } });
            match ask::<Option<View>>(self.host, self.context_id, 0, &question).await {
                Ok(Some(view)) => return ended(view).map(Some),
                Ok(None) if Instant::now() >= end => return Ok(None),
                Ok(None) => {}
                Err(problem) if problem.status().as_u16() == 503 && Instant::now() + AGAIN < end => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(problem) => return Err(problem),
            }
        }
    }
}

fn ended<O: DeserializeOwned>(view: View) -> Result<Ended<O>, Problem> {
    let failure = view.error.unwrap_or_else(|| Failure { message: view.state.clone(), details: None });
    Ok(match view.state.as_str() {
        "succeeded" => Ended::Succeeded(serde_json::from_value(view.result).map_err(|error| {
            tracing::error!(%error, "a task's result is of another type");
            Problem::internal("a task's result is of another type")
        })?),
        "cancelled" => Ended::Cancelled(failure),
        "expired" => Ended::Expired(failure),
        _ => Ended::Failed(failure),
    })
}
