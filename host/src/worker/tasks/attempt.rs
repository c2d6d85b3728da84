//! One delivery, from its arrival to its last write.

use super::arrival::{self, Arrival, Decision, Reception, Standing};
use super::carry_out::Carried;
use super::counters::bump;
use super::ending::{Ended, Facts};
use super::held::{Holding, Message, Signal};
use super::history;
use super::limits::RESULT_TTL_MIN;
use super::note::{BoardFull, Note, local_deadline};
use super::plan::Plan;
use super::unit::{Slot, Turn, Unit};
use super::unreadable::{self, Unreadable};
use crate::broker::{Ack, Delivery, Waiting};
use crate::crash::{Claim, Kind};
use crate::failpoint::{Point, reach};
use cardcage_protocol::{EnvelopeError, TaskEnvelope, TaskRecord, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// How often a decision is taken anew because somebody wrote in between. More means that something is wrong.
pub(super) const ROUNDS: usize = 8;

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
        let num_delivered = delivery.num_delivered;
        let delivered = Delivered { unit: &unit, delivery: &delivery, envelope: &envelope, num_delivered };
        if !envelope.is_promised(delivery.stored_at) {
            // Before it is entered: the message that was accepted in its place has the same id, and may come with it.
            return Box::pin(delivered.drop_unpromised()).await;
        }
        let now = unit.now();
        let message = delivered.message();
        let (hold, came_first, mut waiting) = match shared.held.enter(envelope.id, message, now) {
            Ok(hold) => (hold, true, None),
            Err(here) => match Box::pin(delivered.enter_after(here)).await {
                Some((hold, waiting)) => (hold, false, waiting),
                None => return,
            },
        };
        // A task that must never start twice has its attempt written down before it starts.
        let must_read = unit.limits.lost_is_final || arrival::may_come_twice(&envelope) || !came_first;
        let settling = shared.settling.is_settling(shared.broker.link().generation);
        let delivered = match envelope.serial_key {
            None => delivered,
            Some(_) => match Box::pin(delivered.take_turn(&mut waiting)).await {
                Some(num_delivered) => Delivered { num_delivered, ..delivered },
                None => return,
            },
        };
        match arrival::receive(&delivered.arrival(now), settling || must_read) {
            // Cancelled while it was on its way here: its record says so.
            Reception::Start(_) if hold.holding.is_cancelled() => {
                Box::pin(delivered.consider(waiting, &hold.holding, slot)).await
            }
            Reception::Start(standing) => {
                delivered.start(standing, None, None, &hold.holding, slot).await;
            }
            Reception::Expired(plan) => Box::pin(delivered.expire(*plan, &hold.holding, slot)).await,
            Reception::Read => Box::pin(delivered.consider(waiting, &hold.holding, slot)).await,
        }
    }
}

impl Unit {
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.shared.broker.now_unix_ms())
    }
}

/// A readable delivery and where it belongs.
#[derive(Clone, Copy)]
pub(super) struct Delivered<'a> {
    pub(super) unit: &'a Arc<Unit>,
    pub(super) delivery: &'a Delivery,
    pub(super) envelope: &'a TaskEnvelope,
    /// How often it was delivered when it might have been started, this time included.
    num_delivered: u64,
}

impl Delivered<'_> {
    pub(super) fn message(&self) -> Message {
        Message { attempt: self.envelope.attempt, sequence: self.delivery.stream_sequence }
    }

    /// Whether an outcome of its message may have been forgotten: a worker that was frozen for so long finds what it was given before.
    fn may_be_forgotten(&self) -> bool {
        let age_ms = self.unit.now().unix_ms().saturating_sub(self.delivery.stored_at.unix_ms());
        u128::from(age_ms) > RESULT_TTL_MIN.as_millis()
    }

    fn arrival(&self, now: Timestamp) -> Arrival<'_> {
        Arrival {
            envelope: self.envelope,
            num_delivered: self.num_delivered,
            message: self.delivery.stream_sequence,
            stored_at: self.delivery.stored_at,
            now,
        }
    }

    /// Removes what nobody was promised. It had no turn of its serial key; its unique key is that of the message in its
    /// place as well, wherever that one is.
    async fn drop_unpromised(self) {
        let (shared, envelope) = (&*self.unit.shared, self.envelope);
        bump(&shared.counters.unpromised);
        tracing::info!(task = %envelope.id, "a task that nobody was promised was dropped");
        let until = Instant::now() + shared.lease;
        if envelope.unique_key.is_some() {
            let Ok(is_alone) = self.is_alone(until).await else { return };
            if is_alone && shared.release_unique(envelope, until).await.is_err() {
                return;
            }
        }
        shared.acknowledge(self.delivery, Ack::Done).await;
    }

    /// Whether nothing is known of the task but this message.
    async fn is_alone(&self, until: Instant) -> Result<bool, Carried> {
        let (broker, payer, id) = (&self.unit.shared.broker, &self.unit.shared.payer, self.envelope.id);
        let says = "an unpromised task could not be looked for; trying again";
        let messages = payer.again(until, says, || broker.messages_of(&self.envelope.plugin, id)).await?;
        let is_this = |waiting: &Waiting| waiting.sequence == self.delivery.stream_sequence;
        Ok(messages.iter().all(is_this) && self.unit.shared.read(self.envelope, until).await?.is_none())
    }

    async fn expire(self, plan: Plan, holding: &Holding, slot: Slot) {
        let until = Instant::now() + self.unit.shared.lease;
        if self.finish(plan, None, until).await == Carried::Conflict {
            self.consider(None, holding, slot).await;
        }
    }

    /// Off the happy path: decides with the record. `waiting`: its note on the board, if it has one yet.
    async fn consider(self, mut waiting: Option<Box<Claim>>, holding: &Holding, slot: Slot) {
        let (shared, envelope, limits) = (&*self.unit.shared, self.envelope, &self.unit.limits);
        let mut until = Instant::now() + shared.lease;
        self.note_waiting(&mut waiting).await;
        let mut alone = None;
        for _ in 0..ROUNDS {
            let Ok(current) = shared.read(envelope, until).await else { break };
            // One that must not be started twice gets no turn.
            if alone.is_none()
                && !limits.lost_is_final
                && current.as_ref().is_some_and(|(record, _)| history::runs_alone(record))
            {
                match self.turn_alone(holding).await {
                    Ok(turn) => alone = Some(turn),
                    // Its record says so.
                    Err(Signal::Cancelled) => {}
                    Err(Signal::Stopped) => {
                        let (record, fence) = current.map_or((None, 0), |(record, at)| (Some(record), at));
                        return self.hand_back(waiting, record, fence).await;
                    }
                }
                until = Instant::now() + shared.lease;
                continue;
            }
            if current.is_none() && self.may_be_forgotten() {
                match self.is_there(until).await {
                    Ok(true) => {}
                    // Whoever ended the task has removed it.
                    Ok(false) => return,
                    Err(_) => break,
                }
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
                    return self.start(standing, alone, waiting, holding, slot).await;
                }
                Decision::Append { mut write, attempt, lost } => {
                    match shared.write(&mut write, until).await {
                        Ok(fence) => {
                            shared.counters.lost.fetch_add(lost.into(), Ordering::Relaxed);
                            let standing = Standing { attempt, record: Some(Box::new(write.record)), fence };
                            return self.start(standing, alone, waiting, holding, slot).await;
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
        let plan = plan.with_hook(self.unit.hook.as_ref()).kept_for(self.unit.limits.result_ttl);
        self.unit.shared.carry_out(self.envelope, self.delivery, plan, current, until).await
    }

    /// Runs the handler and ends the attempt. `alone`: the turn that it has, as one that may have crashed a worker. `waiting`: its
    /// note on the board, where it did not come straight here.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would hold its arguments twice")]
    fn start<'a>(
        self,
        standing: Standing,
        alone: Option<Box<Turn<'a>>>,
        mut waiting: Option<Box<Claim>>,
        holding: &'a Holding,
        slot: Slot,
    ) -> impl Future<Output = ()> + Send
    where
        Self: 'a,
    {
        async move {
            let Self { unit, delivery, envelope, .. } = self;
            let (shared, room, limits) = (&*unit.shared, &*unit.room, &unit.limits);
            let mut running = match alone.map(|turn| *turn).or_else(|| unit.try_turn()) {
                Some(turn) => Ok(turn),
                None => Box::pin(self.wait_for_turn(&mut waiting, holding)).await,
            };
            if matches!(running, Err(Signal::Stopped)) || room.gate.is_closed() {
                let record = standing.record.map(|mut record| {
                    history::withdraw(&mut record);
                    *record
                });
                return Box::pin(self.hand_back(waiting, record, standing.fence)).await;
            }
            let deadline = local_deadline(limits.timeout);
            let kind = if running.as_ref().is_ok_and(Turn::is_suspect) { Kind::Suspect } else { Kind::Task };
            let note = Note { kind, id: envelope.id, attempt: standing.attempt, deadline };
            reach(Point::BeforeStart);
            let claim = match waiting {
                Some(mut waiting) => {
                    waiting.begin(note.kind, note.attempt, note.deadline);
                    Ok(Some(*waiting))
                }
                None => match unit.try_claim(delivery, note) {
                    Err(BoardFull) => Box::pin(unit.claim(delivery, note)).await,
                    done => done,
                },
            };
            let Ok(claim) = claim else {
                tracing::error!(task = %envelope.id, "the board stays full; a task comes again when its lease ends");
                return;
            };
            let (started, started_at) = (Instant::now(), unit.now());
            holding.started(standing.attempt, started_at);
            holding.staged.open(standing.attempt, envelope.root_id);
            let ended = match &mut running {
                Ok(turn) => {
                    bump(&shared.counters.started);
                    if turn.is_suspect() {
                        Box::pin(self.handle_alone(turn, standing.attempt, deadline, holding)).await
                    } else {
                        self.handle(standing.attempt, deadline, holding).await
                    }
                }
                Err(_) => Ended::Cancelled,
            };
            let children = holding.staged.close();
            let facts = Facts {
                envelope,
                me: &shared.instance,
                attempt: standing.attempt,
                message: delivery.stream_sequence,
                schema: &unit.schema,
                started_at,
                ended_at: unit.now(),
                told: holding.is_cancelled(),
            };
            // The semaphore is never closed; while the broker is slow, this is what holds the slot.
            let ending = room.ending.acquire().await;
            drop((slot, running));
            let has_ended = Box::pin(self.end(&facts, standing, &ended, &children, started)).await;
            if has_ended && (holding.does_once() || facts.attempt > 1) {
                Box::pin(self.end_once()).await;
            }
            drop((ending, claim));
        }
    }

    /// Runs the handler of such a task. The others of its plugin wait for it, but for no longer than a lease: what has come so
    /// far alone goes on beside them.
    async fn handle_alone(
        &self,
        turn: &mut Turn<'_>,
        attempt: u32,
        deadline_unix_ms: u64,
        holding: &Holding,
    ) -> Ended {
        let handler = self.handle(attempt, deadline_unix_ms, holding);
        tokio::pin!(handler);
        if let Ok(ended) = tokio::time::timeout(self.unit.shared.lease, &mut handler).await {
            return ended;
        }
        turn.admit_others();
        handler.await
    }
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
