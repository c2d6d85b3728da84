//! Several tasks that a plugin enqueues together, as they come through the boundary.
//!
//! They come in the extension field of an enqueue, so that a host which does not know them refuses them; their bodies in
//! one piece, cut here without being copied.

use super::lending;
use super::plugin_host::{PluginHost, problem, target};
use super::services::{EnqueueAllRequest, EnqueueRequest, Identity};
use bytes::Bytes;
use cardcage_abi::{Answer, EnqueueHead, FfiCallback, code};
use cardcage_protocol::{Problem, ProblemCode, limits};
use serde::Deserialize;

/// What the extension field holds.
#[derive(Debug, Deserialize)]
struct Asked {
    tasks: Vec<AskedTask>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AskedTask {
    /// Bytes of its body; the bodies follow each other.
    body_bytes: usize,
    #[serde(flatten)]
    request: EnqueueRequest,
}

pub(super) fn enqueue_all(host: &'static PluginHost, head: EnqueueHead, callback: FfiCallback) {
    let asked: Asked = match serde_json::from_slice(head.ext.as_slice()) {
        Ok(asked) => asked,
        Err(error) => return callback.answer(Answer::error(code::REJECTED, error.to_string())),
    };
    let (identity, request) = match resolve(host, asked, head.context_id, Bytes::from_owner(head.body)) {
        Ok(resolved) => resolved,
        Err(refused) => return callback.answer(problem(&refused)),
    };
    let published = host.services.enqueue_all(&identity, request);
    lending::spawn(&host.runtime, async move {
        callback.answer(match published.await {
            Ok(receipts) => Answer::ok(serde_json::to_string(&receipts).unwrap_or_default()),
            Err(refused) => problem(&refused),
        });
    });
}

fn resolve(
    host: &PluginHost,
    asked: Asked,
    context_id: [u8; 16],
    mut bodies: Bytes,
) -> Result<(Identity, EnqueueAllRequest), Problem> {
    let invalid = |detail: String| Problem::new(ProblemCode::InvalidBatch).detail(detail);
    // Said before each body is held against a schema.
    if asked.tasks.len() > limits::BATCH_TASKS_MAX {
        let max = limits::BATCH_TASKS_MAX;
        return Err(invalid(format!(
            "At most {max} tasks are enqueued together; these are {}.",
            asked.tasks.len()
        )));
    }
    let mut of: Option<Identity> = None;
    let mut tasks = Vec::with_capacity(asked.tasks.len());
    for AskedTask { body_bytes, request } in asked.tasks {
        if body_bytes > bodies.len() {
            return Err(invalid("Their bodies are shorter than they say.".to_owned()));
        }
        let request = EnqueueRequest { context_id, body: bodies.split_to(body_bytes), ..request };
        let (identity, terms, request) = target(host, request)?;
        let first = of.get_or_insert_with(|| identity.clone());
        if (&first.name, first.major) != (&identity.name, identity.major) {
            let (one, other) = (&first.name, &identity.name);
            return Err(invalid(format!("They are tasks of more than one plugin: of {one} and of {other}.")));
        }
        tasks.push((terms, request));
    }
    let identity = of.unwrap_or_else(|| host.identity.clone());
    Ok((identity, EnqueueAllRequest { tasks, idempotency_key: asked.idempotency_key }))
}
