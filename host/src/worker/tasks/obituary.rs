//! What the supervisor of a dead child writes into the records of the tasks that it held, before it hands them back.
//!
//! Whoever gets the redelivery reads why the last attempt ended (`arrival`). So the record comes before the hand-back: a
//! supervisor that dies in between loses the cause, and the lease's end brings the task back all the same.
//!
//! # What it refuses
//! It decides nothing about the task's future: limits and dead letters are the next holder's.

use super::history;
use crate::broker::{Broker, Error};
use crate::crash::Entry;
use crate::process::{Death, Fate};
use cardcage_protocol::{Attempt, Cause, InstanceId, Name, State, TaskError, TaskId, TaskRecord, Timestamp};

/// How often somebody may write in between.
const ROUNDS: usize = 4;

/// The code of an attempt that may have crashed its worker.
pub(super) const SUSPECTED: &str = "suspected";

/// Writes how the attempt that `entry` stands for ended, on a child that was `born` then, by the broker's time. Nothing, where the record says so already or knows better.
///
/// # Errors
/// As for reading and writing records: then the record stays as it was.
pub async fn record(
    broker: &Broker,
    worker: &InstanceId,
    entry: &Entry,
    fate: Fate,
    how: &Death,
    born: Timestamp,
) -> Result<(), Error> {
    // Rubbish on the board names no task.
    let Ok(id) = TaskId::from_bytes(entry.id) else { return Ok(()) };
    for _ in 0..ROUNDS {
        let (record, fence) = match broker.read_record(id).await? {
            Some(found) => found,
            None => {
                // The loader has checked the name, but the board may have been scribbled on.
                let Ok(plugin) = Name::new(&entry.plugin) else { return Ok(()) };
                let Some(envelope) = broker.read_queued(&plugin, id).await? else { return Ok(()) };
                (TaskRecord::new(&envelope, State::Queued), 0)
            }
        };
        let now = Timestamp::from_unix_ms(broker.now_unix_ms());
        let Some(mut record) = close(record, worker, entry, fate, how, (born, now)) else { return Ok(()) };
        match broker.write_record(&mut record, fence).await {
            Err(Error::Conflict { .. }) => {}
            done => return done.map(|_| ()),
        }
    }
    Ok(())
}

/// The record with the attempt ended; `None` where that is not this worker's to say.
pub(super) fn close(
    mut record: TaskRecord,
    worker: &InstanceId,
    entry: &Entry,
    fate: Fate,
    how: &Death,
    (born, now): (Timestamp, Timestamp),
) -> Option<TaskRecord> {
    let open = record.attempts.iter().position(|attempt| attempt.cause.is_none());
    let mine = |at: usize| {
        let is_it = |attempt: &Attempt| entry.attempt == 0 || attempt.n == entry.attempt;
        record.attempts.get(at).is_some_and(|attempt| is_it(attempt) && attempt.worker == *worker)
    };
    // Another worker runs it: what died here was a copy that came too late. Of one that is parked the attempt was taken out, and
    // its message is still owed to the parked ones.
    if record.state.is_final() || record.state == State::Parked || open.is_some_and(|at| !mine(at)) {
        return None;
    }
    let Some((cause, error)) = said(fate, how) else {
        match open.and_then(|at| record.attempts.get_mut(at)) {
            // Of an earlier child of this worker, whose end could not be written down: that one may have started it.
            Some(attempt) if attempt.started_at < born => {
                history::lose(attempt, now);
                record.state = State::Queued;
            }
            // Announced, and the child died before it started.
            Some(_) => history::withdraw(&mut record),
            None => {}
        }
        record.handed_back = record.handed_back.saturating_add(1);
        return Some(record);
    };
    let (ended_at, cause, error) = (Some(now), Some(cause), Some(error));
    let is_over = record.attempts.iter().any(|attempt| attempt.n >= entry.attempt);
    let has_come_back = record.parked.as_ref().is_some_and(|parked| parked.back);
    match open.and_then(|at| record.attempts.get_mut(at)) {
        Some(attempt) => (attempt.ended_at, attempt.cause, attempt.error) = (ended_at, cause, error),
        // Or parked, and it has come back since: whoever starts it then says so first.
        None if is_over || has_come_back => return None,
        None => {
            // The board's clock is this machine's, the record's the broker's.
            let started_at = now.minus_ms(Timestamp::now().unix_ms().saturating_sub(entry.since_unix_ms));
            let (n, worker) = (entry.attempt, worker.clone());
            record.attempts.push(Attempt { n, worker, started_at, ended_at, cause, error });
        }
    }
    record.state = State::Queued;
    record.next_at = None;
    record.follow_up.clear();
    Some(record)
}

/// Cause and error of the attempt; `None` where there was none.
fn said(fate: Fate, how: &Death) -> Option<(Cause, TaskError)> {
    let (cause, code, text) = match fate {
        Fate::Crashed => (Cause::Crashed, "crashed", format!("the worker {how} while it ran this task")),
        Fate::Suspected => {
            let text = format!("the worker {how}, and this task is among those that may be why");
            (Cause::Interrupted, SUSPECTED, text)
        }
        Fate::Interrupted => (
            Cause::Interrupted,
            "interrupted",
            format!("the worker {how}; this task only shared its process"),
        ),
        Fate::TimedOut => {
            let text = "the attempt held its thread past its time limit; its worker's child is replaced";
            (Cause::Timeout, "timeout", text.to_owned())
        }
        Fate::Lost => (Cause::LeaseLost, "lease_lost", format!("the worker {how}")),
        Fate::Unstarted => return None,
    };
    Some((cause, TaskError::new(code, &text, None)))
}
