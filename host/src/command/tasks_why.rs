//! `cardcage tasks why ID`: one true sentence about why a task is where it is, and what would change that.
//!
//! Facts come from where they are true: where the task stands from the broker, who holds it from the supervisors, who
//! could take it from the workers that answer. What cannot be known is not said.

mod pace;

use std::time::Duration;

use cardcage_protocol::presence::{Presence, Question, RunningTask};
use cardcage_protocol::{PausedBy, Priority, State, TaskAddress, TaskError, TaskId, TaskRecord, Timestamp};
use serde_json::json;

use super::output;
use super::session::{Session, brief, broker_trouble, unknown_task};
use crate::broker::{Error, InLine, Place, TaskConsumer, replay_id};
use crate::cli::OneTaskArgs;
use crate::exit::Exit;
use pace::Pace;

/// Longest error in a sentence, in characters.
const ERROR_CHARS: usize = 200;

/// A reason: a code for programs, a sentence for people.
struct Why {
    state: State,
    code: &'static str,
    sentence: String,
}

/// Says why.
pub async fn run(args: OneTaskArgs) -> Exit {
    let session = match Session::open(args.configuration, "tasks why").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    match why(&session, args.id).await {
        Ok(Some(why)) if args.json => output::json(&json!({
            "id": args.id, "state": why.state, "code": why.code, "why": why.sentence,
        })),
        Ok(Some(why)) => output::result(&output::shown(&why.sentence)),
        Ok(None) | Err(Error::NoResponders { .. }) => return unknown_task(args.id, &session.settings),
        Err(error) => return broker_trouble(&format!("task {} cannot be looked up", args.id), &error),
    }
    Exit::Success
}

async fn why(session: &Session, id: TaskId) -> Result<Option<Why>, Error> {
    let broker = &session.broker;
    let workers = broker.ask_workers(Question { running: true, ..Question::default() }).await?;
    let holder = workers
        .iter()
        .find_map(|worker| worker.running.iter().find(|task| task.id == id).map(|task| (worker, task)));
    let (record, place) = match broker.find_task(id).await? {
        None => return Ok(None),
        Some(Place::Recorded(record, _)) if record.state.is_final() => {
            return ended(session, &record).await.map(Some);
        }
        Some(Place::Recorded(record, _)) => (Some(record), broker.find_waiting(id).await?),
        Some(place) => (None, Some(place)),
    };
    if let Some((worker, task)) = holder.filter(|(_, task)| task.attempt > 0) {
        return Ok(Some(leased(worker, task)));
    }
    let past = record.as_ref().map(|record| before(record)).unwrap_or_default();
    let waiting = match place {
        // Also while the message that was parked is still in its queue.
        _ if record.as_ref().is_some_and(|record| record.state == State::Parked) => {
            parked(record.as_ref().and_then(|record| record.error.as_ref()))
        }
        Some(Place::Queued(waiting)) => match (broker.place_in_line(id).await?, holder) {
            (Some(place), _) => in_line(&place),
            (None, Some((worker, _))) => at_worker(worker),
            (None, None) => queued(session, &workers, &waiting.address, record.as_deref()).await?,
        },
        Some(Place::Scheduled(_, at)) => scheduled(at, record.is_some()),
        Some(Place::Due(waiting)) => due(session, &workers, &waiting.address).await?,
        Some(Place::Parked(_)) => parked(None),
        Some(Place::Recorded(..)) | None => match &record {
            // It has just moved, or ended.
            Some(record) => Why {
                state: record.state,
                code: "moving",
                sentence: "on the move between two places; ask again".to_owned(),
            },
            None => return Ok(None),
        },
    };
    let sentence = if past.is_empty() { waiting.sentence } else { format!("{past}; {}", waiting.sentence) };
    Ok(Some(Why { sentence, ..waiting }))
}

fn parked(error: Option<&TaskError>) -> Why {
    let error = error.map_or_else(|| "its body could not be decoded".to_owned(), said);
    let sentence =
        format!("parked: {error}; it comes back when a worker has a schema of the task that accepts it");
    Why { state: State::Parked, code: "parked", sentence }
}

/// It waits for its serial key, whatever workers do.
fn in_line(place: &InLine) -> Why {
    let ahead = place.ahead;
    let holder = match place.holder {
        Some(holder) => {
            format!("task {holder} has the turn (`cardcage tasks why {holder}` says what it does)")
        }
        None => "the turn is changing hands".to_owned(),
    };
    let sentence = format!("waiting for its serial key: {holder}, and {ahead} stand before it in line");
    Why { state: State::Queued, code: "serial_key", sentence }
}

fn said(error: &TaskError) -> String {
    format!("{} ({})", brief(&error.message, ERROR_CHARS), error.code)
}

/// What the latest attempt came to.
fn before(record: &TaskRecord) -> String {
    let Some(last) = record.attempts.last() else { return String::new() };
    let n = last.n;
    match (&last.cause, &last.error) {
        (None, _) => {
            format!(
                "attempt {n} was started by {} at {}, which does not answer for it",
                last.worker, last.started_at
            )
        }
        (Some(_), Some(error)) => format!("attempt {n} failed: {}", said(error)),
        (Some(_), None) => format!("attempt {n} ended at {}", last.ended_at.unwrap_or(last.started_at)),
    }
}

async fn ended(session: &Session, record: &TaskRecord) -> Result<Why, Error> {
    let at = record.finished_at.map(|at| format!(" at {at}")).unwrap_or_default();
    let attempts = match record.attempts.last().map_or(0, |attempt| attempt.n) {
        0 => "without an attempt".to_owned(),
        1 => "in its first attempt".to_owned(),
        n => format!("in attempt {n}"),
    };
    let mut sentence = format!("ended {}{at} {attempts}", record.state);
    if let Some(error) = record.error.as_ref().filter(|_| record.state != State::Succeeded) {
        sentence.push_str(&format!(": {}", said(error)));
    }
    if record.state == State::Failed {
        let id = record.id;
        let again = replay_id(id);
        if session.broker.find_letter(id).await?.is_some() {
            sentence.push_str(&format!("; kept as a dead letter: `cardcage dead replay {id}` runs it again"));
        } else if session.broker.find_task(again).await?.is_some() {
            sentence.push_str(&format!("; replayed as {again}"));
        }
    }
    Ok(Why { state: record.state, code: "ended", sentence })
}

fn leased(worker: &Presence, task: &RunningTask) -> Why {
    let sentence = format!(
        "leased by worker {} (process {} on {}) until {} at the latest: it runs attempt {}",
        worker.instance, worker.pid, worker.host, task.until, task.attempt
    );
    Why { state: State::Running, code: "leased", sentence }
}

/// It was delivered, and its worker has not started it.
fn at_worker(worker: &Presence) -> Why {
    let sentence = format!(
        "waiting in worker {} (process {} on {}) for its turn there: no attempt of it has been started",
        worker.instance, worker.pid, worker.host
    );
    Why { state: State::Queued, code: "at_worker", sentence }
}

fn scheduled(at: Option<Timestamp>, again: bool) -> Why {
    let at = at.map_or_else(|| "a time that cannot be read".to_owned(), |at| at.to_string());
    match again {
        true => Why { state: State::Retrying, code: "retrying", sentence: format!("next attempt at {at}") },
        false => Why { state: State::Scheduled, code: "scheduled", sentence: format!("scheduled for {at}") },
    }
}

/// Its time has come, and a worker's supervisor is to move it.
async fn due(session: &Session, workers: &[Presence], at: &TaskAddress) -> Result<Why, Error> {
    let amount = session.broker.queue_amount(&at.plugin, at.major, &at.task).await?.count;
    let sentence = if workers.is_empty() {
        "due: no worker is there that moves it into its queue".to_owned()
    } else if amount >= session.broker.options().queue_max_messages {
        format!("due: the queue of {} is full ({amount} tasks)", at.plugin)
    } else {
        "due: on its way into its queue".to_owned()
    };
    Ok(Why { state: State::Queued, code: "due", sentence })
}

async fn queued(
    session: &Session,
    workers: &[Presence],
    at: &TaskAddress,
    record: Option<&TaskRecord>,
) -> Result<Why, Error> {
    let broker = &session.broker;
    let consumers = broker.task_consumers(&at.plugin).await?;
    let consumer = consumers.iter().find(|one| one.takes(at));
    let live = broker.live_limits().await?;
    let live = live.iter().find(|set| set.plugin == at.plugin && set.task == at.task);
    if let Some(until) = consumer.and_then(|consumer| consumer.paused_until) {
        return Ok(paused(at, until, live.and_then(|set| set.paused_by(until))));
    }
    let position = broker.queue_position(at).await?;
    let pace = Pace::of(session, at, live.and_then(|set| set.rate)).await?;
    let lease = (!was_handed_back(record)).then(|| broker.options().lease);
    let (code, sentence) = reason(workers, at, consumer, position, pace, lease);
    Ok(Why { state: State::Queued, code, sentence })
}

fn paused(TaskAddress { plugin, task, .. }: &TaskAddress, until: Timestamp, by: Option<&PausedBy>) -> Why {
    let paused = super::queues::paused(until, by);
    let sentence = format!(
        "waiting: {plugin}.{task} is paused {paused}; `cardcage queues resume {plugin}.{task}` lifts it"
    );
    Why { state: State::Queued, code: "paused", sentence }
}

/// Whether the worker that had the task gave it back: a record says `queued` where somebody wrote down that it is, and whoever
/// has it again writes that it runs.
fn was_handed_back(record: Option<&TaskRecord>) -> bool {
    let is_open = |record: &TaskRecord| record.attempts.iter().any(|attempt| attempt.cause.is_none());
    record.is_some_and(|record| record.state == State::Queued && !is_open(record))
}

/// Why a queued task is not being run. `position`: its sequence, and how many stand before it. `lease`: how long whoever it was
/// delivered to may keep it; `None` where it was given back.
fn reason(
    workers: &[Presence],
    at: &TaskAddress,
    consumer: Option<&TaskConsumer>,
    position: Option<(u64, u64)>,
    pace: Option<Pace>,
    lease: Option<Duration>,
) -> (&'static str, String) {
    let TaskAddress { plugin, major, task, .. } = at;
    let has =
        |worker: &&Presence| worker.plugins.iter().any(|one| one.name == *plugin && one.major == *major);
    let takers: Vec<&Presence> =
        workers.iter().filter(|worker| worker.takes(plugin, *major, Some(task))).collect();
    if takers.is_empty() {
        let of_major = workers
            .iter()
            .flat_map(|worker| &worker.plugins)
            .filter(|one| one.name == *plugin && one.major == *major);
        let quarantined = of_major.filter_map(|one| one.quarantined_at.map(|since| (one, since))).next();
        if let Some((present, since)) = quarantined {
            return (
                "quarantined",
                format!(
                    "waiting: {plugin} {} is quarantined since {since}, for it crashed its workers in different tasks; \
                     `cardcage plugin release {plugin}` lifts it, and another version is free of it",
                    present.version
                ),
            );
        }
        let idle = workers.iter().filter(has).filter(|worker| !worker.consuming).count();
        let other = workers.iter().filter(has).count().saturating_sub(idle);
        let sentence = if workers.is_empty() {
            format!("waiting: no live worker has {plugin} v{major} (no worker answers at all)")
        } else if other > 0 {
            format!(
                "waiting: no live worker's {plugin} v{major} knows the task {task} ({other} have the plugin)"
            )
        } else if idle > 0 {
            format!(
                "waiting: no live worker takes tasks of {plugin} v{major} ({idle} have it, and are starting or draining)"
            )
        } else {
            format!("waiting: no live worker has {plugin} v{major}{}", others(workers, at))
        };
        return ("no_worker", sentence);
    }
    if consumer.is_none() && at.priority != Priority::Normal {
        let sentence = format!(
            "waiting: no worker has ever taken {plugin}.{task} v{major} of this priority; the version of {plugin} that \
             runs declares none"
        );
        return ("no_worker", sentence);
    }
    let delivered =
        consumer.zip(position).is_some_and(|(consumer, (sequence, _))| sequence <= consumer.delivered);
    if let Some(lease) = lease.filter(|_| delivered) {
        let lease_s = lease.as_secs();
        return (
            "lease_running",
            format!(
                "waiting: it was delivered to a worker that does not answer for it; it is tried again when its lease ends, \
                 {lease_s} s after the last renewal"
            ),
        );
    }
    let of_plugin = |count: fn(&cardcage_protocol::presence::PresentPlugin) -> usize| -> usize {
        takers.iter().flat_map(|worker| &worker.plugins).filter(|one| one.name == *plugin).map(count).sum()
    };
    let (busy, slots) = (of_plugin(|one| one.busy), of_plugin(|one| one.slots));
    let ahead = position.map_or(0, |(_, ahead)| ahead);
    if busy < slots
        && let Some(pace) = pace
        && let Some(at) = pace.start_of(ahead)
    {
        let rate = pace.rate;
        return (
            "rate_limited",
            format!(
                "waiting: rate-limited until about {at}: {plugin}.{task} may start {rate} over all workers, and {ahead} stand \
                 before it"
            ),
        );
    }
    let leased = consumer.map_or(0, |consumer| consumer.leased);
    if let Some(max) = consumer.and_then(|consumer| consumer.leased_max).filter(|max| leased >= *max) {
        return (
            "capped",
            format!(
                "waiting: {leased} of {plugin}.{task} are at workers, and {max} may be at the same time over all of them; \
                 {ahead} stand before it"
            ),
        );
    }
    let count = takers.len();
    let workers = if count == 1 { "1 worker has it".to_owned() } else { format!("{count} workers have it") };
    if busy < slots {
        let sentence = format!(
            "waiting for a free handler of its own: {leased} of {plugin}.{task} are at workers, and {ahead} stand before it; \
             {workers}, with {busy} of {slots} slots of {plugin} busy"
        );
        return ("waiting_for_slot", sentence);
    }
    (
        "waiting_for_slot",
        format!(
            "waiting for a free slot: {ahead} stand before it; {workers}, with {busy} of {slots} slots of {plugin} busy"
        ),
    )
}

/// ` (3 have v1, 1 has v3)`
fn others(workers: &[Presence], at: &TaskAddress) -> String {
    let mut majors = std::collections::BTreeMap::<u32, usize>::new();
    for plugin in workers.iter().flat_map(|worker| &worker.plugins).filter(|one| one.name == at.plugin) {
        *majors.entry(plugin.major).or_default() += 1;
    }
    let have = |count: usize| if count == 1 { "has" } else { "have" };
    let each: Vec<String> =
        majors.into_iter().map(|(major, count)| format!("{count} {} v{major}", have(count))).collect();
    match each.is_empty() {
        true => format!(" ({} {} other plugins)", workers.len(), have(workers.len())),
        false => format!(" ({})", each.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardcage_protocol::presence::PresentPlugin;
    use cardcage_protocol::{InstanceId, Name, Priority};

    fn worker(n: u32, plugin: &str, major: u32, tasks: &[&str], consuming: bool) -> Presence {
        let name = |text: &str| Name::new(text).unwrap();
        Presence {
            group: None,
            v: 1,
            instance: InstanceId::new(&format!("worker-{n}")).unwrap(),
            host: "h".into(),
            pid: n,
            version: "0.1.0".into(),
            started_at: Timestamp::from_unix_ms(0),
            status: "serving".into(),
            consuming,
            busy: 2,
            slots: 4,
            plugins: vec![PresentPlugin {
                name: name(plugin),
                version: format!("{major}.0.0"),
                major,
                tasks: tasks.iter().map(|task| name(task)).collect(),
                routes: vec![],
                paths: vec![],
                bodies: vec![],
                busy: 2,
                slots: 4,
                is_previous: false,
                quarantined_at: None,
            }],
            running: Vec::new(),
        }
    }

    #[test]
    fn a_waiting_task_says_what_is_missing() {
        let at = TaskAddress {
            plugin: Name::new("refunds").unwrap(),
            major: 2,
            task: Name::new("pay").unwrap(),
            priority: Priority::Normal,
            id: TaskId::generate(),
        };
        let said = |workers: &[Presence], position| reason(workers, &at, None, position, None, None).1;
        let old = [worker(1, "refunds", 1, &["pay"], true), worker(2, "refunds", 1, &["pay"], true)];
        assert_eq!(said(&old, None), "waiting: no live worker has refunds v2 (2 have v1)");
        assert_eq!(said(&[], None), "waiting: no live worker has refunds v2 (no worker answers at all)");
        let other = [worker(1, "orders", 2, &["pay"], true)];
        assert_eq!(said(&other, None), "waiting: no live worker has refunds v2 (1 has other plugins)");
        let without = [worker(1, "refunds", 2, &["check"], true)];
        assert!(said(&without, None).contains("knows the task pay (1 have the plugin)"));
        let draining = [worker(1, "refunds", 2, &["pay"], false)];
        assert!(said(&draining, None).contains("starting or draining"));
        let mut crashing = worker(1, "refunds", 2, &["pay"], true);
        crashing.plugins[0].quarantined_at = Some(Timestamp::from_unix_ms(0));
        let quarantined = reason(&[crashing.clone()], &at, None, None, None, None);
        assert_eq!(quarantined.0, "quarantined");
        assert!(quarantined.1.contains("refunds 2.0.0 is quarantined since 1970"), "{}", quarantined.1);
        let newer = [crashing, worker(2, "refunds", 2, &["pay"], true)];
        assert!(said(&newer, Some((9, 7))).contains("1 worker has it"), "the other version takes it");
        let mut busy = [worker(1, "refunds", 2, &["pay"], true), worker(2, "refunds", 2, &["pay"], true)];
        // Slots are free: it is not for want of them that it waits.
        assert_eq!(
            said(&busy, Some((9, 7))),
            "waiting for a free handler of its own: 0 of refunds.pay are at workers, and 7 stand before it; 2 workers have \
             it, with 4 of 8 slots of refunds busy"
        );
        busy.iter_mut().for_each(|worker| worker.plugins[0].busy = 4);
        assert_eq!(
            said(&busy, Some((9, 7))),
            "waiting for a free slot: 7 stand before it; 2 workers have it, with 8 of 8 slots of refunds busy"
        );
    }
}
