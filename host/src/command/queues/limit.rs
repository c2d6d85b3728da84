//! `cardcage queues limit`: a task's rate and cap, changed while everything runs.
//!
//! Invariant: what is answered as done is stored; workers follow it, and read it when they start.

use std::num::NonZeroU32;

use cardcage_protocol::{LiveLimits, Priority};
use serde_json::json;

use super::super::output;
use super::super::session::{Session, broker_trouble, told};
use crate::broker::Error;
use crate::cli::{QueueLimitArgs, TaskName};
use crate::exit::Exit;

pub(super) async fn run(args: QueueLimitArgs) -> Result<(), Exit> {
    let QueueLimitArgs { queue, rate, max_running, json, configuration } = args;
    let TaskName { plugin, task } = &queue;
    let session = Session::open(configuration, "queues limit").await?;
    let name = format!("{plugin}.{task}");
    let trouble = |error: Error| broker_trouble(&format!("{name} cannot be changed"), &error);
    let consumers = session.broker.task_consumers(plugin).await.map_err(trouble)?;
    let mut own = consumers.iter().filter(|one| one.task == *task).peekable();
    if own.peek().is_none() {
        let text = format!(
            "there is no queue {name} yet: no worker has ever run it, and `cardcage queues list` shows those that are"
        );
        return Err(told(Exit::Unexpected, &text));
    }
    let is_capped = max_running.is_some_and(|setting| setting.value().is_some());
    if is_capped && own.any(|one| one.priority != Priority::Normal) {
        let text = format!("{name} has priorities, over which no --max-running can be kept; set a --rate");
        return Err(told(Exit::Unexpected, &text));
    }
    let change = |limits: &mut LiveLimits| {
        if let Some(rate) = rate {
            limits.rate = rate.value();
        }
        if let Some(max_running) = max_running {
            limits.max_running = max_running.value().map(NonZeroU32::get);
        }
    };
    let set = session.broker.change_live_limits(plugin, task, change).await.map_err(trouble)?;
    if json {
        output::json(&json!({
            "plugin": set.plugin, "task": set.task,
            "set_rate": set.rate, "set_max_running": set.max_running,
        }));
    } else if set.limits_nothing() {
        output::result(&format!("{name} is limited as declared"));
    } else {
        output::result(&format!("{name} is limited to {}", in_words(&set)));
    }
    Ok(())
}

/// As in `10/s, 2 at once`.
pub(super) fn in_words(set: &LiveLimits) -> String {
    let rate = set.rate.map(|rate| rate.to_string());
    let cap = set.max_running.map(|count| format!("{count} at once"));
    rate.into_iter().chain(cap).collect::<Vec<_>>().join(", ")
}
