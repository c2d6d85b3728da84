//! Side effects that a retry must not repeat.

use crate::ask::ask;
use crate::{Problem, TaskContext, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::future::Future;

#[derive(Deserialize)]
struct Recorded {
    found: bool,
    #[serde(default)]
    value: Value,
}

impl<S> TaskContext<S> {
    /// Does something outside, unless an earlier attempt of this task has done it under the same key: then what it
    /// brought is returned and nothing is done. What `effect` brings (as JSON at most 64 KiB) is recorded with the task
    /// before `once` returns; where it fails, nothing is, and the next attempt tries again.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # struct App;
    /// # #[derive(Serialize, Deserialize)] struct Charge { id: String }
    /// # async fn charge(key: &str) -> Result<Charge, std::io::Error> { unimplemented!() }
    /// # async fn settle(ctx: TaskContext<App>) -> TaskResult<String> {
    /// let key = ctx.once_key("charge");
    /// let charge: Charge = ctx.once("charge", async || charge(&key).await).await?;
    /// # Ok(charge.id)
    /// # }
    /// ```
    ///
    /// It is *at least* once: a process that dies after the effect and before the record leaves none. So give whoever
    /// gets the effect [`once_key`](Self::once_key) as its idempotency key, where it takes one. A key has 1 to 255 bytes,
    /// and a task has at most 64 of them.
    ///
    /// # Errors
    /// What `effect` says. A retry where the broker cannot be asked, and nothing was done then; or where it was away for
    /// so long after the effect that this could not be recorded, which the text says. A failure for good where the value
    /// or the key is of no use.
    pub async fn once<T, E, F, Fut>(&self, key: &str, effect: F) -> Result<T, TaskError>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        TaskError: From<E>,
    {
        let look = json!({ "once_look": { "key": key } });
        let earlier: Recorded =
            self.ask(&look).await.map_err(|problem| error(&problem, "nothing was done"))?;
        if earlier.found {
            return read(key, earlier.value);
        }
        let done = effect().await?;
        let value = serde_json::to_value(&done).map_err(|error| {
            TaskError::fail(format!("what `{key}` brought cannot be written as JSON: {error}"))
        })?;
        let keep = json!({ "once_keep": { "key": key, "value": value } });
        let unrecorded = "it was done and could not be recorded, so the next attempt does it again";
        let stands: Recorded = self.ask(&keep).await.map_err(|problem| error(&problem, unrecorded))?;
        if stands.found { read(key, stands.value) } else { Ok(done) }
    }

    /// The key under which whoever gets an effect can tell its repeat: the same for all attempts of this task, and of no
    /// other.
    pub fn once_key(&self, key: &str) -> String {
        format!("{}-{key}", self.id())
    }

    async fn ask(&self, question: &Value) -> Result<Recorded, Problem> {
        ask(self.info.host, self.info.id, self.info.attempt, question).await
    }
}

fn read<T: DeserializeOwned>(key: &str, value: Value) -> Result<T, TaskError> {
    serde_json::from_value(value).map_err(|error| {
        TaskError::fail(format!("what an earlier attempt recorded under `{key}` is of another type: {error}"))
    })
}

fn error(problem: &Problem, so: &str) -> TaskError {
    let text = format!("{problem} ({so})");
    // What is wrong with the question stays wrong; an attempt that is over is asked for nothing.
    let is_final = problem.status().is_client_error() && problem.code() != "task_ended";
    if is_final { TaskError::fail(text) } else { TaskError::retry(text) }
}
