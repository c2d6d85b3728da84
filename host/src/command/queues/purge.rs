//! `cardcage queues purge`: every waiting task ends `cancelled`.

use std::collections::HashSet;

use cardcage_protocol::TaskId;
use cardcage_protocol::presence::Question;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::super::output;
use super::super::progress::Progress;
use super::super::session::{Session, broker_trouble, told};
use crate::broker::{Broker, Error, Purged, QueueWalk};
use crate::cli::{QueueName, QueuePurgeArgs};
use crate::exit::Exit;

/// Tasks that are purged at the same time.
const AT_ONCE: usize = 64;

/// What became of how many.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    cancelled: u64,
    held: u64,
    ended: u64,
}

impl Tally {
    fn count(&mut self, purged: Purged) {
        match purged {
            Purged::Cancelled => self.cancelled += 1,
            Purged::Held => self.held += 1,
            Purged::Ended => self.ended += 1,
        }
    }
}

pub(super) async fn run(args: QueuePurgeArgs) -> Result<(), Exit> {
    let QueuePurgeArgs { queue, delayed, dry_run, yes, json, configuration } = args;
    let session = Session::open(configuration, "queues purge").await?;
    let trouble = |error: Error| broker_trouble(&format!("{queue} cannot be purged"), &error);
    let broker = &session.broker;
    if !broker.queued_plugins().await.map_err(trouble)?.contains(&queue.plugin) {
        return Err(told(
            Exit::Unexpected,
            &format!("there is no queue {queue}; `cardcage queues list` shows those that there are"),
        ));
    }
    let (count, held) = count(broker, &queue, delayed).await.map_err(trouble)?;
    if dry_run || !yes {
        if json {
            output::json(&json!({ "would_be": "cancelled", "count": count, "held": held, "dry_run": true }));
        } else {
            output::result(&format!("{count} tasks would be cancelled, {held} that workers hold left alone"));
        }
        if dry_run || count == 0 {
            return Ok(());
        }
        return Err(told(Exit::Usage, "nothing was done: repeat the command with --yes"));
    }
    let mut tally = Tally::default();
    let mut progress = Progress::new("purged", count);
    let mut outcome = Ok(());
    for part in PARTS.into_iter().filter(|part| delayed || !DELAYED.contains(part)) {
        outcome = purge(broker, &queue, part, &mut tally, &mut progress).await;
        if outcome.is_err() {
            break;
        }
    }
    drop(progress);
    let Tally { cancelled, held, ended } = tally;
    if json {
        output::json(&json!({ "cancelled": cancelled, "held": held, "ended": ended, "dry_run": false }));
    } else {
        output::result(&format!("{cancelled} tasks are cancelled, {held} that workers hold left alone"));
    }
    outcome
        .map_err(|error| broker_trouble("the purge is incomplete, and the command can be repeated", &error))
}

/// Where tasks of a queue wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Delayed,
    /// In a pump's hands, or for room in their queue.
    Due,
    /// For their serial key.
    Lines,
    Queue,
}

/// The queue last: what becomes due meanwhile, or gets its turn, is then in the queue.
const PARTS: [Part; 4] = [Part::Delayed, Part::Due, Part::Lines, Part::Queue];
/// What is purged with `--delayed` only.
const DELAYED: [Part; 2] = [Part::Delayed, Part::Due];

async fn walk(broker: &Broker, queue: &QueueName, part: Part) -> Result<QueueWalk, Error> {
    let (plugin, task) = (&queue.plugin, queue.task.as_ref());
    match part {
        Part::Delayed => broker.walk_delayed(plugin, task).await,
        Part::Due => broker.walk_due(plugin, task).await,
        Part::Lines => broker.walk_lines(plugin, task).await,
        Part::Queue => broker.walk_queue(plugin, task).await,
    }
}

/// What workers hold of this queue.
async fn held(broker: &Broker, queue: &QueueName) -> Result<HashSet<TaskId>, Error> {
    let workers = broker.ask_workers(Question { running: true, ..Question::default() }).await?;
    let running = workers.into_iter().flat_map(|worker| worker.running);
    let of_it = running.filter(|task| {
        task.plugin == queue.plugin && queue.task.as_ref().is_none_or(|name| *name == task.task)
    });
    Ok(of_it.map(|task| task.id).collect())
}

/// How many would be cancelled, and how many left alone. A queue is counted by the broker, however long it is; delayed tasks
/// are read, for their subjects do not name the task.
async fn count(broker: &Broker, queue: &QueueName, delayed: bool) -> Result<(u64, u64), Error> {
    let held = held(broker, queue).await?;
    let leased = u64::try_from(held.len()).unwrap_or(u64::MAX);
    let queued = broker.tasks_amount(&queue.plugin, queue.task.as_ref()).await?.count;
    let in_line = broker.lines_amount(&queue.plugin, queue.task.as_ref()).await?.count;
    let mut free = queued.saturating_sub(leased) + in_line;
    for part in DELAYED.into_iter().filter(|_| delayed) {
        let mut walk = walk(broker, queue, part).await?;
        loop {
            let page = walk.next_page().await?;
            if page.is_empty() {
                break;
            }
            free += page.iter().filter(|task| !held.contains(&task.address.id)).count() as u64;
        }
    }
    Ok((free, leased))
}

async fn purge(
    broker: &Broker,
    queue: &QueueName,
    part: Part,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Error> {
    // Asked once: what is taken after this is the record's to decide.
    let held = held(broker, queue).await?;
    let mut walk = walk(broker, queue, part).await?;
    loop {
        let page = walk.next_page().await?;
        if page.is_empty() {
            return Ok(());
        }
        let each: Vec<_> = page.iter().map(|task| Box::pin(broker.purge_waiting(task, &held))).collect();
        let mut each = stream::iter(each).buffer_unordered(AT_ONCE);
        let mut failed = None;
        while let Some(purged) = each.next().await {
            match purged {
                Ok(purged) => tally.count(purged),
                Err(error) => failed = Some(error),
            }
            progress.at(tally.cancelled);
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}
