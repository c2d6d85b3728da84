//! One attempt of a task.

use super::Handler;
use super::body::TaskGuard;
use super::guarded::Guarded;
use super::instance::PluginInstance;
use super::start;
use crate::context::HostHandle;
use crate::outcome::Outcome;
use crate::task::AttemptInfo;
use cardcage_abi::{FfiBytes, TaskHead, TaskReply, TaskToken, code, headers};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Starts the attempt; `None` where it has ended already.
pub(super) fn start(plugin: &'static PluginInstance, head: TaskHead, token: TaskToken) -> Option<Handler> {
    let guard = TaskGuard::new(plugin.host, token);
    let host = plugin.host;
    let traceparent = headers::get(head.headers.as_slice(), "traceparent");
    let cancellation = CancellationToken::new();
    let soft_ms = headers::get(head.ext.as_slice(), headers::SOFT_DEADLINE_MS);
    let soft_ms = soft_ms.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let info = AttemptInfo {
        host,
        id: head.task_id,
        attempt: head.attempt,
        deadline: by_hosts_clock(host, head.deadline_unix_ms),
        soft_deadline: soft_ms.map(|ms| by_hosts_clock(host, ms)),
        enqueued_at: UNIX_EPOCH + Duration::from_millis(head.enqueued_unix_ms),
        traceparent: traceparent.and_then(|text| std::str::from_utf8(text).ok()).map(Arc::from),
        cancellation: cancellation.clone(),
    };
    let Some(handler) = plugin.task(head.task) else {
        let text = format!("the plugin has no task number {}", head.task);
        guard.complete(reply(Outcome::failure(code::TASK_UNDECODABLE, text)));
        return None;
    };
    let in_place = head.in_place != 0;
    let attempt = Box::pin(async move {
        // Decoding runs the author's `Deserialize`, so it happens here and under the guard's eyes too.
        let work = super::guarded::Work { kind: "task", name: Arc::from(""), id: info.id };
        let started =
            Guarded::new(host, work, async { plugin.attempt(head.task, info, head.body.as_slice()) }).await;
        let outcome = match started {
            Ok(Some((work, attempt))) => Guarded::new(host, work, attempt).await,
            // Looked up before.
            Ok(None) => return,
            Err(panic) => Err(panic),
        };
        let outcome = outcome.unwrap_or_else(|panic| Outcome::failure(code::TASK_PANICKED, panic));
        guard.complete(reply(outcome));
    });
    let abort = start::handler(plugin.handle(), &handler.lane, in_place, attempt)?;
    Some(Handler { abort, cancellation: Some(cancellation) })
}

/// A time to come of this machine's clock, in which hosts limit attempts, by the clock that handlers read: the broker's.
fn by_hosts_clock(host: HostHandle, unix_ms: u64) -> SystemTime {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let (now, left) = (host.now(), at.duration_since(SystemTime::now()).unwrap_or_default());
    now.checked_add(left).unwrap_or(at)
}

fn reply(outcome: Outcome) -> TaskReply {
    TaskReply {
        code: outcome.code,
        delay_ms: outcome.delay_ms,
        value: FfiBytes::from(outcome.value),
        ext: FfiBytes::empty(),
    }
}
