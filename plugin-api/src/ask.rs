//! Asking the host something, and waiting for the answer.

use crate::Problem;
use crate::context::HostHandle;
use cardcage_abi::{AskHead, FfiBytes, FfiCallback, code};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Asks; see the boundary's [`AskHead`] for what can be asked.
pub(crate) async fn ask<A: DeserializeOwned>(
    host: HostHandle,
    context_id: [u8; 16],
    attempt: u32,
    question: &Value,
) -> Result<A, Problem> {
    let (answered, answer) = tokio::sync::oneshot::channel();
    let question = FfiBytes::from(question.to_string());
    let head = AskHead { context_id, attempt, question, ext: FfiBytes::empty() };
    // The receiver may be gone when a cancelled handler's answer comes: then nobody waits for it.
    let callback = FfiCallback::new(move |answer| drop(answered.send(answer)));
    (host.vtable.ask())(host.ctx, head, callback);
    let Ok(answer) = answer.await else {
        let title = "The host is stopping and does not answer";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", title).retry_after_s(1));
    };
    if answer.code != code::OK {
        return Err(Problem::from_host(answer.value.as_slice()));
    }
    serde_json::from_slice(answer.value.as_slice()).map_err(|error| {
        tracing::error!(%error, "the host's answer cannot be read");
        Problem::internal("the host's answer cannot be read")
    })
}
