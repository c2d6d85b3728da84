//! What it wants of other plugins, as a test says.

use crate::App;
use plugin_api::prelude::*;

/// The body of the task `reach`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reach {
    /// The other plugin.
    plugin: String,
    major: u32,
    /// Enqueues its task of this name.
    enqueue: String,
    #[serde(default)]
    body: Value,
}

/// Reaches for another plugin.
#[task(retry(max_attempts = 1, backoff = "100ms..1s"))]
pub(crate) async fn reach(ctx: TaskContext<App>, to: Reach) -> TaskResult<Value> {
    let other = ctx.tasks().plugin(to.plugin, to.major);
    let enqueued = other.enqueue(to.enqueue, &to.body).await;
    enqueued.map(|_| Value::Null).map_err(|problem| TaskError::fail(problem.to_string()))
}
