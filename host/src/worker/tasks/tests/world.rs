//! The broker of the model: what it stores, what it knows again, and who moves parked tasks.

use super::transitions::{self, Change, Writer};
use super::*;
use cardcage_protocol::{Parking, State};
use std::collections::HashSet;

/// What one step takes; longer than the clocks of a child and its supervisor differ.
pub(super) const STEP_MS: u64 = 100;

#[derive(Clone)]
pub(super) struct Message {
    /// Its sequence in the queue.
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    /// It has come back from being parked.
    pub(super) unparked: bool,
    pub(super) num_delivered: u64,
    pub(super) leased: bool,
}

/// One message among the parked ones.
#[derive(Clone, Copy)]
pub(super) struct Parked {
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    /// What was parked.
    pub(super) message: u64,
}

/// What the broker knows a publish by.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum MessageId {
    Attempt(u32),
    Parking { attempt: u32, message: u64 },
    Unparking(u64),
}

/// The broker.
#[derive(Default)]
pub(super) struct World {
    pub(super) record: Option<(TaskRecord, u64)>,
    pub(super) sequence: u64,
    pub(super) queue: Vec<Message>,
    /// The last sequence of any queue.
    pub(super) stored: u64,
    pub(super) schedule: Vec<u32>,
    pub(super) parked: Vec<Parked>,
    /// Message ids that were seen; `forgets` says that the window for duplicates is over.
    pub(super) seen: HashSet<MessageId>,
    pub(super) forgets: bool,
    pub(super) letters: u32,
    pub(super) finals: u32,
    pub(super) starts: u32,
    /// Steps so far.
    pub(super) steps: u64,
    pub(super) changes: HashSet<Change>,
    /// The task must not be started twice.
    pub(super) is_once: bool,
}

impl World {
    pub(super) const fn limits(&self) -> &'static TaskLimits {
        if self.is_once { &ONCE } else { &LIMITS }
    }

    /// The broker's clock.
    pub(super) fn now(&self) -> Timestamp {
        at(self.steps * STEP_MS)
    }

    pub(super) fn enqueue(&mut self, attempt: u32) {
        if let Some(sequence) = self.store(MessageId::Attempt(attempt)) {
            self.queue.push(Message { sequence, attempt, unparked: false, num_delivered: 0, leased: false });
        }
    }

    /// The sequence of what is stored; `None` for what has been before.
    fn store(&mut self, id: MessageId) -> Option<u64> {
        let is_new = self.seen.insert(id) || self.forgets;
        self.stored += u64::from(is_new);
        is_new.then_some(self.stored)
    }

    /// There is one per task. It is made only while the record says so, and known by the message.
    pub(super) fn park(&mut self, attempt: u32, parking: &Parking) {
        let is_owed = self.record.as_ref().is_none_or(|(record, _)| record.parks(parking.message));
        if !is_owed || self.parked.iter().any(|there| there.message == parking.message) {
            return;
        }
        let message = parking.message;
        if let Some(sequence) = self.store(MessageId::Parking { attempt, message }) {
            self.parked = vec![Parked { sequence, attempt, message }];
        }
    }

    pub(super) fn write(&mut self, record: &TaskRecord, fence: u64, writer: Writer) -> Result<u64, ()> {
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
    pub(super) fn mark(&mut self, envelope: &TaskEnvelope) {
        let (mut record, fence) = match self.record.clone() {
            Some((record, fence)) if !record.state.is_final() => (record, fence),
            // Parked for longer than records are kept, or nobody has had it yet: it waits for its time, or in its queue.
            None if self.is_parked() => {
                let attempt = self.parked.last().map_or(1, |parked| parked.attempt);
                let envelope = TaskEnvelope { attempt, ..envelope.clone() };
                (TaskRecord::new(&envelope, State::Parked), 0)
            }
            None if self.queue.is_empty() => (TaskRecord::new(envelope, State::Scheduled), 0),
            None => (TaskRecord::new(envelope, State::Queued), 0),
            Some(_) => return,
        };
        record.cancel_requested_at.get_or_insert(self.now());
        self.write(&record, fence, Writer::Canceller).unwrap();
    }

    pub(super) fn is_marked(&self) -> bool {
        self.record.as_ref().is_some_and(|(record, _)| record.cancel_requested_at.is_some())
    }

    pub(super) fn hand_back(&mut self, message: &Message) {
        self.queue.iter_mut().for_each(|m| m.leased &= m.sequence != message.sequence);
    }

    /// Whether the task is parked, and nowhere else.
    fn is_parked(&self) -> bool {
        self.queue.is_empty() && self.schedule.is_empty() && !self.parked.is_empty()
    }

    /// Whether it is, and its record says so.
    pub(super) fn is_parked_only(&self) -> bool {
        self.is_parked() && self.record.as_ref().is_some_and(|(record, _)| record.state == State::Parked)
    }

    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.schedule.is_empty() && self.parked.is_empty()
    }
}

/// What `crate::unpark::unpark` does, one write at a time; whoever does it may die in between.
pub(super) enum Unparking {
    Record(Parked),
    Publish(Parked),
    Remove(Parked),
}

impl Unparking {
    pub(super) fn step(self, world: &mut World, envelope: &TaskEnvelope) -> Option<Self> {
        match self {
            Self::Record(parked) => {
                let (record, fence) = world.record.clone().unwrap_or_else(|| {
                    let envelope = TaskEnvelope { attempt: parked.attempt, ..envelope.clone() };
                    let mut record = TaskRecord::new(&envelope, State::Parked);
                    record.parked = Some(Parking::of(parked.message, vec!["s".into()], None));
                    (record, 0)
                });
                if record.parked.as_ref().is_some_and(|latest| latest.is_after(parked.message)) {
                    return Some(Self::Remove(parked));
                }
                match record.state {
                    State::Parked => {
                        let back = crate::unpark::back(record, world.now());
                        if fence == 0 {
                            world.write(&back, fence, Writer::Canceller).unwrap();
                        } else {
                            world.write(&back, fence, Writer::Unparker).unwrap();
                        }
                        let next = if back.state.is_final() { Self::Remove } else { Self::Publish };
                        Some(next(parked))
                    }
                    State::Queued => {
                        let parked_before = record.parked.as_ref();
                        let was_parked = |message| parked_before.is_some_and(|before| before.has(message));
                        world.queue.retain(|message| !was_parked(message.sequence));
                        let is_there = world.queue.iter().any(|message| message.attempt >= parked.attempt);
                        let next = if is_there { Self::Remove } else { Self::Publish };
                        Some(next(parked))
                    }
                    _ => Some(Self::Remove(parked)),
                }
            }
            Self::Publish(parked) => {
                if let Some(sequence) = world.store(MessageId::Unparking(parked.sequence)) {
                    let Parked { attempt, .. } = parked;
                    let message =
                        Message { sequence, attempt, unparked: true, num_delivered: 0, leased: false };
                    world.queue.push(message);
                }
                Some(Self::Remove(parked))
            }
            Self::Remove(parked) => {
                world.parked.retain(|other| other.sequence != parked.sequence);
                None
            }
        }
    }
}
