//! A task that has another one run when it is given up, and that other one.

use crate::order::Order;
use crate::{App, attempt};
use plugin_api::prelude::*;

/// Does what the body says; `give_up` is run when it is given up.
#[task(retry(max_attempts = 2, backoff = "100ms..200ms"), exhausted = "give_up")]
pub(crate) async fn doomed(ctx: TaskContext<App>, order: Order) -> TaskResult<Value> {
    attempt(&ctx, &order).await
}

/// Answers what it is told. Where the dead task's note is `stubborn` it fails once before.
#[task(retry(max_attempts = 3, backoff = "100ms..200ms"))]
pub(crate) async fn give_up(ctx: TaskContext<App>, dead: Exhausted<Order>) -> TaskResult<Value> {
    let note = dead.body.as_ref().and_then(|order| order.note.as_deref());
    if note == Some("stubborn") && ctx.attempt() == 1 {
        return Err(TaskError::retry("failed as told"));
    }
    ctx.state().trace.note(ctx.id(), ctx.attempt())?;
    Ok(serde_json::to_value(dead)?)
}

/// Names a task that nobody has; declared only when it is asked for, for no host takes it.
#[task(exhausted = "nobody")]
pub(crate) async fn forlorn(ctx: TaskContext<App>, order: Order) -> TaskResult<Value> {
    attempt(&ctx, &order).await
}
