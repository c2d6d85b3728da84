//! A delivery that is here and not started: what it waits for, and where it stands meanwhile.
//!
//! Invariants: from its first wait to its end it is on the board without a gap, so that a child that dies costs it no lease. It is
//! off the board before it is somebody else's: what is on the board of a child that dies is answered for as its own.

use super::arrival::{self, Meeting};
use super::attempt::Delivered;
use super::counters::bump;
use super::held::{Hold, Holding, Message, Signal};
use super::note::Note;
use super::plan::Write;
use super::unit::Turn;
use crate::broker::Ack;
use crate::crash::Claim;
use cardcage_protocol::{State, TaskRecord};
use tokio::time::Instant;

impl Delivered<'_> {
    /// What to do with a delivery whose task is `here` already: enters it after that one, on the board as waiting, or deals with
    /// it and answers `None`.
    pub(super) async fn enter_after(&self, here: Message) -> Option<(Hold<'_>, Option<Box<Claim>>)> {
        let (shared, envelope, delivery) = (&*self.unit.shared, self.envelope, self.delivery);
        let message = self.message();
        match arrival::meet(envelope, message, here) {
            Meeting::Again => {
                // Its lease went unrenewed while the broker was away. The attempt under way acknowledges both.
                tracing::info!(task = %envelope.id, "a task that is held here was delivered again");
                return None;
            }
            Meeting::Copy => {
                // The message that is here stays with the broker until the task has had its outcome.
                tracing::info!(task = %envelope.id, "a second message of a task that is held here was dropped");
                shared.acknowledge(delivery, Ack::Done).await;
                return None;
            }
            Meeting::Next => {}
        }
        // The next message, while the last writes of this one are under way: on the board, so that it costs no lease. The
        // record says what is left to do.
        let mut waiting = None;
        self.note_waiting(&mut waiting).await;
        let hold = tokio::select! {
            biased;
            hold = shared.held.enter_next(envelope.id, message, || self.unit.now()) => Some(hold),
            () = shared.stop.cancelled() => None,
        };
        if hold.is_some() {
            return hold.map(|hold| (hold, waiting));
        }
        // Before it is somebody else's.
        drop(waiting);
        bump(&shared.counters.handed_back);
        shared.acknowledge(delivery, Ack::HandBack).await;
        None
    }

    /// On the board from here on, where there is room for it: for what takes a moment, and nobody waits for room longer than for that.
    fn note_shortly(&self, waiting: &mut Option<Box<Claim>>) {
        if waiting.is_none() {
            let noted = self.unit.try_claim(self.delivery, Note::waiting(self.envelope));
            *waiting = noted.ok().flatten().map(Box::new);
        }
    }

    /// On the board from here on, if it was not yet: reading and writing take long while the broker is away, and the lease runs.
    /// Boxed, for attempts have room for it while their handlers run.
    pub(super) async fn note_waiting(&self, waiting: &mut Option<Box<Claim>>) {
        if waiting.is_none() {
            let noted = self.unit.claim(self.delivery, Note::waiting(self.envelope)).await;
            *waiting = noted.ok().flatten().map(Box::new);
        }
    }

    /// The turn of the serial key; see [`super::unit::Shared::turns`].
    pub(super) async fn take_turn(&self, waiting: &mut Option<Box<Claim>>) -> Option<u64> {
        self.note_shortly(waiting);
        self.unit.shared.turns(self.envelope, self.delivery, waiting).await
    }

    /// More deliveries came than there are slots: waits, on the board so that the lease is renewed, unless a signal
    /// comes first.
    pub(super) async fn wait_for_turn(
        &self,
        waiting: &mut Option<Box<Claim>>,
        holding: &Holding,
    ) -> Result<Turn<'_>, Signal> {
        self.note_waiting(waiting).await;
        tokio::select! {
            biased;
            () = self.unit.shared.stop.cancelled() => Err(Signal::Stopped),
            signal = holding.signalled() => Err(signal),
            turn = self.unit.turn() => turn.ok_or(Signal::Stopped),
        }
    }

    /// The turn of a task that may have crashed a worker, unless a signal comes first.
    pub(super) async fn turn_alone(&self, holding: &Holding) -> Result<Box<Turn<'_>>, Signal> {
        tokio::select! {
            biased;
            () = self.unit.shared.stop.cancelled() => Err(Signal::Stopped),
            turn = self.unit.turn_alone() => turn.map(Box::new).ok_or(Signal::Stopped),
            signal = holding.signalled() => Err(signal),
        }
    }

    /// Gives a delivery that was not started to somebody else, now. It is no attempt, and the record says that it is no
    /// loss either.
    pub(super) async fn hand_back(
        self,
        mut waiting: Option<Box<Claim>>,
        record: Option<TaskRecord>,
        fence: u64,
    ) {
        self.note_shortly(&mut waiting);
        let shared = &*self.unit.shared;
        let mut record = record.unwrap_or_else(|| TaskRecord::new(self.envelope, State::Queued));
        record.handed_back = record.handed_back.saturating_add(1);
        let until = Instant::now() + shared.lease / 3;
        if shared.write(&mut Write { record, fence, ttl: None }, until).await.is_err() {
            tracing::debug!(task = %self.envelope.id, "a delivery is handed back without a word in its record");
        }
        // Before it is somebody else's.
        drop(waiting);
        bump(&shared.counters.handed_back);
        shared.acknowledge(self.delivery, Ack::HandBack).await;
    }
}
