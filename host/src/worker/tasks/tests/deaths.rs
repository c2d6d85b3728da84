//! Random workers that die, stall and wake between any two writes, in a world of one task: whatever happens, there is
//! one outcome, written once, and nothing that it owes is missing. Meanwhile somebody may cancel the task, and it may expire.
//! What is written agrees with the table of transitions.

use super::super::arrival::{Reception, Standing, receive};
use super::super::ending::{Ended, Facts, end, still_mine};
use super::super::history;
use super::super::obituary::close;
use super::super::plan::Last;
use super::transitions::{self, Change, Writer};
use super::*;
use crate::loader::Outcome;
use crate::process::{Death, Fate};
use cardcage_protocol::{FollowUp, State};
use std::collections::{HashSet, VecDeque};

#[derive(Clone)]
struct Message {
    key: u64,
    attempt: u32,
    num_delivered: u64,
    leased: bool,
}

/// The broker.
#[derive(Default)]
struct World {
    record: Option<(TaskRecord, u64)>,
    sequence: u64,
    queue: Vec<Message>,
    next_key: u64,
    schedule: Vec<u32>,
    /// Message ids that were seen; `forgets` says that the window for duplicates is over.
    seen: HashSet<u32>,
    forgets: bool,
    letters: u32,
    finals: u32,
    starts: u32,
    /// The broker's clock.
    now_ms: u64,
    changes: HashSet<Change>,
}

impl World {
    fn enqueue(&mut self, attempt: u32) {
        if self.seen.insert(attempt) || self.forgets {
            self.queue.push(Message { key: self.next_key, attempt, num_delivered: 0, leased: false });
            self.next_key += 1;
        }
    }

    fn write(&mut self, record: &TaskRecord, fence: u64, writer: Writer) -> Result<u64, ()> {
        if self.record.as_ref().map_or(0, |(_, sequence)| *sequence) != fence {
            return Err(());
        }
        let was_final = self.record.as_ref().is_some_and(|(record, _)| record.state.is_final());
        assert!(!was_final, "an outcome was overwritten");
        let change = (self.record.as_ref().map(|(record, _)| record.state), record.state);
        transitions::assert_known(change, writer);
        self.changes.insert(change);
        self.finals += u32::from(record.state.is_final());
        self.sequence += 1;
        self.record = Some((record.clone(), self.sequence));
        Ok(self.sequence)
    }
}

impl World {
    /// What somebody does who cancels a task that has not ended.
    fn mark(&mut self, envelope: &TaskEnvelope) {
        let (mut record, fence) = match self.record.clone() {
            Some((record, fence)) if !record.state.is_final() => (record, fence),
            None => (TaskRecord::new(envelope, State::Queued), 0),
            Some(_) => return,
        };
        record.cancel_requested_at.get_or_insert(at(self.now_ms));
        self.write(&record, fence, Writer::Canceller).unwrap();
    }

    fn is_marked(&self) -> bool {
        self.record.as_ref().is_some_and(|(record, _)| record.cancel_requested_at.is_some())
    }

    /// What a supervisor does: the record, then the hand-back; it may die in between.
    fn bury(
        &mut self,
        envelope: &TaskEnvelope,
        name: &InstanceId,
        message: &Message,
        step: &Step,
        rng: &mut fastrand::Rng,
    ) {
        let attempt = match step {
            Step::Running(standing) | Step::Ending { standing, .. } => standing.attempt,
            Step::Arrived => 0,
            // Recorded already.
            Step::Owing(..) => return self.hand_back(message),
        };
        let fates = [Fate::Crashed, Fate::Suspected, Fate::Interrupted, Fate::TimedOut, Fate::Lost];
        let fate = if attempt == 0 { Fate::Unstarted } else { fates[rng.usize(..fates.len())] };
        let (record, fence) = match self.record.clone() {
            Some(found) => found,
            None => (TaskRecord::new(envelope, State::Queued), 0),
        };
        let how = Death::Signalled("SIGSEGV".into());
        let closed = close(record, name, &super::crashes::entry(envelope, attempt), fate, &how, at(3));
        if let Some(record) = closed {
            self.write(&record, fence, Writer::Undertaker).unwrap();
        }
        if rng.bool() {
            self.hand_back(message);
        }
    }

    fn hand_back(&mut self, message: &Message) {
        self.queue.iter_mut().for_each(|m| m.leased &= m.key != message.key);
    }
}

enum Step {
    Arrived,
    Running(Standing),
    Ending { standing: Standing, ended: Ended, appended: bool },
    Owing(VecDeque<FollowUp>, Last),
}

struct Worker {
    name: InstanceId,
    job: Option<(Message, Step)>,
}

impl Worker {
    fn step(&mut self, world: &mut World, envelope: &TaskEnvelope, rng: &mut fastrand::Rng) {
        let Some((message, step)) = self.job.take() else {
            let Some(free) = world.queue.iter_mut().find(|message| !message.leased) else { return };
            free.leased = true;
            free.num_delivered += 1;
            self.job = Some((free.clone(), Step::Arrived));
            return;
        };
        let envelope = TaskEnvelope { attempt: message.attempt, ..envelope.clone() };
        let next = match step {
            Step::Arrived => {
                let now = at(world.now_ms);
                self.open(world, &Arrival { now, ..arrival(&envelope, message.num_delivered) })
            }
            Step::Running(standing) => {
                world.starts += 1;
                let appended = standing.record.is_some();
                Some(Step::Ending { standing, ended: any_end(rng), appended })
            }
            Step::Ending { standing, ended, appended } => {
                self.close(world, &envelope, standing, ended, appended, rng)
            }
            Step::Owing(mut owed, last) => match owed.pop_front() {
                Some(FollowUp::ScheduleRetry { attempt, .. }) => {
                    world.schedule.push(attempt);
                    Some(Step::Owing(owed, last))
                }
                Some(FollowUp::Park) => panic!("no body of this world is undecodable"),
                Some(FollowUp::Unknown) => panic!("no host of this world is newer"),
                Some(FollowUp::DeadLetter { .. }) => {
                    world.letters += 1;
                    Some(Step::Owing(owed, last))
                }
                Some(FollowUp::Children) => unreachable!("no handler of this model enqueues"),
                Some(FollowUp::Exhausted) => unreachable!("no task of this model has a hook"),
                None => {
                    match last {
                        Last::Done => world.queue.retain(|other| other.key != message.key),
                        Last::HandBack => world.hand_back(&message),
                    }
                    None
                }
            },
        };
        self.job = next.map(|step| (message, step));
    }

    fn open(&self, world: &mut World, arrival: &Arrival<'_>) -> Option<Step> {
        match receive(arrival, false) {
            Reception::Start(standing) => return Some(Step::Running(standing)),
            Reception::Expired(plan) => {
                let write = plan.write.as_ref()?;
                if world.write(&write.record, write.fence, Writer::Refuser).is_ok() {
                    return Some(Step::Owing(plan.then.into(), plan.last));
                }
            }
            Reception::Read => {}
        }
        match consider(arrival, world.record.clone(), &self.name, &worker("unknown"), &LIMITS) {
            Decision::Start(standing) => Some(Step::Running(standing)),
            Decision::Append { write, attempt, .. } => {
                let fence = world.write(&write.record, write.fence, Writer::Starter).ok()?;
                Some(Step::Running(Standing { attempt, record: Some(Box::new(write.record)), fence }))
            }
            Decision::Finish(plan) => {
                if let Some(write) = &plan.write {
                    world.write(&write.record, write.fence, Writer::Refuser).ok()?;
                }
                Some(Step::Owing(plan.then.into(), plan.last))
            }
        }
    }

    fn close(
        &self,
        world: &mut World,
        envelope: &TaskEnvelope,
        standing: Standing,
        ended: Ended,
        appended: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<Step> {
        let attempt = standing.attempt;
        let ended_at = at(world.now_ms);
        let told = world.is_marked() && rng.bool();
        let facts = Facts {
            envelope,
            me: &self.name,
            attempt,
            message: 1,
            schema: "s",
            started_at: at(1),
            ended_at,
            told,
        };
        let plan = end(&facts, standing.record, standing.fence, &ended, &LIMITS, rng);
        let write = plan.write.unwrap();
        match world.write(&write.record, write.fence, Writer::Holder) {
            Ok(_) => Some(Step::Owing(plan.then.into(), plan.last)),
            Err(()) => still_mine(&facts, appended, world.record.clone()).map(|standing| Step::Ending {
                standing,
                ended,
                appended,
            }),
        }
    }
}

fn any_end(rng: &mut fastrand::Rng) -> Ended {
    let text = Bytes::from_static(b"{\"message\":\"x\"}");
    match rng.u8(..8) {
        0 | 1 => Ended::Handler(Outcome::Succeeded(Bytes::from_static(b"1"))),
        2..=4 => Ended::Handler(Outcome::Retry(text)),
        5 => Ended::TimedOut,
        6 => Ended::Handler(Outcome::Failed(text)),
        _ => Ended::Interrupted,
    }
}

fn live(seed: u64) -> HashSet<Change> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut envelope = envelope(1);
    envelope.expires_at = (rng.u8(..4) == 0).then(|| at(rng.u64(..60)));
    let mut cancels_at = (rng.u8(..4) == 0).then(|| rng.u64(..60));
    let mut world = World { forgets: rng.u8(..4) == 0, ..World::default() };
    world.enqueue(1);
    let mut workers: Vec<_> =
        ["w1", "w2", "w3"].map(|name| Worker { name: worker(name), job: None }).into_iter().collect();
    let mut troubles = rng.u32(0..20);
    let is_calm = troubles == 0;
    for _ in 0..10_000 {
        let chosen = rng.usize(..workers.len());
        world.now_ms += 1;
        if cancels_at.take_if(|cancels_at| world.now_ms >= *cancels_at).is_some() {
            world.mark(&envelope);
        }
        match rng.u8(..10) {
            // Dies, or stalls for ever: its lease runs out some time.
            0 if troubles > 0 => {
                troubles -= 1;
                let job = workers[chosen].job.take();
                // Its supervisor may live, and say so.
                if let Some((message, step)) = job.filter(|_| rng.bool()) {
                    world.bury(&envelope, &workers[chosen].name, &message, &step, &mut rng);
                }
            }
            // The lease runs out, and its holder does not know.
            1 if troubles > 0 => {
                troubles -= 1;
                world.queue.iter_mut().for_each(|message| message.leased = false);
            }
            2 => {
                if let Some(attempt) = world.schedule.pop() {
                    world.enqueue(attempt);
                }
            }
            _ => workers[chosen].step(&mut world, &envelope, &mut rng),
        }
        let idle = workers.iter().all(|worker| worker.job.is_none());
        if idle && world.queue.is_empty() && world.schedule.is_empty() {
            break;
        }
        if idle && world.queue.iter().all(|message| message.leased) {
            world.queue.iter_mut().for_each(|message| message.leased = false);
        }
    }
    let (record, _) = world.record.clone().unwrap_or_else(|| panic!("seed {seed}: no record"));
    assert!(world.queue.is_empty() && world.schedule.is_empty(), "seed {seed}: not finished: {record:?}");
    assert!(record.state.is_final(), "seed {seed}: {:?}", record.state);
    assert_eq!(world.finals, 1, "seed {seed}");
    assert_eq!(record.state == State::Failed, world.letters > 0, "seed {seed}: {record:?}");
    assert!(record.attempts.is_sorted_by(|a, b| a.n < b.n), "seed {seed}: {:?}", record.attempts);
    assert!(
        record.attempts.iter().all(|attempt| attempt.cause.is_some()),
        "seed {seed}: {:?}",
        record.attempts
    );
    if is_calm {
        // Nobody died: every start is an attempt with an end of its own, and none was lost.
        assert_eq!(usize::try_from(world.starts).unwrap(), record.attempts.len(), "seed {seed}: {record:?}");
        assert_eq!(history::lost(&record), 0, "seed {seed}: {record:?}");
    }
    assert!(history::counted(&record) <= LIMITS.retry.max_attempts, "seed {seed}: {:?}", record.attempts);
    let starved = record.error.is_some_and(|error| ["lease_lost", "crashed"].contains(&error.code.as_str()));
    let unstarted = matches!(record.state, State::Cancelled | State::Expired);
    assert!(world.starts > 0 || starved || unstarted, "seed {seed}");
    world.changes
}

#[test]
fn whoever_dies_whenever_there_is_one_outcome_and_what_it_owes() {
    let seen = (0..20_000).flat_map(live).collect();
    transitions::assert_covered(&seen);
}
