//! `cardcage queues pause` and `resume`: whether a queue's tasks are delivered.
//!
//! The pause is its consumers'; beside it stands whose it is. That is written before a pause and removed after it, so that
//! no pause is nobody's, and is told only of a queue that is paused.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use cardcage_protocol::{LiveLimits, Name, PausedBy, Timestamp};
use serde_json::{Value, json};

use super::super::output;
use super::super::session::{Session, broker_trouble, told};
use crate::broker::{Broker, Error, TaskConsumer};
use crate::cli::{Configuration, QueueName};
use crate::exit::Exit;

/// Longest name of a user or a machine that is kept, in characters.
const NAME_CHARS: usize = 64;

/// Pauses for `time`, or lifts the pause.
pub(super) async fn run(
    queue: &QueueName,
    time: Option<Duration>,
    json: bool,
    configuration: Configuration,
) -> Result<(), Exit> {
    let command = if time.is_some() { "queues pause" } else { "queues resume" };
    let session = Session::open(configuration, command).await?;
    let trouble = |error: Error| broker_trouble(&format!("{queue} cannot be changed"), &error);
    let consumers = session.broker.task_consumers(&queue.plugin).await.map_err(trouble)?;
    let meant: Vec<TaskConsumer> = consumers
        .into_iter()
        .filter(|one| queue.task.as_ref().is_none_or(|task| *task == one.task))
        .collect();
    if meant.is_empty() {
        return Err(told(
            Exit::Unexpected,
            &format!(
                "there is no queue {queue} yet: no worker has ever run it, and `cardcage queues list` shows those that are"
            ),
        ));
    }
    let now = session.now();
    let until = time.map_or(Timestamp::from_unix_ms(0), |time| {
        now.plus_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    });
    let tasks: BTreeSet<&Name> = meant.iter().map(|consumer| &consumer.task).collect();
    if time.is_some() {
        note(&session.broker, &queue.plugin, &tasks, Some(PausedBy { by: author(), at: now, until })).await;
    }
    for consumer in &meant {
        session.broker.pause_consumer(consumer, until).await.map_err(trouble)?;
    }
    if time.is_none() {
        note(&session.broker, &queue.plugin, &tasks, None).await;
    }
    let paused_until = time.map(|_| until);
    if json {
        let each: Vec<Value> = meant
            .iter()
            .map(|one| {
                json!({ "plugin": one.plugin, "major": one.major, "task": one.task, "paused_until": paused_until })
            })
            .collect();
        output::json(&json!({ "queues": each }));
        return Ok(());
    }
    for one in &meant {
        let name = format!("{}.{} v{}", one.plugin, one.task, one.major);
        output::result(&match paused_until {
            Some(until) => format!("{name} is paused {}", super::super::until(until)),
            None => format!("{name} goes on"),
        });
    }
    Ok(())
}

/// Writes down whose a pause is. Without it the pause is as good: an operator who stops a flood must not be held up by what the
/// flood has filled.
async fn note(broker: &Broker, plugin: &Name, tasks: &BTreeSet<&Name>, paused: Option<PausedBy>) {
    for task in tasks {
        let change = |limits: &mut LiveLimits| limits.paused.clone_from(&paused);
        if let Err(error) = broker.change_live_limits(plugin, task, change).await {
            output::trouble(&format!(
                "whose the pause of {plugin}.{task} is cannot be written down: {error}"
            ));
        }
    }
}

/// Who runs this command: the user, at the machine.
fn author() -> String {
    let named =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    // As where a service or a container runs it.
    let numbered =
        || std::fs::metadata("/proc/self").map_or_else(|_| "?".to_owned(), |own| own.uid().to_string());
    let cut = |name: String| name.chars().take(NAME_CHARS).collect::<String>();
    format!("{}@{}", cut(named.unwrap_or_else(numbered)), cut(crate::role::machine()))
}
