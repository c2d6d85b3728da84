//! One task of one plugin as the engine runs it, and what all of them share.

use super::counters::TaskCounters;
use super::exhausted::Hook;
use super::held::HeldTasks;
use super::limits::TaskLimits;
use super::payer::Payer;
use super::slots::Slots;
use crate::broker::{Broker, PullHealth, Settling};
use crate::crash::Board;
use crate::live_limits::OfTask;
use crate::loader::Plugin;
use crate::quarantine::Gate;
use cardcage_protocol::{InstanceId, Name};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What every task of the engine uses.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broker: Broker,
    pub(super) board: Board,
    pub(super) instance: InstanceId,
    /// Stands for workers that nobody knows.
    pub(super) unknown: InstanceId,
    pub(super) lease: Duration,
    /// Time a handler has after its task was cancelled.
    pub(super) cancel_grace: Duration,
    pub(super) held: HeldTasks,
    pub(super) counters: TaskCounters,
    pub(super) settling: Settling,
    /// For a task that may have crashed a worker: one at a time, so that the next crash has a culprit (see
    /// [`Unit::turn_alone`]).
    pub(super) suspects: Semaphore,
    /// The attempts.
    pub(super) attempts: TaskTracker,
    /// No more pulling.
    pub(super) stop: CancellationToken,
    /// Publishes what records owe.
    pub(super) payer: Payer,
    /// No more waiting for the broker.
    pub(super) give_up: CancellationToken,
}

/// What the tasks of one plugin share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) plugin: Arc<Plugin>,
    /// Closed while the plugin is quarantined.
    pub(super) gate: Gate,
    pub(super) name: Name,
    pub(super) slots: Slots,
    /// Handlers at the same time. Deliveries beyond it, which a reconnect may bring, wait here.
    pub(super) running: Semaphore,
    /// How many those are.
    pub(super) running_max: u32,
    /// Attempts whose outcome is being stored. A slot is free when its handler is done, so this bounds what a slow
    /// broker can pile up.
    pub(super) ending: Semaphore,
}

/// One task of one plugin.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) shared: Arc<Shared>,
    pub(super) room: Arc<Room>,
    /// Its place among the plugin's tasks.
    pub(super) place: usize,
    /// Its place as the boundary counts it.
    pub(super) index: u32,
    pub(super) name: Name,
    /// Hash of the schema of its body.
    pub(super) schema: String,
    pub(super) limits: TaskLimits,
    /// What is run when it is given up.
    pub(super) hook: Option<Hook>,
    /// What an operator has set over its limits.
    pub(super) live: OfTask,
    /// Slots that came back and are not yet asked for again.
    pub(super) returned: AtomicUsize,
    /// So many returned slots wake the consumer at once.
    pub(super) batch: AtomicUsize,
    pub(super) wake: Notify,
    /// Handlers at the same time, where the task declares it. Deliveries beyond it, which a reconnect may bring, wait.
    pub(super) running: Option<Semaphore>,
    /// Of each of its pulls; none while there is no pull.
    healths: Mutex<Vec<PullHealth>>,
}

/// What a unit is made for.
pub(super) struct OneTask {
    pub(super) place: usize,
    pub(super) index: u32,
    pub(super) name: Name,
    pub(super) schema: String,
    pub(super) limits: TaskLimits,
    pub(super) hook: Option<Hook>,
    pub(super) live: OfTask,
}

impl Unit {
    pub(super) fn new(shared: Arc<Shared>, room: Arc<Room>, task: OneTask) -> Self {
        let OneTask { place, index, name, schema, limits, hook, live } = task;
        let batch = AtomicUsize::new((room.slots.share(place) / 4).max(1));
        let handlers = limits.concurrency.and_then(|handlers| usize::try_from(handlers).ok());
        Self {
            shared,
            room,
            place,
            index,
            name,
            schema,
            limits,
            hook,
            live,
            returned: AtomicUsize::new(0),
            batch,
            wake: Notify::new(),
            running: handlers.map(Semaphore::new),
            healths: Mutex::default(),
        }
    }

    pub(super) fn set_healths(&self, healths: Vec<PullHealth>) {
        *self.healths.lock().unwrap_or_else(PoisonError::into_inner) = healths;
    }

    /// Whether the broker would deliver this task, in all its priorities.
    pub(super) fn is_consuming(&self) -> bool {
        // One that is to take nothing does all that it should.
        if self.room.gate.is_closed() {
            return true;
        }
        let healths = self.healths.lock().unwrap_or_else(PoisonError::into_inner);
        !healths.is_empty() && healths.iter().all(PullHealth::is_consuming)
    }

    /// The right to run a handler now; `None`: it must wait.
    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        let task = match &self.running {
            Some(running) => Some(running.try_acquire().ok()?),
            None => None,
        };
        Some(Turn { room: self.room.running.try_acquire().ok()?, _task: task, suspect: None })
    }

    /// Waits for the right to run a handler.
    pub(super) async fn turn(&self) -> Option<Turn<'_>> {
        // The task's own first: what waits for it must not hold up the plugin's other tasks. Neither is ever closed.
        let task = self.turn_of_task().await?;
        Some(Turn { room: self.room.running.acquire().await.ok()?, _task: task, suspect: None })
    }

    /// Waits for the right to run a task that may have crashed a worker: no other such task runs beside it, and nothing else of
    /// its plugin, unless that takes longer than a lease. What is delivered meanwhile waits.
    pub(super) async fn turn_alone(&self) -> Option<Turn<'_>> {
        let suspect = self.shared.suspects.acquire().await.ok()?;
        let alone = async {
            let task = self.turn_of_task().await?;
            // The semaphore is fair: who comes later does not get in between.
            let room = self.room.running.acquire_many(self.room.running_max).await.ok()?;
            Some(Turn { room, _task: task, suspect: None })
        };
        let turn = match tokio::time::timeout(self.shared.lease, alone).await {
            Ok(turn) => turn?,
            Err(_) => self.turn().await?,
        };
        Some(Turn { suspect: Some(Box::new(suspect)), ..turn })
    }

    async fn turn_of_task(&self) -> Option<Option<SemaphorePermit<'_>>> {
        match &self.running {
            Some(running) => running.acquire().await.ok().map(Some),
            None => Some(None),
        }
    }

    /// A slot for one delivery. `counted`: it was part of this task's share.
    pub(super) fn slot(self: &Arc<Self>, counted: bool) -> Slot {
        Slot(counted.then(|| self.clone()))
    }
}

/// The right to run a handler.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    room: SemaphorePermit<'a>,
    _task: Option<SemaphorePermit<'a>>,
    /// Boxed, for turns wait while handlers run, and hardly any is a suspect's.
    suspect: Option<Box<SemaphorePermit<'a>>>,
}

impl Turn<'_> {
    /// Whether it is a suspect's.
    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// Lets others of the plugin run beside it.
    pub(super) fn admit_others(&mut self) {
        drop(self.room.split(self.room.num_permits().saturating_sub(1)));
    }
}

/// A delivery's slot; dropping it gives the slot back.
#[derive(Debug)]
pub(super) struct Slot(Option<Arc<Unit>>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(unit) = &self.0 else { return };
        let returned = unit.returned.fetch_add(1, Ordering::AcqRel) + 1;
        // The first one starts the consumer's short wait for more; a batch ends it.
        if returned == 1 || returned == unit.batch.load(Ordering::Relaxed) {
            unit.wake.notify_one();
        }
    }
}
