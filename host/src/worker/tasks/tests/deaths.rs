//! Random workers that die, stall and wake between any two writes, in a world of one task: whatever happens, there is
//! one outcome, written once, and nothing that it owes is missing. Meanwhile somebody may cancel the task, and it may expire;
//! some versions cannot read its body, and it is parked until one comes that can.
//! What is written agrees with the table of transitions.

use super::super::arrival::{Reception, Standing, may_come_twice, receive};
use super::super::ending::{Ended, Facts, end, still_mine};
use super::super::history;
use super::super::obituary::close;
use super::super::plan::Last;
use super::transitions::{self, Change, Writer};
use super::world::{Message, STEP_MS, Unparking, World};
use super::*;
use crate::loader::Outcome;
use crate::process::{Death, Fate};
use cardcage_protocol::{Attempt, Cause, FollowUp, Parking, State};
use std::collections::{HashSet, VecDeque};

impl World {
    /// What a supervisor does: the record, then the hand-back; it may die in between.
    fn bury(
        &mut self,
        envelope: &TaskEnvelope,
        name: &InstanceId,
        Job { message, step }: &Job,
        born: Timestamp,
        rng: &mut fastrand::Rng,
    ) {
        let attempt = match step {
            Step::Running(standing) | Step::Ending { standing, .. } => standing.attempt,
            Step::Arrived => 0,
            // Recorded already, which its board does not say.
            Step::Owing(debt) => debt.on_board,
        };
        let fates = [Fate::Crashed, Fate::Suspected, Fate::Interrupted, Fate::TimedOut, Fate::Lost];
        let fate = if attempt == 0 { Fate::Unstarted } else { fates[rng.usize(..fates.len())] };
        let (record, fence) = match self.record.clone() {
            Some(found) => found,
            None => (TaskRecord::new(envelope, State::Queued), 0),
        };
        let how = Death::Signalled("SIGSEGV".into());
        let entry = super::crashes::entry(envelope, attempt);
        let closed = close(record, name, &entry, fate, &how, (born, self.now()));
        if let Some(record) = closed {
            self.write(&record, fence, Writer::Undertaker).unwrap();
        }
        if rng.bool() {
            self.hand_back(message);
        }
    }
}

enum Step {
    Arrived,
    Running(Standing),
    Ending { standing: Standing, ended: Ended, appended: bool },
    Owing(Debt),
}

/// What follows a record, or the look at one.
struct Debt {
    owed: VecDeque<FollowUp>,
    last: Last,
    /// What the record says of its parking.
    parking: Option<Parking>,
    /// The attempt that still stands on the board; 0 for none.
    on_board: u32,
}

impl Debt {
    fn of(plan: Box<Plan>, parking: Option<Parking>, on_board: u32) -> Self {
        Self { owed: plan.then.into(), last: plan.last, parking, on_board }
    }
}

struct Job {
    message: Message,
    step: Step,
}

struct Worker {
    name: InstanceId,
    /// When its present child was.
    born: Timestamp,
    job: Option<Job>,
}

impl Worker {
    fn step(&mut self, world: &mut World, envelope: &TaskEnvelope, rng: &mut fastrand::Rng) {
        let Some(Job { message, step }) = self.job.take() else {
            let Some(free) = world.queue.iter_mut().find(|message| !message.leased) else { return };
            free.leased = true;
            free.num_delivered += 1;
            self.job = Some(Job { message: free.clone(), step: Step::Arrived });
            return;
        };
        let Message { attempt, unparked, sequence, .. } = message;
        let envelope = TaskEnvelope { attempt, unparked, ..envelope.clone() };
        let next = match step {
            Step::Arrived => {
                let now = world.now();
                let message = Arrival { message: sequence, now, ..arrival(&envelope, message.num_delivered) };
                self.open(world, &message)
            }
            Step::Running(standing) => {
                let appended = standing.record.is_some();
                let ended = any_end(rng);
                // Of one that cannot read its body no handler begins.
                world.starts += u32::from(!matches!(ended, Ended::Handler(Outcome::Undecodable(_))));
                Some(Step::Ending { standing, ended, appended })
            }
            Step::Ending { standing, ended, appended } => {
                self.close(world, (&envelope, sequence), standing, ended, appended, rng)
            }
            Step::Owing(mut debt) => match debt.owed.pop_front() {
                Some(FollowUp::ScheduleRetry { attempt, .. }) => {
                    world.schedule.push(attempt);
                    Some(Step::Owing(debt))
                }
                Some(FollowUp::Park) => {
                    debt.parking.iter().for_each(|parking| world.park(attempt, parking));
                    Some(Step::Owing(debt))
                }
                Some(FollowUp::Unknown) => panic!("no host of this world is newer"),
                Some(FollowUp::DeadLetter { .. }) => {
                    world.letters += 1;
                    Some(Step::Owing(debt))
                }
                Some(FollowUp::Children) => unreachable!("no handler of this model enqueues"),
                Some(FollowUp::Exhausted) => unreachable!("no task of this model has a hook"),
                None => {
                    match debt.last {
                        Last::Done => world.queue.retain(|other| other.sequence != message.sequence),
                        Last::HandBack => world.hand_back(&message),
                    }
                    None
                }
            },
        };
        self.job = next.map(|step| Job { message, step });
    }

    fn open(&self, world: &mut World, arrival: &Arrival<'_>) -> Option<Step> {
        match receive(arrival, world.is_once || may_come_twice(arrival.envelope)) {
            Reception::Start(standing) => return Some(Step::Running(standing)),
            Reception::Expired(plan) => {
                let write = plan.write.as_ref()?;
                if world.write(&write.record, write.fence, Writer::Refuser).is_ok() {
                    return Some(Step::Owing(Debt::of(plan, None, 0)));
                }
            }
            Reception::Read => {}
        }
        match consider(arrival, world.record.clone(), &self.name, &worker("unknown"), world.limits()) {
            Decision::Start(standing) => Some(Step::Running(standing)),
            Decision::Append { write, attempt, .. } => {
                let fence = world.write(&write.record, write.fence, Writer::Starter).ok()?;
                Some(Step::Running(Standing { attempt, record: Some(Box::new(write.record)), fence }))
            }
            Decision::Finish(plan) => {
                if let Some(write) = &plan.write {
                    world.write(&write.record, write.fence, Writer::Refuser).ok()?;
                }
                let record = plan.write.as_ref().map(|write| write.record.clone());
                let record = record.or_else(|| Some(world.record.clone()?.0));
                Some(Step::Owing(Debt::of(plan, record.and_then(|record| record.parked), 0)))
            }
        }
    }

    fn close(
        &self,
        world: &mut World,
        (envelope, message): (&TaskEnvelope, u64),
        standing: Standing,
        ended: Ended,
        appended: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<Step> {
        let attempt = standing.attempt;
        let ended_at = world.now();
        let told = world.is_marked() && rng.bool();
        let facts = Facts {
            envelope,
            me: &self.name,
            attempt,
            message,
            schema: "s",
            started_at: at(1),
            ended_at,
            told,
        };
        let plan = end(&facts, standing.record, standing.fence, &ended, world.limits(), rng);
        let write = plan.write.as_ref().unwrap();
        match world.write(&write.record, write.fence, Writer::Holder) {
            Ok(_) => {
                let parking = write.record.parked.clone();
                Some(Step::Owing(Debt::of(Box::new(plan), parking, attempt)))
            }
            Err(()) => still_mine(&facts, appended, world.record.clone()).map(|standing| Step::Ending {
                standing,
                ended,
                appended,
            }),
        }
    }
}

fn is_idle(workers: &[Worker]) -> bool {
    workers.iter().all(|worker| worker.job.is_none())
}

fn any_end(rng: &mut fastrand::Rng) -> Ended {
    let text = Bytes::from_static(b"{\"message\":\"x\"}");
    match rng.u8(..9) {
        0 | 1 => Ended::Handler(Outcome::Succeeded(Bytes::from_static(b"1"))),
        2..=4 => Ended::Handler(Outcome::Retry(text)),
        5 => Ended::TimedOut,
        6 => Ended::Handler(Outcome::Failed(text)),
        7 => Ended::Handler(Outcome::Undecodable(text)),
        _ => Ended::Interrupted,
    }
}

fn live(seed: u64) -> HashSet<Change> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut envelope = envelope(1);
    envelope.expires_at = (rng.u8(..4) == 0).then(|| at(rng.u64(..60) * STEP_MS));
    let mut cancels_at = (rng.u8(..4) == 0).then(|| rng.u64(..60));
    let mut world = World { forgets: rng.u8(..4) == 0, is_once: rng.u8(..4) == 0, ..World::default() };
    match rng.u8(..4) {
        0 => world.schedule.push(1),
        _ => world.enqueue(1),
    }
    let mut unparking = None;
    let mut workers: Vec<_> = ["w1", "w2", "w3"]
        .map(|name| Worker { name: worker(name), born: at(0), job: None })
        .into_iter()
        .collect();
    let mut troubles = rng.u32(0..20);
    let is_calm = troubles == 0;
    for _ in 0..10_000 {
        let chosen = rng.usize(..workers.len());
        world.steps += 1;
        if cancels_at.take_if(|cancels_at| world.steps >= *cancels_at).is_some() {
            world.mark(&envelope);
        }
        match rng.u8(..10) {
            // Dies, or stalls for ever: its lease runs out some time.
            0 if troubles > 0 => {
                troubles -= 1;
                let job = workers[chosen].job.take();
                let born = std::mem::replace(&mut workers[chosen].born, world.now());
                // Its supervisor may live, and say so.
                if let Some(job) = job.filter(|_| rng.bool()) {
                    world.bury(&envelope, &workers[chosen].name, &job, born, &mut rng);
                }
            }
            // The lease runs out, and its holder does not know.
            1 if troubles > 0 => {
                troubles -= 1;
                world.queue.iter_mut().for_each(|message| message.leased = false);
            }
            // It was parked for longer than records are kept.
            2 if troubles > 0 && is_idle(&workers) && world.is_parked_only() => {
                troubles -= 1;
                world.record = None;
            }
            2 => {
                if let Some(attempt) = world.schedule.pop() {
                    world.enqueue(attempt);
                }
            }
            3 if troubles > 0 && unparking.is_some() => {
                troubles -= 1;
                unparking = None;
            }
            4 | 5 if !world.parked.is_empty() || unparking.is_some() => {
                let under_way =
                    unparking.take().or_else(|| world.parked.last().copied().map(Unparking::Record));
                unparking = under_way.and_then(|step| step.step(&mut world, &envelope));
            }
            _ => workers[chosen].step(&mut world, &envelope, &mut rng),
        }
        let idle = is_idle(&workers);
        if idle && unparking.is_none() && world.is_done() {
            break;
        }
        if idle && world.queue.iter().all(|message| message.leased) {
            world.queue.iter_mut().for_each(|message| message.leased = false);
        }
    }
    let (record, _) = world.record.clone().unwrap_or_else(|| panic!("seed {seed}: no record"));
    assert!(world.is_done(), "seed {seed}: not finished: {record:?}");
    assert!(record.state.is_final(), "seed {seed}: {:?}", record.state);
    assert_eq!(world.finals, 1, "seed {seed}");
    assert_eq!(record.state == State::Failed, world.letters > 0, "seed {seed}: {record:?}");
    assert!(record.attempts.is_sorted_by(|a, b| a.n < b.n), "seed {seed}: {:?}", record.attempts);
    assert!(
        record.attempts.iter().all(|attempt| attempt.cause.is_some()),
        "seed {seed}: {:?}",
        record.attempts
    );
    if world.is_once {
        let came_to_an_end = |attempt: &&Attempt| attempt.cause.is_some_and(Cause::counts);
        let own = record.attempts.iter().filter(came_to_an_end).count();
        let cut_off = record.attempts.len() - own;
        let own = own + usize::try_from(record.attempts_omitted).unwrap();
        assert!(
            cut_off == 0 || cut_off == 1 && record.state.is_final(),
            "seed {seed}: {:?}",
            record.attempts
        );
        assert!(usize::try_from(world.starts).unwrap() <= own + 1, "seed {seed}: {:?}", record.attempts);
    }
    if is_calm {
        // Nobody died: every start is an attempt with an end of its own, and none was lost. Where the body could not be
        // read, nothing was started, but a cancellation that came just then is told of.
        let is_started =
            |attempt: &&Attempt| attempt.error.as_ref().is_none_or(|error| error.code != "undecodable");
        let started = record.attempts.iter().filter(is_started).count();
        assert_eq!(usize::try_from(world.starts).unwrap(), started, "seed {seed}: {record:?}");
        assert_eq!(history::lost(&record), 0, "seed {seed}: {record:?}");
    }
    // Those before a record was lost are taken to have counted.
    let counted = history::counted(&record).saturating_sub(record.attempts_omitted);
    assert!(counted <= LIMITS.retry.max_attempts, "seed {seed}: {:?}", record.attempts);
    let starved = record
        .error
        .is_some_and(|error| ["lease_lost", "crashed", "interrupted"].contains(&error.code.as_str()));
    let unstarted = matches!(record.state, State::Cancelled | State::Expired);
    assert!(world.starts > 0 || starved || unstarted, "seed {seed}");
    world.changes
}

#[test]
fn whoever_dies_whenever_there_is_one_outcome_and_what_it_owes() {
    let seen = (0..60_000).flat_map(live).collect();
    transitions::assert_covered(&seen);
}
