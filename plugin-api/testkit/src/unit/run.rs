//! One attempt from its start to what follows from it.

use super::cut::Cut;
use super::ledger::{Entry, New, State, error_json};
use super::terms::Terms;
use super::world::World;
use crate::Failure;
use crate::host_side::lock;
use plugin_api::CancellationToken;
use plugin_api::abi::code;
use plugin_api::testing::{AtWork, Attempt, Ended};
use plugin_api::tracing::instrument::WithSubscriber;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// How long a cancelled handler may go on, as `tasks.cancel_grace_ms` has it.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// The largest result that is kept, as `tasks.result_max_bytes` has it.
const RESULT_MAX_BYTES: usize = 262_144;

/// How an attempt ended.
enum How {
    Ended(Ended),
    Lost,
    TimedOut,
    Cancelled,
}

struct Begun {
    terms: Terms,
    future: AtWork<Ended>,
    cancellation: CancellationToken,
    cut: Option<u32>,
}

/// Runs an attempt of a task that was just marked as running.
pub(super) async fn attempt(world: Arc<World>, id: Uuid) {
    let Some(begun) = begin(&world, id) else { return world.changed() };
    let (terms, cancellation) = (begun.terms, begun.cancellation);
    let work = Cut::new(begun.future, begun.cut).with_subscriber(world.subscriber());
    let cancelled = async {
        cancellation.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    };
    let how = tokio::select! {
        biased;
        ended = work => ended.map_or(How::Lost, How::Ended),
        () = cancelled => How::Cancelled,
        () = tokio::time::sleep(terms.timeout) => How::TimedOut,
    };
    let follow = {
        let mut ledger = lock(&world.ledger);
        ledger.tasks.get_mut(&id).map(|entry| end(&world, entry, &terms, how)).unwrap_or_default()
    };
    for new in follow {
        // A key that was used for another body drops the child, as in a host.
        let _ = world.take(new);
    }
    world.changed();
    world.start_due();
}

fn begin(world: &World, id: Uuid) -> Option<Begun> {
    let plugin = world.plugin.get()?;
    let mut ledger = lock(&world.ledger);
    let entry = ledger.tasks.get_mut(&id)?;
    let terms = Terms::of(plugin, &entry.new.task)?;
    if terms.expires.is_some_and(|time| entry.new.due + time < world.clock.now()) && entry.attempt == 0 {
        entry.state = State::Expired;
        entry.error = Some(failure("expired", "it waited longer than it may"));
        return None;
    }
    if entry.cancel_requested {
        entry.state = State::Cancelled;
        entry.error = Some(failure("cancelled", "the task was cancelled"));
        return None;
    }
    let attempt = Attempt {
        id: id.into_bytes(),
        n: entry.attempt + 1,
        time_limit: terms.timeout,
        soft_limit: terms.soft_timeout,
        enqueued_at: entry.enqueued_at,
    };
    entry.attempt += 1;
    entry.counted += 1;
    let (future, cancellation) = plugin.attempt(world.host(), &entry.new.task, attempt, &entry.new.body)?;
    entry.cancellation = Some(cancellation.clone());
    Some(Begun { terms, future, cancellation, cut: entry.new.cut.filter(|_| entry.attempt == 1) })
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure { code: code.into(), message: message.into(), details: None }
}

/// A handler's own words.
fn said(code: &str, value: &[u8]) -> Failure {
    let said: Value = serde_json::from_slice(value).unwrap_or_default();
    let message = said.get("message").and_then(Value::as_str).map(str::to_owned);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(value).into_owned());
    Failure { code: code.into(), message, details: said.get("details").cloned() }
}

/// What follows for the task.
enum Next {
    Succeed(Value),
    Retry(Option<Duration>),
    Again,
    Fail,
    Cancel,
    Park,
}

fn judge(how: How, terms: &Terms) -> (Option<Failure>, Next) {
    let ended = match how {
        How::Ended(ended) => ended,
        How::Lost if terms.lost_is_final => {
            let text =
                "the worker was lost while it ran, and it must not be started twice (on_lost = \"fail\")";
            return (Some(failure("lease_lost", text)), Next::Fail);
        }
        How::Lost => return (Some(failure("lease_lost", "the worker was lost while it ran")), Next::Again),
        How::TimedOut => {
            let text = format!("the attempt took longer than its limit of {} ms", terms.timeout.as_millis());
            return (Some(failure("timeout", text)), Next::Retry(None));
        }
        How::Cancelled => return (Some(failure("cancelled", "the task was cancelled")), Next::Cancel),
    };
    let value = ended.value.as_slice();
    match ended.code {
        code::TASK_SUCCEEDED if value.len() > RESULT_MAX_BYTES => {
            let text = format!("the result has {} bytes; at most {RESULT_MAX_BYTES} are kept", value.len());
            (Some(failure("result_too_large", text)), Next::Fail)
        }
        code::TASK_SUCCEEDED => (None, Next::Succeed(serde_json::from_slice(value).unwrap_or_default())),
        code::TASK_RETRY => (Some(said("error", value)), Next::Retry(None)),
        code::TASK_RETRY_AFTER => {
            let delay = Duration::from_millis(ended.delay_ms);
            (Some(said("retry_requested", value)), Next::Retry(Some(delay)))
        }
        code::TASK_FAILED => (Some(said("failed", value)), Next::Fail),
        code::TASK_DISCARDED => (Some(said("discarded", value)), Next::Cancel),
        code::TASK_UNDECODABLE => (Some(said("undecodable", value)), Next::Park),
        _ => (Some(failure("panicked", String::from_utf8_lossy(value))), Next::Retry(None)),
    }
}

/// Writes down how the attempt ended; the tasks that follow from it.
fn end(world: &World, entry: &mut Entry, terms: &Terms, how: How) -> Vec<New> {
    let now = world.clock.now();
    let (error, mut next) = judge(how, terms);
    let attempt = entry.attempt;
    entry.cancellation = None;
    entry.attempts.push(json!({ "n": attempt, "error": error.as_ref().map(error_json) }));
    let staged = std::mem::take(&mut entry.staged);
    if entry.cancel_requested && !matches!(next, Next::Succeed(_)) {
        next = Next::Cancel;
    }
    let used_up = entry.counted >= terms.max_attempts;
    entry.error = error;
    match next {
        Next::Succeed(result) => {
            entry.state = State::Succeeded;
            entry.result = result;
            return staged;
        }
        Next::Retry(_) if used_up => {}
        Next::Retry(delay) => {
            entry.state = State::Retrying;
            entry.due = later(now, delay.unwrap_or_else(|| terms.backoff(entry.counted)));
            return Vec::new();
        }
        Next::Again => {
            // A lost lease is nobody's failure.
            entry.counted -= 1;
            entry.state = State::Queued;
            entry.due = now;
            return Vec::new();
        }
        Next::Cancel => {
            entry.state = State::Cancelled;
            return Vec::new();
        }
        Next::Park => {
            // No handler began: it was no attempt.
            entry.attempt -= 1;
            entry.counted -= 1;
            entry.attempts.pop();
            entry.state = State::Parked;
            return Vec::new();
        }
        Next::Fail => {}
    }
    entry.state = State::Failed;
    let hook = terms.exhausted.as_ref().map(|task| New {
        id: Uuid::now_v7(),
        task: task.clone(),
        plugin: None,
        body: entry.exhausted(&world.name).to_string().into_bytes(),
        key: None,
        due: now,
        parent: Some(entry.new.id),
        cut: None,
    });
    hook.into_iter().collect()
}

/// A week is the longest that a host waits.
fn later(now: SystemTime, delay: Duration) -> SystemTime {
    now + delay.min(Duration::from_secs(7 * 86_400))
}
