//! What a task is told that is run because another one was given up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The body of a task that another one names as `exhausted`: what became of that one. `T` is its body.
///
/// ```no_run
/// # use plugin_api::prelude::*;
/// # #[derive(Clone)] struct App;
/// # #[derive(Serialize, Deserialize, JsonSchema)] struct Order { id: String }
/// #[task(exhausted = "give_up")]
/// async fn fulfil(ctx: TaskContext<App>, order: Order) -> TaskResult<()> {
/// #   Ok(())
/// }
///
/// #[task]
/// async fn give_up(ctx: TaskContext<App>, dead: Exhausted<Order>) -> TaskResult<()> {
///     warn!(task = %dead.id, dead.reason, "an order could not be fulfilled");
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Exhausted<T> {
    /// The task that was given up.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Its plugin.
    pub plugin: String,
    /// Its name.
    pub task: String,
    /// Its body; `None` where that was no JSON, or too large to travel inside another body. The dead letter has it.
    pub body: Option<T>,
    /// Why it was given up, as its dead letter says.
    pub reason: String,
    /// The code of the error that ended it.
    pub code: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// When it was enqueued (RFC 3339).
    pub enqueued_at: String,
}
