//! The place in its queue of a message whose task has ended, while what its end owes finds that queue full.
//!
//! A queue may hold nothing but such messages: each waits for room, and none makes any. So the first of these publishes that is refused has the
//! message acknowledged before them. What its record owes is noted beside it (`crate::broker::OwedNote`), so that a worker that dies then leaves it to the
//! sweeper.
//!
//! Invariants: no place is left that is not noted; only for a publish into the message's own queue, for room elsewhere would
//! not come of it.

use crate::broker::{Ack, Broker, Delivery};
use cardcage_protocol::{Name, TaskRecord};
use std::sync::atomic::{AtomicBool, Ordering};

/// One message's place.
#[derive(Debug)]
pub(super) struct Place<'a> {
    broker: &'a Broker,
    delivery: &'a Delivery,
    plugin: &'a Name,
    /// What is owed will be found without the message.
    is_noted: bool,
    is_left: AtomicBool,
}

impl<'a> Place<'a> {
    /// The place of this plugin's message, with the record that its task has.
    pub(super) fn new(
        broker: &'a Broker,
        delivery: &'a Delivery,
        plugin: &'a Name,
        record: Option<&TaskRecord>,
    ) -> Self {
        let is_noted = record.is_some_and(|record| record.state.is_final() && !record.follow_up.is_empty());
        Self { broker, delivery, plugin, is_noted, is_left: AtomicBool::new(false) }
    }

    /// Leaves it to what must go into this plugin's queue.
    pub(super) async fn leave_to(&self, plugin: &Name) {
        if !self.is_noted || plugin != self.plugin || self.is_left.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.broker.ack(self.delivery.ack_subject(), Ack::Done).await {
            self.is_left.store(false, Ordering::Release);
            tracing::debug!(%error, "an acknowledgement could not be sent; its place is not free yet");
        }
    }

    /// Whether the message is acknowledged.
    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }
}

/// What whoever pays does when a queue is full.
#[derive(Debug, Clone, Copy)]
pub(super) enum WhenFull<'a> {
    /// Gives up: there are others to pay, and another round.
    GiveUp,
    /// Waits for room, and leaves this place to it.
    Wait(&'a Place<'a>),
}
