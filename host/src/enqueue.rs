//! Accepting a task: the one place where "yes" is said, by whichever way the task comes in.
//!
//! # Invariants
//! * `Ok` means that JetStream has stored the task. Anything else is a refusal; where the publish was in doubt, the
//!   envelope's `accept-by` lets a worker drop what was stored after the caller had been told no.
//! * The same idempotency key and body give the same task, however often and from wherever it comes.
//! * A repeat with a key says yes only to a message that a worker will run: `again.rs`.

mod again;
mod batch;

pub use batch::{check_all, publish_all};

use crate::broker::{Broker, Claim, Error, UniqueClaim, key_hash};
use crate::loader::{EnqueueRequest, Identity};
use crate::terms::{Keys, Terms, unique_hash};
use bytes::Bytes;
use cardcage_protocol::{
    Name, Priority, Problem, ProblemCode, TaskAddress, TaskEnvelope, TaskId, Timestamp, limits,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The longest delay of a task: a year.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A task to accept.
#[derive(Debug)]
pub struct NewTask<'a> {
    /// The plugin that runs it.
    pub identity: &'a Identity,
    /// The task.
    pub task: &'a Name,
    /// Within which route the idempotency key is unique; empty for a plugin's own enqueues.
    pub route: &'a str,
    /// The caller's key.
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The task that enqueues this one.
    pub parent: Option<TaskId>,
    /// The first task of its tree, where that is not the one that enqueues it.
    pub root: Option<TaskId>,
    /// Its id, where whoever repeats this must arrive at the same one.
    pub fixed: Option<Fixed>,
    /// How urgent it is; other than normal only where the task declares priorities.
    pub priority: Priority,
    /// Not before so much time has passed.
    pub delay: Option<Duration>,
    /// What its declaration asks for.
    pub terms: Terms,
    /// The author's JSON.
    pub body: Bytes,
}

impl<'a> NewTask<'a> {
    /// A task that a plugin's handler asks for. A request's id is no task's: only a UUIDv7 names a parent.
    #[must_use]
    pub fn asked(
        identity: &'a Identity,
        task: &'a Name,
        route: &'a str,
        terms: Terms,
        request: EnqueueRequest,
    ) -> Self {
        Self {
            identity,
            task,
            route,
            idempotency_key: request.idempotency_key,
            traceparent: request.traceparent,
            parent: TaskId::from_bytes(request.context_id).ok(),
            root: None,
            fixed: None,
            priority: request.priority.unwrap_or_default(),
            delay: request.delay_ms.map(Duration::from_millis),
            terms,
            body: request.body,
        }
    }
}

/// The identity of a task that was promised before it is published: by its parent's completion.
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// Its id.
    pub id: TaskId,
    /// The first task of its tree.
    pub root: TaskId,
}

/// A task that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: TaskId,
    /// Whether an earlier request with the same key made it.
    pub duplicate: bool,
}

/// What stands for the route in the idempotency keys of a plugin that enqueues another one's tasks: a key belongs to whoever
/// chose it.
#[must_use]
pub fn keys_of_plugin(plugin: &str) -> String {
    format!("plugin {plugin}")
}

fn refused(error: &Error) -> Problem {
    let code = error.problem_code();
    if code == ProblemCode::Internal {
        tracing::error!(%error, "a task could not be published");
    } else {
        tracing::debug!(%error, "a task was not accepted");
    }
    let problem = Problem::new(code);
    if code.is_retryable() { problem.retry_after_s(1) } else { problem }
}

/// Publishes a task, and answers once it is stored; within `wait` altogether.
///
/// # Errors
/// A problem for the caller: broker away, queue full, body too large, or a key that was used for another body.
pub async fn publish(broker: &Broker, new: NewTask<'_>, wait: Duration) -> Result<Published, Problem> {
    let until = Instant::now() + wait;
    // What is cut off here has promised nothing, and a repeat goes on from wherever it stood.
    let accepted = timeout_at(until, accept(broker, new, until)).await;
    accepted.unwrap_or_else(|_| Err(Problem::new(ProblemCode::BrokerUnavailable).retry_after_s(1)))
}

/// What can be said of a task without asking anybody.
///
/// # Errors
/// A problem for whoever wants to enqueue it.
pub fn check(
    plugin: &Identity,
    task: &Name,
    terms: &Terms,
    priority: Priority,
    delay: Option<Duration>,
    idempotency_key: Option<&str>,
) -> Result<(), Problem> {
    let malformed = |detail: String| Err(Problem::new(ProblemCode::MalformedRequest).detail(detail));
    if delay.is_some_and(|delay| delay > DELAY_MAX) {
        return malformed("A task cannot be delayed by more than a year.".to_owned());
    }
    if priority != Priority::Normal && !terms.priorities {
        return malformed(format!("The task {}.{task} declares no priorities, so it has none.", plugin.name));
    }
    if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_MAX_BYTES) {
        let max = limits::IDEMPOTENCY_KEY_MAX_BYTES;
        return malformed(format!("An idempotency key has 1 to {max} bytes."));
    }
    Ok(())
}

async fn accept(broker: &Broker, new: NewTask<'_>, until: Instant) -> Result<Published, Problem> {
    if !broker.connected() {
        return Err(Problem::new(ProblemCode::BrokerUnavailable).retry_after_s(1));
    }
    let left = || until.saturating_duration_since(Instant::now());
    check(new.identity, new.task, &new.terms, new.priority, new.delay, new.idempotency_key.as_deref())?;
    let mut id = new.fixed.map_or_else(TaskId::generate, |fixed| fixed.id);
    let mut repeats = None;
    let key = new.idempotency_key.as_ref().map(|key| {
        // A key belongs to what it starts: two routes, or two tasks, may see the same one.
        key_hash(&[&new.identity.name, new.route, new.task.as_str(), key])
    });
    if let Some(hash) = &key {
        match broker.claim_key(hash, id, &new.body, left()).await.map_err(|error| refused(&error))? {
            Claim::Fresh => {}
            Claim::Existing(earlier) if earlier.body_sha256 != hex::encode(Sha256::digest(&new.body)) => {
                return Err(Problem::new(ProblemCode::IdempotencyConflict));
            }
            Claim::Existing(earlier) => {
                if earlier.stored {
                    return Ok(Published { id: earlier.task_id, duplicate: true });
                }
                id = earlier.task_id;
                repeats = Some(earlier);
            }
        }
    }
    let plugin = name(new.identity)?;
    let mut is_holders = false;
    let keys = new.terms.keys(&new.body);
    if let Some(unique) = &keys.unique {
        let hash = unique_hash(&plugin, new.task, unique);
        let claim = broker.claim_unique(&hash, id, new.delay.unwrap_or_default(), left());
        match claim.await.map_err(|error| refused(&error))? {
            UniqueClaim::Fresh => {}
            UniqueClaim::Held(holder) => return Ok(Published { id: holder, duplicate: true }),
            // Published under the holder's id: whichever of the two publishes comes first is stored, once.
            UniqueClaim::Unstored(holder) => (id, is_holders) = (holder, true),
        }
    }
    know_time(broker, [(&new.terms, new.delay)]).await?;
    let now_ms = broker.now_unix_ms();
    let (delay, is_promised) = (new.delay, new.fixed.is_some());
    let mut envelope = envelope(new, plugin, id, keys, now_ms);
    // What was promised already is never too late.
    envelope.accept_by = if is_promised { None } else { accept_by(broker, left()) };
    let stored = match (delay, &key, &repeats) {
        (delay, Some(hash), Some(earlier)) => {
            let at = delay.filter(|delay| !delay.is_zero()).map(|delay| now_ms.saturating_add(millis(delay)));
            again::publish(broker, &mut envelope, at.map(timestamp), hash, earlier, until).await
        }
        (Some(delay), ..) if !delay.is_zero() => {
            let at = timestamp(now_ms.saturating_add(millis(delay)));
            // A delayed task is in the queue long after its publish was accepted.
            envelope.accept_by = None;
            broker.enqueue_delayed(&envelope, at, left()).await.map(|_| ())
        }
        (_, key, _) => match (broker.publish_task(&envelope, left()).await, key) {
            (Ok(stored), _) if stored.duplicate && is_holders => again::confirm(broker, id).await,
            // Of this publish's own repeat, or of a repeat of this request that was faster: hosts whose patience differs
            // would differ about that one's promise.
            (Ok(stored), Some(hash)) if stored.duplicate => repeat(broker, &mut envelope, hash, until).await,
            (stored, _) => stored.map(|_| ()),
        },
    };
    stored.map_err(|error| refused(&error))?;
    if let Some(hash) = key {
        confirm_key(broker, hash, id);
    }
    Ok(Published { id, duplicate: is_holders || repeats.is_some() })
}

fn name(plugin: &Identity) -> Result<Name, Problem> {
    Name::new(&plugin.name).map_err(|error| {
        tracing::error!(%error, "a plugin's name is no name");
        Problem::new(ProblemCode::Internal)
    })
}

/// Notes that what a key stands for is stored, off the caller's path: without it a repeat looks for the task instead.
fn confirm_key(broker: &Broker, hash: String, id: TaskId) {
    let broker = broker.clone();
    tokio::spawn(async move {
        if let Err(error) = broker.confirm_key(&hash, id).await {
            tracing::debug!(%error, "an idempotency key was not confirmed");
        }
    });
}

/// The message of a task; until when its publish counts is for the caller to add.
fn envelope(new: NewTask<'_>, plugin: Name, id: TaskId, keys: Keys, now_ms: u64) -> TaskEnvelope {
    let address =
        TaskAddress { plugin, major: new.identity.major, task: new.task.clone(), priority: new.priority, id };
    let mut envelope =
        TaskEnvelope::new(address, Arc::from(&*new.identity.version), timestamp(now_ms), new.body);
    envelope.idempotency_key = new.idempotency_key;
    (envelope.unique_key, envelope.serial_key) = (keys.unique, keys.serial);
    envelope.traceparent = new.traceparent.filter(|text| text.len() <= limits::TRACEPARENT_MAX_BYTES);
    envelope.parent_id = new.parent;
    if let Some(root) = new.fixed.map(|fixed| fixed.root).or(new.root).or(new.parent) {
        envelope.root_id = root;
    }
    envelope.expires_at = new.terms.expires.map(|expires| {
        let due_ms = now_ms.saturating_add(new.delay.map_or(0, millis));
        timestamp(due_ms.saturating_add(millis(expires)))
    });
    envelope
}

/// Sees to it that what stands under a key just claimed is a promise.
async fn repeat(
    broker: &Broker,
    envelope: &mut TaskEnvelope,
    hash: &str,
    until: Instant,
) -> Result<(), Error> {
    let left = until.saturating_duration_since(Instant::now());
    match broker.claim_key(hash, TaskId::generate(), &envelope.body, left).await? {
        Claim::Existing(key) if key.task_id == envelope.id => {
            again::publish(broker, envelope, None, hash, &key, until).await
        }
        Claim::Existing(_) | Claim::Fresh => Err(Error::unavailable("the idempotency key expired just now")),
    }
}

/// Sees to it that the broker's time is known, where a task is not to start before or after some time: by this machine's it
/// might start too early, or never.
async fn know_time<'a>(
    broker: &Broker,
    tasks: impl IntoIterator<Item = (&'a Terms, Option<Duration>)>,
) -> Result<(), Problem> {
    if broker.knows_time() || broker.measure_clock().await {
        return Ok(());
    }
    let is_timed = |(terms, delay): (&Terms, Option<Duration>)| terms.expires.is_some() || delay.is_some();
    match tasks.into_iter().any(is_timed) {
        true => Err(Problem::new(ProblemCode::BrokerUnavailable).retry_after_s(1)),
        false => Ok(()),
    }
}

/// Until when a publish counts that has so much time left. Without knowing the broker's time nobody can say: then a task
/// that runs unpromised is better than one that is dropped promised.
fn accept_by(broker: &Broker, left: Duration) -> Option<Timestamp> {
    let stored_by_ms = broker.now_unix_ms().saturating_add(millis(left)).saturating_add(ACCEPT_MARGIN_MS);
    broker.knows_time().then(|| timestamp(stored_by_ms))
}

/// How much later than the caller's deadline a publish may be stored and still count. It may run although its caller was
/// refused, which a 503 allows; the other way round, a task that was promised and is dropped because the broker's clock
/// was set, is lost. So this is longer than clocks are set by.
const ACCEPT_MARGIN_MS: u64 = 30_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms)
}
