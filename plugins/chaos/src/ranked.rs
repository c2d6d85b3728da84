//! Tasks with priorities.

use crate::order::Order;
use crate::{App, attempt, chaos};
use plugin_api::prelude::*;

/// Does what the body says, by its priority.
#[task(retry(max_attempts = 6, backoff = "100ms..1s"), priorities, concurrency = 1)]
pub(crate) async fn ranked(ctx: TaskContext<App>, order: Order) -> TaskResult<Value> {
    attempt(&ctx, &order).await
}

/// A priority as a path has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rank {
    High,
    Normal,
    Low,
}

/// Enqueues the task `ranked`; with `?plain` the task `chaos`, which has no priorities.
#[utoipa::path(post, path = "/ranked/{priority}", params(("priority" = inline(Rank), Path)), request_body = Order,
    responses((status = 202, description = "Enqueued")))]
pub(crate) async fn rank(
    tasks: Tasks,
    Path(rank): Path<Rank>,
    uri: axum::http::Uri,
    Json(order): Json<Order>,
) -> Result<Accepted, Problem> {
    let priority = match rank {
        Rank::High => Priority::High,
        Rank::Normal => Priority::Normal,
        Rank::Low => Priority::Low,
    };
    if uri.query() == Some("plain") {
        return tasks.enqueue(chaos, order).priority(priority).await;
    }
    tasks.enqueue(ranked, order).priority(priority).await
}
