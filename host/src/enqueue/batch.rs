//! Accepting several tasks at once: all of them, or none.
//!
//! # Invariants
//! * `Ok` means that all are stored; a refusal, that none is promised. Where the publish was in doubt, all may run.
//! * Their ids derive from the batch's, and the batch's is what an idempotency key stands for: so a repeat arrives at the
//!   same ids, and what was stored under them is stored once.
//! * What is wrong with any of them is found before anything is sent.
//!
//! # What it refuses
//! Tasks with a key of their own: one that is there already would be left out, and then not all are stored together.

use super::again::{LOOK_AGAIN, Standing, standing};
use super::{NewTask, accept_by, check, confirm_key, envelope, know_time, millis, name, refused, timestamp};
use crate::broker::{Broker, Claim, Error, KeyRecord, key_hash};
use cardcage_protocol::{Problem, ProblemCode, TaskEnvelope, TaskId, Timestamp, limits};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Tasks that were accepted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAll {
    /// Their ids, in the order of the tasks.
    pub ids: Vec<TaskId>,
    /// Whether an earlier request with the same key made them.
    pub duplicate: bool,
}

/// A batch on its way, and when each of its tasks is due.
type Tasks = [(TaskEnvelope, Option<Timestamp>)];

/// Publishes tasks of one plugin, at most [`limits::BATCH_TASKS_MAX`], and answers once all are stored; within `wait`
/// altogether.
///
/// # Errors
/// A problem for the caller, as [`super::publish`]; and [`ProblemCode::InvalidBatch`] for tasks that cannot be enqueued
/// together.
pub async fn publish_all(
    broker: &Broker,
    new: Vec<NewTask<'_>>,
    key: Option<String>,
    wait: Duration,
) -> Result<PublishedAll, Problem> {
    let until = Instant::now() + wait;
    let accepted = timeout_at(until, accept(broker, new, key, until)).await;
    accepted.unwrap_or_else(|_| Err(Problem::new(ProblemCode::BrokerUnavailable).retry_after_s(1)))
}

/// What can be said of tasks of one plugin that are to be enqueued together, without asking anybody.
///
/// # Errors
/// A problem for whoever wants to enqueue them.
pub fn check_all(new: &[NewTask<'_>], key: Option<&str>) -> Result<(), Problem> {
    let invalid = |detail: String| Err(Problem::new(ProblemCode::InvalidBatch).detail(detail));
    let Some(first) = new.first() else { return Ok(()) };
    for task in new {
        check(task.identity, task.task, &task.terms, task.priority, task.delay, key)?;
        if is_delayed(task) != is_delayed(first) {
            return invalid("Some of them are delayed and others are not.".to_owned());
        }
        if task.idempotency_key.is_some() {
            let remedy = "give one to all of them together";
            return invalid(format!("A task among others has no idempotency key of its own; {remedy}."));
        }
        if task.terms.keys(&task.body).unique.is_some() {
            let (plugin, task) = (&task.identity.name, task.task);
            return invalid(format!(
                "{plugin}.{task} has a unique key, and one that is queued already would not be stored again: enqueue each \
                 on its own."
            ));
        }
    }
    let bytes: usize = new.iter().map(|task| task.body.len()).sum();
    if bytes > limits::BATCH_MAX_BYTES {
        let max = limits::BATCH_MAX_BYTES;
        let detail = format!("Tasks enqueued together have at most {max} bytes; these have {bytes}.");
        return Err(Problem::new(ProblemCode::BodyTooLarge).detail(detail));
    }
    Ok(())
}

fn is_delayed(task: &NewTask<'_>) -> bool {
    task.delay.is_some_and(|delay| !delay.is_zero())
}

/// A digest of what is enqueued: a key belongs to one batch. When they are due is no part of it, as with single tasks.
fn digest(new: &[NewTask<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for task in new {
        for part in [task.task.as_str().as_bytes(), &task.body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

async fn accept(
    broker: &Broker,
    new: Vec<NewTask<'_>>,
    key: Option<String>,
    until: Instant,
) -> Result<PublishedAll, Problem> {
    check_all(&new, key.as_deref())?;
    let Some(first) = new.first() else { return Ok(PublishedAll { ids: Vec::new(), duplicate: false }) };
    if !broker.connected() {
        return Err(Problem::new(ProblemCode::BrokerUnavailable).retry_after_s(1));
    }
    let (plugin, count) = (name(first.identity)?, new.len());
    let mut batch = TaskId::generate();
    let mut earlier = None;
    // Five parts: the key of a single task has four.
    let key = key.map(|key| key_hash(&[&first.identity.name, first.route, "", "batch", &key]));
    if let Some(hash) = &key {
        let (digest, left) = (digest(&new), until.saturating_duration_since(Instant::now()));
        match broker.claim_key(hash, batch, &digest, left).await.map_err(|error| refused(&error))? {
            Claim::Fresh => {}
            Claim::Existing(record) if record.body_sha256 != hex::encode(Sha256::digest(digest)) => {
                return Err(Problem::new(ProblemCode::IdempotencyConflict));
            }
            Claim::Existing(record) => {
                batch = record.task_id;
                if record.stored {
                    return Ok(PublishedAll { ids: ids(batch, count), duplicate: true });
                }
                earlier = Some(record);
            }
        }
    }
    let ids = ids(batch, count);
    know_time(broker, new.iter().map(|new| (&new.terms, new.delay))).await?;
    let now_ms = broker.now_unix_ms();
    let mut tasks: Vec<_> = new
        .into_iter()
        .zip(&ids)
        .map(|(new, id)| {
            let delay = new.delay.filter(|delay| !delay.is_zero());
            let at = delay.map(|delay| timestamp(now_ms.saturating_add(millis(delay))));
            let keys = new.terms.keys(&new.body);
            (envelope(new, plugin.clone(), *id, keys, now_ms), at)
        })
        .collect();
    let duplicate = earlier.is_some();
    let stored = match &key {
        Some(hash) => publish_keyed(broker, &mut tasks, hash, earlier, until).await,
        // What was stored before is an earlier try of this publish: nobody else knows its ids.
        None => publish(broker, &mut tasks, 0, until).await.map(|_| ()),
    };
    stored.map_err(|error| refused(&error))?;
    if let Some(hash) = key {
        confirm_key(broker, hash, batch);
    }
    Ok(PublishedAll { ids, duplicate })
}

fn ids(batch: TaskId, count: usize) -> Vec<TaskId> {
    (0..).take(count).map(|n| TaskId::derive(batch, n)).collect()
}

/// Answers whether it is stored by this publish.
async fn publish(broker: &Broker, tasks: &mut Tasks, round: u32, until: Instant) -> Result<bool, Error> {
    let left = until.saturating_duration_since(Instant::now());
    let accept_by = accept_by(broker, left);
    for (envelope, at) in &mut *tasks {
        // A delayed task is in the queue long after its publish was accepted.
        envelope.accept_by = if at.is_some() { None } else { accept_by };
    }
    Ok(!broker.publish_tasks(tasks, round, left).await?.duplicate)
}

/// Publishes a batch that others may be publishing too, or have. As `again.rs` does with one task; the last task stands for
/// all: they are stored in their order, so where it was stored in time, all were.
async fn publish_keyed(
    broker: &Broker,
    tasks: &mut Tasks,
    hash: &str,
    earlier: Option<KeyRecord>,
    until: Instant,
) -> Result<(), Error> {
    let left = || until.saturating_duration_since(Instant::now());
    let Some(last) = tasks.last().map(|(envelope, _)| envelope.id) else { return Ok(()) };
    let mut round_is_used = false;
    let mut key = match earlier {
        Some(key) => key,
        None if publish(broker, tasks, 0, until).await? => return Ok(()),
        None => {
            // Stored by another try of this publish, or by a repeat of this request that was faster.
            round_is_used = true;
            match broker.claim_key(hash, TaskId::generate(), &[], left()).await? {
                Claim::Existing(key) => key,
                Claim::Fresh => return Err(Error::unavailable("the idempotency key expired just now")),
            }
        }
    };
    loop {
        match standing(broker, last).await? {
            Standing::Promised => return Ok(()),
            // Whoever removes it begins the next round. The others of the batch are too late as well, and dropped by workers.
            Standing::TooLate(waiting) if broker.remove_queued(&waiting).await? => {
                key = broker.next_round(hash, &key, left()).await?;
            }
            Standing::TooLate(_) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Standing::Absent if round_is_used => key = broker.next_round(hash, &key, left()).await?,
            Standing::Absent => {}
        }
        if publish(broker, tasks, key.round, until).await? {
            return Ok(());
        }
        round_is_used = true;
    }
}
