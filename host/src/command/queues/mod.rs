//! `cardcage queues list|pause|resume|limit|purge`: where tasks wait.
//!
//! Invariants: nothing is asked of a worker but whether it is there; a purge records an outcome for everything that it
//! removes, and acts only with `--yes`.

mod limit;
mod pause;
mod purge;
mod stores;

use std::time::Duration;

use cardcage_protocol::presence::{Presence, Question};
use cardcage_protocol::{LiveLimits, Name, PausedBy, Timestamp};
use serde_json::{Value, json};

use super::output;
use super::session::{Session, age, broker_trouble};
use crate::broker::{Error, Queue, Queues};
use crate::cli::{Configuration, QueuesCommand};
use crate::exit::Exit;

/// A pause without an end: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Does what was asked.
pub async fn run(command: QueuesCommand) -> Exit {
    let done = match command {
        QueuesCommand::List { plugin, json, configuration } => list(plugin, json, configuration).await,
        QueuesCommand::Pause { queue, time, json, configuration } => {
            let time = time.map_or(FOR_EVER, |span| span.0);
            pause::run(&queue, Some(time), json, configuration).await
        }
        QueuesCommand::Resume { queue, json, configuration } => {
            pause::run(&queue, None, json, configuration).await
        }
        QueuesCommand::Limit(args) => limit::run(args).await,
        QueuesCommand::Purge(args) => purge::run(args).await,
    };
    done.map_or_else(|exit| exit, |()| Exit::Success)
}

async fn list(plugin: Option<Name>, json: bool, configuration: Configuration) -> Result<(), Exit> {
    let session = Session::open(configuration, "queues list").await?;
    let trouble = |error: Error| broker_trouble("queues cannot be read", &error);
    let question = session.broker.ask_workers(Question::default());
    let (workers, queues, live, stores) = tokio::join!(
        question,
        session.broker.queues(plugin.as_ref()),
        session.broker.live_limits(),
        session.broker.stores(),
    );
    let (workers, queues) = (workers.map_err(trouble)?, queues.map_err(trouble)?);
    let (live, stores) = (live.map_err(trouble)?, stores.map_err(trouble)?);
    if json {
        let each: Vec<Value> = queues.queues.iter().map(|queue| entry(queue, &workers, &live)).collect();
        let entries: Vec<Value> = stores.iter().map(stores::entry).collect();
        output::json(&json!({ "queues": each, "delayed_unread": queues.delayed_unread, "stores": entries }));
    } else if queues.queues.is_empty() {
        output::result("no queues");
    } else {
        output::result(&table(&queues, &workers, &live, session.now()));
    }
    for (plugin, count) in &queues.delayed_unread {
        output::trouble(&format!("{count} tasks of {plugin} wait for their time, too many to be told apart"));
    }
    for sentence in stores.iter().filter_map(|store| stores::warning(store, session.now())) {
        output::trouble(&sentence);
    }
    Ok(())
}

fn takers(queue: &Queue, workers: &[Presence]) -> usize {
    workers.iter().filter(|worker| worker.takes(&queue.plugin, queue.major, Some(&queue.task))).count()
}

/// What an operator has set for a queue.
fn set<'a>(queue: &Queue, live: &'a [LiveLimits]) -> Option<&'a LiveLimits> {
    live.iter().find(|limits| limits.plugin == queue.plugin && limits.task == queue.task)
}

/// Who paused a queue that is paused, if that is known.
fn paused_by<'a>(queue: &Queue, live: &'a [LiveLimits]) -> Option<&'a PausedBy> {
    set(queue, live)?.paused_by(queue.paused_until?)
}

/// As in `until it is resumed, by alice@ops-1 since 2026-01-31T12:00:00.000Z`.
pub(super) fn paused(until: Timestamp, by: Option<&PausedBy>) -> String {
    let by = by
        .map(|PausedBy { by, at, .. }| format!(", by {} since {at}", output::shown(by)))
        .unwrap_or_default();
    format!("{}{by}", super::until(until))
}

fn entry(queue: &Queue, workers: &[Presence], live: &[LiveLimits]) -> Value {
    let set = set(queue, live);
    json!({
        "plugin": queue.plugin,
        "major": queue.major,
        "task": queue.task,
        "waiting": queue.waiting,
        "leased": queue.leased,
        "in_line": queue.in_line,
        "delayed": queue.delayed,
        "dead": queue.dead,
        "parked": queue.parked,
        "oldest_at": queue.oldest,
        "workers": takers(queue, workers),
        "consumed": queue.consumed,
        "paused_until": queue.paused_until,
        "paused_by": paused_by(queue, live),
        "set_rate": set.and_then(|limits| limits.rate),
        "set_max_running": set.and_then(|limits| limits.max_running),
    })
}

fn table(queues: &Queues, workers: &[Presence], live: &[LiveLimits], now: Timestamp) -> String {
    let mut table = output::table();
    table.set_header([
        "queue", "major", "waiting", "leased", "in line", "delayed", "parked", "dead", "oldest", "workers",
        "paused", "set",
    ]);
    for queue in &queues.queues {
        table.add_row([
            format!("{}.{}", queue.plugin, queue.task),
            format!("v{}", queue.major),
            queue.waiting.to_string(),
            queue.leased.to_string(),
            queue.in_line.to_string(),
            queue.delayed.map_or_else(|| "?".to_owned(), |count| count.to_string()),
            queue.parked.to_string(),
            queue.dead.to_string(),
            age(queue.oldest, now),
            takers(queue, workers).to_string(),
            queue.paused_until.map_or_else(|| "-".to_owned(), |until| paused(until, paused_by(queue, live))),
            set(queue, live)
                .filter(|set| !set.limits_nothing())
                .map_or_else(|| "-".to_owned(), limit::in_words),
        ]);
    }
    table.trim_fmt()
}
