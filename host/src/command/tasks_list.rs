//! `cardcage tasks list`: tasks wherever they are, what changed last first.
//!
//! A task may stand in two places, for the happy path affords one record: in a queue and, after an earlier attempt, in a
//! record. Its record tells of the past, its message where it is now; here each task is one line.
//!
//! Invariant: whatever is not shown is admitted: a list that was cut says so.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use cardcage_protocol::presence::{Presence, Question};
use cardcage_protocol::{Name, State, TaskAddress, TaskId, TaskRecord, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::json;

use super::output;
use super::session::{Session, age, brief, broker_trouble};
use crate::broker::{Broker, Error, Extent, ParkedTask, Place, Waiting};
use crate::cli::TaskListArgs;
use crate::exit::Exit;

/// Longest error in the table, in characters.
const ERROR_CHARS: usize = 50;
/// Records that are read at the same time.
const READS: usize = 16;

/// One line of the list.
#[derive(Debug, Clone, Serialize)]
struct Row {
    id: TaskId,
    plugin: Name,
    task: Name,
    state: State,
    /// The latest attempt; 0 before the first.
    attempt: u32,
    changed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    enqueued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Its record is yet to be looked for.
    #[serde(skip)]
    unread: bool,
}

/// Lists them.
pub async fn run(args: TaskListArgs) -> Exit {
    let session = match Session::open(args.configuration.clone(), "tasks list").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let (rows, seen) = match collect(&session.broker, &args).await {
        Ok(found) => found,
        Err(error) => return broker_trouble("tasks cannot be read", &error),
    };
    let complete = seen.complete;
    if args.json {
        output::json(&json!({ "tasks": rows, "complete": complete }));
        return Exit::Success;
    }
    if rows.is_empty() {
        output::result("no tasks");
    } else {
        output::result(&table(&rows, session.now()));
    }
    if !complete && rows.len() >= args.limit {
        output::trouble(&format!(
            "the {} that changed last are shown; there are more: narrow it down with --plugin, --task or --state, or raise \
             --limit",
            rows.len()
        ));
    } else if !complete {
        output::trouble(&format!(
            "only what changed last was looked at, {} messages in all: older tasks may be missing; `cardcage tasks show ID` \
             finds every one",
            seen.looked_at
        ));
    }
    Exit::Success
}

/// What is asked for, and what each place showed of it.
struct Search<'a> {
    args: &'a TaskListArgs,
    held: HashMap<TaskId, (String, u32)>,
    rows: Vec<Row>,
    seen: Extent,
}

/// Where tasks in a state are: elsewhere nobody needs to look.
fn is_in(state: Option<State>, place: In) -> bool {
    match (state, place) {
        (None, _) => true,
        (Some(State::Queued | State::Running), In::Queues) => true,
        (Some(State::Scheduled | State::Retrying), In::Schedule) => true,
        (Some(State::Parked), In::Parked) => true,
        // A retry that is due is in its queue, and its record is what still says so.
        (Some(State::Queued | State::Running | State::Scheduled), In::Records) => false,
        (Some(_), place) => place == In::Records,
    }
}

/// The places where tasks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Schedule,
    Queues,
    Parked,
    Records,
}

impl Search<'_> {
    fn is_of(&self, plugin: &Name, task: &Name) -> bool {
        self.args.plugin.as_ref().is_none_or(|wanted| wanted == plugin)
            && self.args.task.as_ref().is_none_or(|wanted| wanted == task)
    }

    fn saw(&mut self, seen: Extent) {
        self.seen.looked_at += seen.looked_at;
        self.seen.complete &= seen.complete;
    }

    fn wants(&self, state: State) -> bool {
        self.args.state.is_none_or(|wanted| wanted == state)
    }

    /// Adds a row, unless this place has shown enough.
    fn add(&mut self, shown: &mut usize, row: Row) -> ControlFlow<()> {
        if *shown >= self.args.limit {
            return ControlFlow::Break(());
        }
        *shown += 1;
        self.rows.push(row);
        ControlFlow::Continue(())
    }

    fn record(&mut self, shown: &mut usize, record: &TaskRecord, changed_at: Timestamp) -> ControlFlow<()> {
        if !self.is_of(&record.plugin, &record.task) || !self.wants(record.state) {
            return ControlFlow::Continue(());
        }
        self.add(shown, of_record(record, changed_at))
    }

    fn queued(&mut self, shown: &mut usize, waiting: &Waiting) -> ControlFlow<()> {
        let holder = self.held.get(&waiting.address.id).cloned();
        let state = if holder.is_some() { State::Running } else { State::Queued };
        if !self.is_of(&waiting.address.plugin, &waiting.address.task) || !self.wants(state) {
            return ControlFlow::Continue(());
        }
        let mut row = of_message(waiting, state);
        if let Some((worker, attempt)) = holder {
            (row.worker, row.attempt) = (Some(worker), attempt);
        }
        self.add(shown, row)
    }

    fn parked(&mut self, shown: &mut usize, task: &ParkedTask) -> ControlFlow<()> {
        let waiting = task.waiting();
        if !self.is_of(&waiting.address.plugin, &waiting.address.task) || !self.wants(State::Parked) {
            return ControlFlow::Continue(());
        }
        let row = Row {
            error: Some(format!("{} (undecodable)", task.reason)),
            ..of_message(&waiting, State::Parked)
        };
        self.add(shown, row)
    }

    fn scheduled(&mut self, shown: &mut usize, place: &Place) -> ControlFlow<()> {
        let (waiting, next_at) = match place {
            Place::Scheduled(waiting, at) => (waiting, *at),
            Place::Due(waiting) => (waiting, None),
            Place::Recorded(..) | Place::Queued(_) | Place::Parked(_) => return ControlFlow::Continue(()),
        };
        let again = waiting.envelope.as_ref().is_some_and(|envelope| envelope.attempt > 1);
        let state = if again { State::Retrying } else { State::Scheduled };
        if !self.is_of(&waiting.address.plugin, &waiting.address.task) || !self.wants(state) {
            return ControlFlow::Continue(());
        }
        let row = Row { next_at, ..of_message(waiting, state) };
        self.add(shown, row)
    }
}

async fn collect(broker: &Broker, args: &TaskListArgs) -> Result<(Vec<Row>, Extent), Error> {
    let workers = broker.ask_workers(Question { running: true, ..Question::default() }).await?;
    let seen = Extent { looked_at: 0, complete: true };
    let mut search = Search { args, held: held(&workers), rows: Vec::new(), seen };
    // In the order in which a task moves, so that one that moves meanwhile is seen at least once.
    if is_in(args.state, In::Schedule) {
        let mut shown = 0;
        let seen = broker.look_at_schedule(|place| search.scheduled(&mut shown, &place)).await?;
        search.saw(seen);
    }
    if is_in(args.state, In::Queues) {
        let mut shown = HashMap::<Name, usize>::new();
        let seen = broker
            .look_at_queues(args.plugin.as_ref(), |plugin, waiting| {
                search.queued(shown.entry(plugin.clone()).or_default(), &waiting)
            })
            .await?;
        search.saw(seen);
        // A turn that ends moves a task from its line into the queue: what was seen there first is told once more.
        let mut shown = 0;
        let seen = broker.look_at_lines(|waiting| search.queued(&mut shown, &waiting)).await?;
        search.saw(seen);
    }
    if is_in(args.state, In::Parked) {
        let mut shown = 0;
        let seen = broker.look_at_parked(|task| search.parked(&mut shown, &task)).await?;
        search.saw(seen);
    }
    if is_in(args.state, In::Records) {
        let mut shown = 0;
        let seen = broker.look_at_records(|record, at| search.record(&mut shown, &record, at)).await?;
        search.saw(seen);
    }
    settle(broker, search).await
}

/// One row per task, cut to the limit, each with what its record adds.
async fn settle(broker: &Broker, search: Search<'_>) -> Result<(Vec<Row>, Extent), Error> {
    let (limit, held) = (search.args.limit, &search.held);
    let mut rows = search.rows.clone();
    // A message before a record of the same task: it says where the task is now.
    rows.sort_by_key(|row| (!row.unread, std::cmp::Reverse(row.changed_at)));
    let mut known = HashSet::new();
    rows.retain(|row| known.insert(row.id));
    rows.sort_by_key(|row| std::cmp::Reverse(row.changed_at));
    let seen = Extent { complete: search.seen.complete && rows.len() <= limit, ..search.seen };
    rows.truncate(limit);
    let read = stream::iter(rows.into_iter().map(|row| async move {
        let record = if row.unread { broker.read_record(row.id).await? } else { None };
        Ok::<_, Error>((row, record))
    }));
    let read: Vec<_> = read.buffered(READS).try_collect().await?;
    let settled = read.into_iter().map(|(row, record)| match record {
        // What is recorded as ended is over, though its message may be there a moment longer.
        Some((record, _)) if record.state.is_final() => of_record(&record, row.changed_at),
        // It has come back since, and its record says so first.
        Some((record, _)) if row.state == State::Parked && record.state != State::Parked => {
            of_record(&record, row.changed_at)
        }
        Some((record, _)) => {
            let recorded = of_record(&record, row.changed_at);
            let attempt = row.attempt.max(recorded.attempt);
            Row { attempt, error: recorded.error, ..row }
        }
        None => row,
    });
    let rows = settled.map(|mut row| {
        // A record says `running` until the next write; whoever holds it is known.
        if let Some((worker, attempt)) = held.get(&row.id).filter(|_| !row.state.is_final()) {
            (row.state, row.attempt, row.worker) = (State::Running, *attempt, Some(worker.clone()));
        }
        row
    });
    Ok((rows.filter(|row| search.wants(row.state)).collect(), seen))
}

fn held(workers: &[Presence]) -> HashMap<TaskId, (String, u32)> {
    let of = |worker: &Presence| {
        let name = worker.instance.to_string();
        let under_way = worker.running.iter().filter(|task| task.attempt > 0);
        under_way.map(move |task| (task.id, (name.clone(), task.attempt))).collect::<Vec<_>>()
    };
    workers.iter().flat_map(of).collect()
}

fn of_record(record: &TaskRecord, changed_at: Timestamp) -> Row {
    let last = record.attempts.last();
    let error = record.error.as_ref().or_else(|| last?.error.as_ref());
    Row {
        id: record.id,
        plugin: record.plugin.clone(),
        task: record.task.clone(),
        state: record.state,
        attempt: last.map_or(0, |attempt| attempt.n),
        changed_at,
        enqueued_at: Some(record.enqueued_at),
        next_at: record.next_at,
        worker: last.map(|attempt| attempt.worker.to_string()),
        error: error
            .filter(|_| record.state != State::Succeeded)
            .map(|error| format!("{} ({})", error.message, error.code)),
        unread: false,
    }
}

fn of_message(waiting: &Waiting, state: State) -> Row {
    let TaskAddress { plugin, task, id, .. } = waiting.address.clone();
    let envelope = waiting.envelope.as_ref();
    Row {
        id,
        plugin,
        task,
        state,
        attempt: envelope.map_or(0, |envelope| envelope.attempt.saturating_sub(1)),
        changed_at: waiting.stored_at.unwrap_or_default(),
        enqueued_at: envelope.map(|envelope| envelope.enqueued_at),
        next_at: None,
        worker: None,
        error: None,
        unread: true,
    }
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let mut table = output::table();
    table.set_header(["task", "of", "state", "attempt", "changed", "next at", "worker", "error"]);
    for row in rows {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            row.id.to_string(),
            format!("{}.{}", row.plugin, row.task),
            row.state.to_string(),
            row.attempt.to_string(),
            format!("{} ago", age(Some(row.changed_at), now)),
            or_dash(row.next_at.map(|at| at.to_string())),
            or_dash(row.worker.as_deref().map(output::shown)),
            or_dash(row.error.as_deref().map(|error| brief(error, ERROR_CHARS))),
        ]);
    }
    table.trim_fmt()
}
