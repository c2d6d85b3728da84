//! What reaches beyond one attempt: effects that are recorded, and waiting for another task's end.

use crate::order::Order;
use crate::{App, chaos};
use plugin_api::Ended;
use plugin_api::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

/// The body of the task `effects`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Effects {
    /// So many keys.
    keys: u32,
    /// What each brings has about so many bytes.
    #[serde(default)]
    bytes: usize,
    /// Attempts before this one fail after their effects.
    #[serde(default)]
    fail_until: u32,
    /// The first attempt takes so long after its effects.
    #[serde(default)]
    hold_ms: u64,
}

/// Which attempt did each thing, and how many the last one did.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Did {
    by_attempt: Vec<u32>,
    by_the_last: u32,
}

/// Does things once, and answers which attempt did each.
#[task(retry(max_attempts = 4, backoff = "100ms..1s"))]
pub(crate) async fn effects(ctx: TaskContext<App>, body: Effects) -> TaskResult<Did> {
    let (mut did, runs) = (Did::default(), AtomicU32::new(0));
    for key in 0..body.keys {
        let effect = async || {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok::<_, TaskError>((ctx.attempt(), "x".repeat(body.bytes)))
        };
        let (attempt, _): (u32, String) = ctx.once(&format!("effect {key}"), effect).await?;
        did.by_attempt.push(attempt);
    }
    did.by_the_last = runs.into_inner();
    if ctx.attempt() == 1 {
        tokio::time::sleep(Duration::from_millis(body.hold_ms)).await;
    }
    if ctx.attempt() < body.fail_until { Err(TaskError::retry("failed as told")) } else { Ok(did) }
}

/// Enqueues a task of the plugin payments, with the body as it is.
#[utoipa::path(post, path = "/refund", request_body = Value, responses((status = 202, description = "Enqueued")))]
pub(crate) async fn refund(tasks: Tasks, Json(body): Json<Value>) -> Result<Accepted, Problem> {
    tasks.plugin("payments", 0).enqueue("record_refund", &body).idempotency_key("refund").await
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct Time {
    /// Milliseconds since 1970.
    unix_ms: u64,
}

/// Enqueues the task `chaos` for a time.
#[utoipa::path(post, path = "/at", params(Time), request_body = Order, responses((status = 202, description = "Enqueued")))]
pub(crate) async fn at(
    tasks: Tasks,
    Query(time): Query<Time>,
    Json(order): Json<Order>,
) -> Result<Accepted, Problem> {
    tasks.enqueue(chaos, order).at(UNIX_EPOCH + Duration::from_millis(time.unix_ms)).await
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct Patience {
    /// Milliseconds.
    ms: u64,
    /// Another task, which is not enqueued.
    id: Option<Uuid>,
}

/// Enqueues the task `chaos` and waits for its end.
#[utoipa::path(post, path = "/wait", params(Patience), request_body = Order,
    responses((status = 200, description = "How it ended")))]
pub(crate) async fn wait(
    tasks: Tasks,
    Query(patience): Query<Patience>,
    Json(order): Json<Order>,
) -> Result<Json<Value>, Problem> {
    waited(tasks, patience, order).await
}

/// The same in the API instance.
#[utoipa::path(post, path = "/inline_wait", params(Patience), request_body = Order,
    responses((status = 200, description = "How it ended")))]
pub(crate) async fn inline_wait(
    tasks: Tasks,
    Query(patience): Query<Patience>,
    Json(order): Json<Order>,
) -> Result<Json<Value>, Problem> {
    waited(tasks, patience, order).await
}

async fn waited(tasks: Tasks, patience: Patience, order: Order) -> Result<Json<Value>, Problem> {
    let id = match patience.id {
        Some(id) => id,
        None => tasks.enqueue(chaos, order).await?.id,
    };
    let ended = match tasks.wait(chaos, id, Duration::from_millis(patience.ms)).await? {
        None => json!({ "waited": "in vain" }),
        Some(Ended::Succeeded(result)) => json!({ "succeeded": result }),
        Some(Ended::Failed(failure)) => json!({ "failed": failure.message }),
        Some(Ended::Cancelled(failure)) => json!({ "cancelled": failure.message }),
        Some(other) => json!({ "other": format!("{other:?}") }),
    };
    Ok(Json(json!({ "id": id, "ended": ended })))
}
