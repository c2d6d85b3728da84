//! One delivery, from its arrival to its last write.

use super::arrival::{self, Arrival, Decision, Reception, Standing};
use super::carry_out::Carried;
use super::counters::bump;
use super::ending::{self, Ended, Facts};
use super::held::{Holding, Signal};
use super::history;
use super::plan::{Plan, Write};
use super::unit::{Slot, Turn, Unit};
use super::unreadable::{self, Unreadable};
use crate::broker::{Ack, Delivery};
use crate::crash::{Claim, ClaimError, Kind};
use crate::loader;
use bytes::Bytes;
use cardcage_protocol::{EnvelopeError, State, TaskEnvelope, TaskId, TaskRecord, Timestamp, header};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How often a decision is taken anew because somebody wrote in between. More means that something is wrong.
const ROUNDS: usize = 8;
/// How often a full board is asked again.
const BOARD_AGAIN: Duration = Duration::from_millis(10);
/// A delivery that waits for a slot is on the board for this long at most.
const WAITS_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// Runs one delivery to its end. `slot` is free again when the handler is done.
///
/// This future waits in memory while the handler runs, as often as there are slots, and is moved when it is spawned: so
/// it holds no more than the way to the handler needs, and everything else is boxed.
#[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice")]
pub(super) fn run(unit: Arc<Unit>, delivery: Delivery, slot: Slot) -> impl Future<Output = ()> + Send {
    async move {
        let shared = &*unit.shared;
        let envelope = match delivery.envelope(shared.broker.subjects()) {
            Ok(envelope) => envelope,
            Err(error) => return Box::pin(end_unreadable(&unit, &delivery, error)).await,
        };
        let now = unit.now();
        let Some(hold) = shared.held.enter(envelope.id, envelope.attempt, now) else {
            // Its lease went unrenewed while the broker was away. The attempt under way acknowledges both.
            tracing::info!(task = %envelope.id, "a task that is held here was delivered again");
            return;
        };
        let delivered = Delivered { unit: &unit, delivery: &delivery, envelope: &envelope };
        // A task that must never start twice has its attempt written down before it starts.
        let must_read = unit.limits.lost_is_final;
        let settling = shared.settling.is_settling(shared.broker.link().generation);
        match arrival::receive(&delivered.arrival(now), settling || must_read) {
            // Cancelled while it was on its way here: its record says so.
            Reception::Start(_) if hold.holding.is_cancelled() => {
                Box::pin(delivered.consider(&hold.holding, slot)).await
            }
            Reception::Start(standing) => delivered.start(standing, Kind::Task, &hold.holding, slot).await,
            Reception::NeverPromised => {
                bump(&shared.counters.unpromised);
                tracing::info!(task = %envelope.id, "a task that nobody was promised was dropped");
                Box::pin(delivered.finish(Plan::done(), None, Instant::now() + shared.lease)).await;
            }
            Reception::Expired(plan) => Box::pin(delivered.expire(*plan, &hold.holding, slot)).await,
            Reception::Read => Box::pin(delivered.consider(&hold.holding, slot)).await,
        }
    }
}

impl Unit {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.shared.broker.now_unix_ms())
    }

    /// Notes an attempt on the board. `None`: it cannot be noted, and runs without.
    fn try_claim(&self, delivery: &Delivery, note: Note) -> Result<Option<Claim>, BoardFull> {
        let (plugin, task, subject) = (self.room.name.as_str(), self.name.as_str(), delivery.ack_subject());
        let claim = self.shared.board.claim(
            note.kind,
            *note.id.as_bytes(),
            subject,
            plugin,
            task,
            note.attempt,
            note.deadline,
        );
        match claim {
            Ok(claim) => Ok(Some(claim)),
            Err(ClaimError::Full) => Err(BoardFull),
            Err(error @ ClaimError::TooLong(_)) => {
                tracing::warn!(plugin, task, %error, "a task's lease cannot be renewed; shorten the names");
                Ok(None)
            }
        }
    }

    /// The same; a full board is waited for, as long as the lease allows.
    async fn claim(&self, delivery: &Delivery, note: Note) -> Result<Option<Claim>, BoardFull> {
        let end = Instant::now() + self.shared.lease / 3;
        loop {
            match self.try_claim(delivery, note) {
                Err(BoardFull) if Instant::now() < end => tokio::time::sleep(BOARD_AGAIN).await,
                done => return done,
            }
        }
    }
}

/// What is noted on the board.
#[derive(Clone, Copy)]
struct Note {
    kind: Kind,
    id: TaskId,
    /// 0 while it waits.
    attempt: u32,
    deadline: u64,
}

impl Note {
    /// A delivery that is here and was not started.
    fn waiting(envelope: &TaskEnvelope) -> Self {
        Self { kind: Kind::Task, id: envelope.id, attempt: 0, deadline: local_deadline(WAITS_AT_MOST) }
    }
}

/// Nothing was noted; a retry helps once something has ended.
struct BoardFull;

/// A time from now by this machine's clock, with which the supervisor and the plugin compare: milliseconds since 1970.
fn local_deadline(from_now: Duration) -> u64 {
    let ms = u64::try_from(from_now.as_millis()).unwrap_or(u64::MAX);
    Timestamp::now().plus_ms(ms).unix_ms()
}

/// A readable delivery and where it belongs.
#[derive(Clone, Copy)]
struct Delivered<'a> {
    unit: &'a Arc<Unit>,
    delivery: &'a Delivery,
    envelope: &'a TaskEnvelope,
}

impl Delivered<'_> {
    fn arrival(&self, now: Timestamp) -> Arrival<'_> {
        Arrival {
            envelope: self.envelope,
            num_delivered: self.delivery.num_delivered,
            stored_at: self.delivery.stored_at,
            now,
        }
    }

    async fn expire(self, plan: Plan, holding: &Holding, slot: Slot) {
        let until = Instant::now() + self.unit.shared.lease;
        if self.finish(plan, None, until).await == Carried::Conflict {
            self.consider(holding, slot).await;
        }
    }

    /// Off the happy path: decides with the record.
    async fn consider(self, holding: &Holding, slot: Slot) {
        let (shared, envelope, limits) = (&*self.unit.shared, self.envelope, &self.unit.limits);
        let mut until = Instant::now() + shared.lease;
        // Reading takes long while the broker is away, and the lease runs.
        let claim = self.unit.claim(self.delivery, Note::waiting(envelope)).await;
        let mut alone = None;
        for _ in 0..ROUNDS {
            let Ok(current) = shared.read(envelope, until).await else { break };
            if alone.is_none() && current.as_ref().is_some_and(|(record, _)| history::is_suspect(record)) {
                alone = self.turn(&shared.suspects, holding).await;
                if alone.is_none() {
                    let (record, fence) = current.map_or((None, 0), |(record, at)| (Some(record), at));
                    return self.hand_back(record, fence).await;
                }
                until = Instant::now() + shared.lease;
                continue;
            }
            // Follow-ups that are redone need the history, which the decision takes.
            let known = current.as_ref().map(|(record, _)| record.clone());
            let arrival = self.arrival(self.unit.now());
            match arrival::consider(&arrival, current, &shared.instance, &shared.unknown, limits) {
                Decision::Finish(plan) => match self.finish(*plan, known.as_ref(), until).await {
                    Carried::Conflict => {}
                    Carried::Out | Carried::GivenUp => return,
                },
                Decision::Start(standing) => {
                    drop(claim);
                    return self.start(standing, Kind::Task, holding, slot).await;
                }
                Decision::Append { mut write, attempt, lost } => {
                    match shared.write(&mut write, until).await {
                        Ok(fence) => {
                            shared.counters.lost.fetch_add(lost.into(), Ordering::Relaxed);
                            drop(claim);
                            let standing = Standing { attempt, record: Some(Box::new(write.record)), fence };
                            let kind = if alone.is_some() { Kind::Suspect } else { Kind::Task };
                            return self.start(standing, kind, holding, slot).await;
                        }
                        Err(Carried::Conflict) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        tracing::warn!(task = %envelope.id, "a delivery could not be dealt with; it comes again when its lease ends");
    }

    async fn finish(self, plan: Plan, current: Option<&TaskRecord>, until: Instant) -> Carried {
        let plan = plan.kept_for(self.unit.limits.result_ttl);
        self.unit.shared.carry_out(self.envelope, self.delivery, plan, current, until).await
    }

    /// Runs the handler and ends the attempt.
    async fn start(self, standing: Standing, kind: Kind, holding: &Holding, slot: Slot) {
        let Self { unit, delivery, envelope } = self;
        let (shared, room, limits) = (&*unit.shared, &*unit.room, &unit.limits);
        let running = match unit.try_turn() {
            Some(turn) => Ok(turn),
            None => Box::pin(self.wait_for_turn(holding)).await,
        };
        if matches!(running, Err(Signal::Stopped)) {
            let record = standing.record.map(|record| unstarted(*record, standing.attempt));
            return Box::pin(self.hand_back(record, standing.fence)).await;
        }
        let deadline = local_deadline(limits.timeout);
        let note = Note { kind, id: envelope.id, attempt: standing.attempt, deadline };
        let claim = match unit.try_claim(delivery, note) {
            Err(BoardFull) => Box::pin(unit.claim(delivery, note)).await,
            done => done,
        };
        let Ok(claim) = claim else {
            tracing::error!(task = %envelope.id, "the board stays full; a task comes again when its lease ends");
            return;
        };
        let (started, started_at) = (Instant::now(), unit.now());
        holding.started(standing.attempt, started_at);
        let ended = match &running {
            Ok(_) => {
                bump(&shared.counters.started);
                self.handle(standing.attempt, deadline, holding).await
            }
            Err(_) => Ended::Cancelled,
        };
        let facts = Facts {
            envelope,
            me: &shared.instance,
            attempt: standing.attempt,
            started_at,
            ended_at: unit.now(),
            told: holding.is_cancelled(),
        };
        // The semaphore is never closed; while the broker is slow, this is what holds the slot.
        let ending = room.ending.acquire().await;
        drop((slot, running));
        let until = started + limits.timeout + shared.lease;
        Box::pin(self.end(&facts, standing, &ended, until)).await;
        drop((ending, claim));
    }

    /// More deliveries came than there are slots: waits, on the board so that the lease is renewed, unless a signal
    /// comes first.
    async fn wait_for_turn(&self, holding: &Holding) -> Result<Turn<'_>, Signal> {
        let claim = self.unit.claim(self.delivery, Note::waiting(self.envelope)).await;
        let turn = tokio::select! {
            biased;
            () = self.unit.shared.stop.cancelled() => Err(Signal::Stopped),
            signal = holding.signalled() => Err(signal),
            turn = self.unit.turn() => turn.ok_or(Signal::Stopped),
        };
        drop(claim);
        turn
    }

    /// `None`: this worker stops first.
    async fn turn<'s>(&self, line: &'s Semaphore, holding: &Holding) -> Option<SemaphorePermit<'s>> {
        tokio::select! {
            biased;
            () = self.unit.shared.stop.cancelled() => None,
            permit = line.acquire() => permit.ok(),
            () = holding.stopped() => None,
        }
    }

    /// Gives a delivery that was not started to somebody else, now. It is no attempt, and the record says that it is no
    /// loss either.
    async fn hand_back(self, record: Option<TaskRecord>, fence: u64) {
        let shared = &*self.unit.shared;
        let mut record = record.unwrap_or_else(|| TaskRecord::new(self.envelope, State::Queued));
        record.handed_back = record.handed_back.saturating_add(1);
        let until = Instant::now() + shared.lease / 3;
        if shared.write(&mut Write { record, fence, ttl: None }, until).await.is_err() {
            tracing::debug!(task = %self.envelope.id, "a delivery is handed back without a word in its record");
        }
        bump(&shared.counters.handed_back);
        shared.acknowledge(self.delivery, Ack::HandBack).await;
    }

    async fn handle(&self, attempt: u32, deadline_unix_ms: u64, holding: &Holding) -> Ended {
        let envelope = self.envelope;
        let end = Instant::now() + self.unit.limits.timeout;
        let mut running = self.unit.room.plugin.start(loader::Attempt {
            task_id: *envelope.id.as_bytes(),
            task: self.unit.index,
            attempt,
            deadline_unix_ms,
            enqueued_unix_ms: envelope.enqueued_at.unix_ms(),
            headers: trace_headers(envelope),
            body: envelope.body.clone(),
        });
        // Whichever comes first, dropping the handler's future cancels it.
        tokio::select! {
            biased;
            outcome = &mut running => return Ended::Handler(outcome),
            signal = holding.signalled() => if signal == Signal::Stopped { return Ended::Interrupted },
            () = tokio::time::sleep_until(end) => return Ended::TimedOut,
        }
        Box::pin(self.wind_down(running, holding, end)).await
    }

    /// The task was cancelled: tells the handler, and gives it a grace within its hard limit.
    async fn wind_down(&self, mut running: loader::TaskStart, holding: &Holding, end: Instant) -> Ended {
        running.cancel_softly();
        let grace_ends = Instant::now() + self.unit.shared.cancel_grace;
        tokio::select! {
            biased;
            outcome = &mut running => Ended::Handler(outcome),
            () = holding.stopped() => Ended::Cancelled,
            () = tokio::time::sleep_until(end.min(grace_ends)) => Ended::Cancelled,
        }
    }

    /// Stores the outcome, with the fence of this attempt or not at all.
    async fn end(&self, facts: &Facts<'_>, standing: Standing, ended: &Ended, until: Instant) {
        let (shared, limits) = (&*self.unit.shared, &self.unit.limits);
        let (plugin, task, id) = (self.unit.room.name.as_str(), self.unit.name.as_str(), self.envelope.id);
        let mut rng = fastrand::Rng::new();
        let appended = standing.record.is_some();
        let mut standing = standing;
        for _ in 0..ROUNDS {
            let plan = ending::end(facts, standing.record, standing.fence, ended, limits, &mut rng)
                .kept_for(limits.result_ttl);
            log_end(plugin, task, facts, &plan);
            match shared.carry_out(self.envelope, self.delivery, plan, None, until).await {
                Carried::Out => return,
                Carried::GivenUp => {
                    bump(&shared.counters.given_up);
                    tracing::error!(plugin, task, %id, "an outcome could not be stored in time; the task runs again");
                    return;
                }
                Carried::Conflict => {}
            }
            let current = match Box::pin(shared.read(self.envelope, until)).await {
                Ok(current) => current,
                Err(_) => break,
            };
            match ending::still_mine(facts, appended, current) {
                Some(merged) => standing = merged,
                None => break,
            }
        }
        bump(&shared.counters.refused);
        let attempt = facts.attempt;
        tracing::warn!(plugin, task, %id, attempt, "a completion was refused: the attempt is no longer this worker's");
    }
}

/// The record without the attempt that was to start.
fn unstarted(mut record: TaskRecord, attempt: u32) -> TaskRecord {
    record.attempts.retain(|one| one.n != attempt || one.cause.is_some());
    record.state = State::Queued;
    record
}

fn log_end(plugin: &str, task: &str, facts: &Facts<'_>, plan: &Plan) {
    let Some(write) = &plan.write else { return };
    let error = write
        .record
        .attempts
        .iter()
        .find(|attempt| attempt.n == facts.attempt)
        .and_then(|a| a.error.as_ref());
    let Some(error) = error else { return };
    tracing::warn!(
        plugin, task, id = %facts.envelope.id, attempt = facts.attempt, state = write.record.state.as_str(),
        code = error.code, error = error.message, "an attempt did not succeed"
    );
}

/// The trace context as a header block.
fn trace_headers(envelope: &TaskEnvelope) -> Bytes {
    let named = [(header::TRACEPARENT, &envelope.traceparent), (header::TRACESTATE, &envelope.tracestate)];
    let mut block = Vec::new();
    for (name, value) in named {
        if let Some(value) = value {
            cardcage_abi::headers::push(&mut block, name, value.as_bytes());
        }
    }
    Bytes::from(block)
}

/// Ends a message that is no envelope.
async fn end_unreadable(unit: &Arc<Unit>, delivery: &Delivery, error: EnvelopeError) {
    let shared = &*unit.shared;
    bump(&shared.counters.unreadable);
    tracing::error!(subject = delivery.subject(), %error, "a message that is no envelope becomes a dead letter");
    let message = Unreadable {
        subject: delivery.subject(),
        stream_sequence: delivery.stream_sequence,
        stored_at: delivery.stored_at,
        body: delivery.payload(),
        error: &error,
    };
    let major = unit.room.plugin.identity.major;
    let envelope =
        unreadable::envelope(&message, shared.broker.subjects(), &unit.room.name, major, &unit.name);
    let until = Instant::now() + shared.lease;
    for _ in 0..ROUNDS {
        let Ok(current) = shared.read(&envelope, until).await else { return };
        let known = current.as_ref().map(|(record, _)| record.clone());
        let plan = unreadable::end(&envelope, &message, current, unit.now());
        if shared.carry_out(&envelope, delivery, plan, known.as_ref(), until).await != Carried::Conflict {
            return;
        }
    }
}
