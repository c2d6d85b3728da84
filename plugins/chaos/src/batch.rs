//! Tasks that are enqueued together.

use crate::order::{Mode, Order};
use crate::{Keyed, chaos, keyed};
use plugin_api::prelude::*;

/// The body of `POST /chaos/batch`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// So many tasks `chaos`, which answer their number.
    count: u32,
    /// They are delayed by so many milliseconds.
    #[serde(default)]
    delay_ms: u64,
    /// The last one is not.
    #[serde(default)]
    mixed: bool,
    /// One more, of the task `keyed`, with this serial key.
    serial: Option<String>,
    /// One more, of the task `keyed`, with this unique key.
    unique: Option<String>,
    /// One more, of the plugin payments.
    #[serde(default)]
    other_plugin: bool,
    /// Each body has about so many bytes more.
    #[serde(default)]
    bytes: usize,
}

/// Enqueues several tasks together, with the request's `Idempotency-Key`.
#[utoipa::path(post, path = "/batch", request_body = Batch, responses((status = 202, description = "All are stored")))]
pub(crate) async fn batch(
    tasks: Tasks,
    headers: HeaderMap,
    Json(batch): Json<Batch>,
) -> Result<AcceptedAll, Problem> {
    let filler = "x".repeat(batch.bytes);
    let mut all = Vec::new();
    for n in 0..batch.count {
        let order = Order { note: Some(format!("{n}{filler}")), ..Order::child() };
        let is_delayed = !(batch.mixed && n + 1 == batch.count);
        let delay = Duration::from_millis(if is_delayed { batch.delay_ms } else { 0 });
        all.push(tasks.enqueue(chaos, order).delay(delay));
    }
    for (serial, unique) in [(batch.serial, None), (None, batch.unique)] {
        if serial.is_some() || unique.is_some() {
            let body = Keyed { mode: Mode::Ok, ms: 0, times: 0, note: None, unique, serial };
            all.push(tasks.enqueue(keyed, body));
        }
    }
    if batch.other_plugin {
        let refund = json!({ "event_id": "e", "object_id": "r", "kind": "refund.created", "amount": 5 });
        all.push(tasks.plugin("payments", 0).enqueue("record_refund", &refund));
    }
    let enqueue = tasks.enqueue_all(all);
    match headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
        Some(key) => enqueue.idempotency_key(key).await,
        None => enqueue.await,
    }
}
