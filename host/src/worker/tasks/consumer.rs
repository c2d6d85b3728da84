//! One task's standing pull: it asks for deliveries as slots become free, and starts an attempt for each.
//!
//! # Invariants
//! * The loop does nothing but hand over: decoding, reading and running happen in the attempt.
//! * Slots are asked for again in batches: when a quarter of them is free, or a moment after the first.
//! * At the end nothing that was delivered is lost: what has arrived is started, as it has a slot.

use super::attempt;
use super::meter::Meter;
use super::unit::Unit;
use crate::broker::{ConsumerSpec, Delivery, Intake};
use crate::live_limits::InForce;
use crate::quarantine::Gate;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long a free slot waits for company before it is asked for.
const LINGER: Duration = Duration::from_millis(1);
/// How often a task looks whether its slots are wanted by others.
const REBALANCE_EVERY: Duration = Duration::from_millis(500);

struct Consumer {
    unit: Arc<Unit>,
    intake: Intake,
    specs: Vec<ConsumerSpec>,
    /// Slots that the pull may fill, with those that wait for a start.
    demand: usize,
    /// Where the task has a rate.
    meter: Option<Meter>,
    /// Slots of the demand that wait for a start.
    waiting: usize,
    /// Deliveries that came without one, to be paid for from the next: lanes may give more than was asked for.
    debt: usize,
}

/// Consumes until the engine stops, but for the times in which the plugin is quarantined. What an operator sets for the task
/// is taken up by beginning anew.
pub(super) async fn consume(unit: Arc<Unit>) {
    let mut gate = unit.room.gate.clone();
    let mut demand = unit.room.slots.share(unit.place);
    while !unit.shared.stop.is_cancelled() {
        tokio::select! {
            biased;
            () = unit.shared.stop.cancelled() => return,
            () = gate.opened() => {}
        }
        // Before anything is taken: a task's expiry, and a start's time, are the broker's and not this machine's.
        tokio::select! {
            biased;
            () = unit.shared.stop.cancelled() => return,
            () = unit.shared.broker.wait_for_time() => {}
        }
        let Some(left) = consume_while_open(&unit, demand, &mut gate).await else { return };
        demand = left;
    }
}

/// `demand`: the slots that nothing has yet; answers how many there are in the end. `None`: there is nothing to consume.
async fn consume_while_open(unit: &Arc<Unit>, demand: usize, gate: &mut Gate) -> Option<usize> {
    let set = unit.live.now();
    if set != InForce::default() {
        let (plugin, task) = (unit.room.name.as_str(), unit.name.as_str());
        let (rate, max_running) = (set.rate.map(|rate| rate.to_string()), set.max_running);
        tracing::info!(plugin, task, rate, max_running, "an operator has set a task's limits");
    }
    let specs = specs(unit, set);
    let intake = Intake::new(&unit.shared.broker, &specs)?;
    let meter = set.rate.or(unit.limits.rate).map(Meter::new);
    let mut consumer = Consumer { intake, unit: unit.clone(), specs, demand: 0, meter, waiting: 0, debt: 0 };
    unit.set_healths(consumer.intake.healths());
    consumer.ask(demand);
    consumer.run(gate, set).await;
    let Consumer { unit, intake, mut demand, .. } = consumer;
    for delivery in intake.close().await {
        // Where the plugin is quarantined, each is handed back as it is about to start.
        start(&unit, delivery, &mut demand);
    }
    Some(demand)
}

/// The task's consumers as they must be now.
fn specs(unit: &Unit, set: InForce) -> Vec<ConsumerSpec> {
    let (broker, identity, priorities) =
        (&unit.shared.broker, &unit.room.plugin.identity, unit.limits.priorities);
    let (options, subjects) = (broker.options(), broker.subjects());
    let specs =
        ConsumerSpec::of_task(options, subjects, &unit.room.name, identity.major, &unit.name, priorities);
    // Several consumers cannot keep one cap; whoever sets one is told so.
    let set = set.max_running.filter(|_| !priorities);
    let declared = |spec: ConsumerSpec| match set {
        Some(max_running) => spec.set_by_operator(max_running),
        None => spec.declared(&identity.version, unit.limits.max_running),
    };
    specs.into_iter().map(declared).collect()
}

/// Waits for starts; without a meter, for ever.
async fn starts(meter: &mut Option<Meter>, unit: &Arc<Unit>, wish: usize) -> usize {
    match meter {
        Some(meter) => meter.starts(unit, wish).await,
        None => std::future::pending().await,
    }
}

fn start(unit: &Arc<Unit>, delivery: Delivery, demand: &mut usize) {
    let counted = *demand > 0;
    *demand = demand.saturating_sub(1);
    let attempt = attempt::run(unit.clone(), delivery, unit.slot(counted));
    unit.shared.attempts.spawn(attempt);
}

impl Consumer {
    /// Until the engine stops, the gate closes, or something else is set than `set`.
    async fn run(&mut self, gate: &mut Gate, set: InForce) {
        let unit = self.unit.clone();
        let (stopped, closed) = (unit.shared.stop.cancelled(), gate.closed());
        let mut live = unit.live.clone();
        let changed = live.changed_from(set);
        tokio::pin!(stopped, closed, changed);
        let alone = unit.room.slots.is_unshared();
        let mut linger_until: Option<Instant> = None;
        let mut rebalance_at = Instant::now() + REBALANCE_EVERY;
        while !unit.shared.stop.is_cancelled() {
            let wake_at =
                linger_until.map_or(rebalance_at, |at| if alone { at } else { at.min(rebalance_at) });
            let wish = self.wish();
            tokio::select! {
                biased;
                starts = starts(&mut self.meter, &unit, wish), if wish > 0 => self.grant(starts),
                delivery = self.intake.next() => self.start(delivery),
                () = unit.wake.notified() => {}
                () = unit.room.slots.freed(), if !alone => {}
                () = tokio::time::sleep_until(wake_at), if !alone || linger_until.is_some() => {}
                () = &mut stopped => return,
                () = &mut closed => return,
                () = &mut changed => return,
            }
            let returned = unit.returned.load(Ordering::Acquire);
            let now_due = linger_until.is_some_and(|at| at <= Instant::now());
            if returned >= unit.batch.load(Ordering::Relaxed) || (returned > 0 && now_due) {
                linger_until = None;
                let free = unit.returned.swap(0, Ordering::AcqRel);
                self.reuse(free);
            } else if returned > 0 && linger_until.is_none() {
                linger_until = Some(Instant::now() + LINGER);
            } else if returned == 0 {
                linger_until = None;
            }
            if alone {
                continue;
            }
            if self.demand == 0 {
                self.grow();
            }
            if rebalance_at <= Instant::now() {
                rebalance_at = Instant::now() + REBALANCE_EVERY;
                self.shrink().await;
            }
        }
    }

    fn ask(&mut self, slots: usize) {
        self.demand += slots;
        match self.meter {
            Some(_) => self.waiting += slots,
            None => self.intake.add_demand(slots),
        }
    }

    fn start(&mut self, delivery: Delivery) {
        let unpaid = self.meter.is_some() && self.demand <= self.waiting;
        start(&self.unit, delivery, &mut self.demand);
        if unpaid {
            (self.waiting, self.debt) = (self.waiting.min(self.demand), self.debt + 1);
        }
    }

    /// Starts that are wanted now.
    fn wish(&self) -> usize {
        let in_hand = self.demand.saturating_sub(self.waiting);
        self.meter.as_ref().map_or(0, |meter| meter.wish(self.waiting, in_hand))
    }

    /// So many slots may be filled now.
    fn grant(&mut self, starts: usize) {
        let paid = starts.min(self.debt);
        self.debt -= paid;
        let starts = (starts - paid).min(self.waiting);
        self.waiting -= starts;
        self.intake.add_demand(starts);
    }

    /// Asks for free slots again, or leaves them to others that wait.
    fn reuse(&mut self, free: usize) {
        let (slots, place) = (&self.unit.room.slots, self.unit.place);
        let over = slots.excess(place).min(free);
        if over > 0 {
            slots.give(place, over);
            self.set_batch();
        }
        self.ask(free - over);
    }

    /// All slots are busy: there may be more to do.
    fn grow(&mut self) {
        let (slots, place) = (&self.unit.room.slots, self.unit.place);
        let share = slots.share(place);
        let more = slots.take(place, share.max(1));
        if more > 0 {
            self.set_batch();
            self.ask(more);
        }
    }

    /// A quarter of the share.
    fn set_batch(&self) {
        let share = self.unit.room.slots.share(self.unit.place);
        self.unit.batch.store((share / 4).max(1), Ordering::Relaxed);
    }

    /// Slots that a standing request reserves in vain are wanted by others: the request must go, and a smaller one
    /// takes its place. What had already been delivered is started.
    async fn shrink(&mut self) {
        let unit = self.unit.clone();
        let (slots, place) = (&unit.room.slots, unit.place);
        let over = slots.excess(place).min(self.demand);
        if over == 0 {
            return;
        }
        let Some(fresh) = Intake::new(&unit.shared.broker, &self.specs) else { return };
        let old = std::mem::replace(&mut self.intake, fresh);
        unit.set_healths(self.intake.healths());
        for delivery in old.close().await {
            start(&unit, delivery, &mut self.demand);
        }
        let over = over.min(self.demand);
        slots.give(place, over);
        self.demand -= over;
        self.waiting = self.waiting.saturating_sub(over);
        self.intake.add_demand(self.demand.saturating_sub(self.waiting));
        self.set_batch();
    }
}
