//! The engine: started once per child, drained once.

use super::consumer;
use super::counters::TaskCounters;
use super::exhausted::Hook;
use super::find;
use super::held::{Held, HeldTasks};
use super::limits::TaskLimits;
use super::parked;
use super::payer::Payer;
use super::progress::ProgressReports;
use super::slots::Slots;
use super::staging::Staging;
use super::unit::{OneTask, Room, Shared, Unit};
use crate::broker::{Broker, Settling};
use crate::config::{Tasks, TimeScale};
use crate::crash::{Board, ENTRIES};
use crate::live_limits::AllLiveLimits;
use crate::loader::Plugin;
use crate::quarantine::Quarantines;
use crate::terms::Terms;
use cardcage_protocol::{InstanceId, Name, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The board's entries that tasks may take; the others are for calls.
const BOARD_SHARE: usize = ENTRIES / 4 * 3;
/// Outcomes under way at once, per plugin.
const ENDING_MAX: usize = 1024;
/// Part of a drain's grace that is kept for handing back.
const HAND_BACK_MAX: Duration = Duration::from_secs(1);
/// How often the consumers' state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while they do not: whoever waits for a worker waits for this.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the engine needs.
#[derive(Debug)]
pub struct TaskEngineOptions {
    /// The broker. Its lease is the tasks' lease.
    pub broker: Broker,
    /// Where attempts are noted.
    pub board: Board,
    /// This process, in records.
    pub instance: InstanceId,
    /// The plugins whose tasks are run.
    pub plugins: Vec<Arc<Plugin>>,
    /// The operator's limits.
    pub tasks: Tasks,
    /// Factor of waits between attempts.
    pub time_scale: TimeScale,
    /// Handlers at the same time, per plugin.
    pub task_concurrency: usize,
    /// At most so many for single plugins, by name.
    pub of_plugin: BTreeMap<String, usize>,
    /// Which plugins take no tasks.
    pub quarantines: Quarantines,
    /// What operators have set for tasks.
    pub live_limits: AllLiveLimits,
}

/// Runs durable tasks. Dropping it undrained stops pulling and leaves what runs to itself.
#[derive(Debug)]
pub struct TaskEngine {
    shared: Arc<Shared>,
    units: Vec<Arc<Unit>>,
    consumers: JoinSet<()>,
    /// Ends with the engine.
    helpers: JoinSet<()>,
    consuming: watch::Receiver<bool>,
}

impl TaskEngine {
    /// Starts consuming, and returns at once. Consumers and streams that are missing are created as soon as the broker
    /// can be reached.
    #[must_use]
    pub fn start(options: TaskEngineOptions) -> Self {
        let TaskEngineOptions {
            broker,
            board,
            instance,
            plugins,
            tasks,
            time_scale,
            task_concurrency,
            of_plugin,
            quarantines,
            live_limits,
        } = options;
        let lease = broker.options().lease;
        // The name is one, so the fallback is never taken.
        let unknown = InstanceId::new("unknown").unwrap_or_else(|_| instance.clone());
        let give_up = CancellationToken::new();
        let shared = Arc::new(Shared {
            payer: Payer { broker: broker.clone(), give_up: give_up.clone() },
            settling: Settling::new(lease, broker.link().generation),
            broker,
            board,
            instance,
            unknown,
            lease,
            cancel_grace: Duration::from_millis(tasks.cancel_grace_ms),
            held: HeldTasks::default(),
            counters: TaskCounters::default(),
            suspects: Semaphore::new(1),
            attempts: TaskTracker::new(),
            stop: CancellationToken::new(),
            give_up,
        });
        let (slots, ending) = capacity(task_concurrency, plugins.len());
        if slots < task_concurrency {
            tracing::warn!(
                slots,
                task_concurrency,
                "fewer tasks run at once than asked for: the board has no more room"
            );
        }
        let units: Vec<_> = plugins
            .iter()
            .flat_map(|plugin| {
                let own = of_plugin.get(&*plugin.identity.name).copied();
                let slots = own.map_or(slots, |own| own.min(slots));
                units(&shared, plugin, (&quarantines, &live_limits), (&tasks, time_scale), slots, ending)
            })
            .collect();
        let mut consumers = JoinSet::new();
        for unit in &units {
            consumers.spawn(consumer::consume(unit.clone()));
        }
        let mut helpers = JoinSet::new();
        helpers.spawn(find::answer(shared.clone()));
        helpers.spawn(find::cancel(shared.clone()));
        for unit in &units {
            helpers.spawn(parked::watch(unit.clone()));
        }
        let (sender, consuming) = watch::channel(false);
        helpers.spawn(look(shared.clone(), units.clone(), sender));
        Self { shared, units, consumers, helpers, consuming }
    }

    /// Whether every consumer has a live pull, now.
    #[must_use]
    pub fn consuming(&self) -> bool {
        is_consuming(&self.shared, &self.units)
    }

    /// The same, looked at four times a second while they do; short gaps do not show.
    #[must_use]
    pub fn watch_consuming(&self) -> watch::Receiver<bool> {
        self.consuming.clone()
    }

    /// What is known of a task, if this worker holds it.
    #[must_use]
    pub fn holds(&self, task: TaskId) -> Option<Held> {
        self.shared.held.get(task)
    }

    /// Where handlers' reports of progress go.
    #[must_use]
    pub fn progress_reports(&self) -> ProgressReports {
        ProgressReports(self.shared.clone())
    }

    /// Where the tasks go that handlers enqueue.
    #[must_use]
    pub fn staging(&self) -> Staging {
        Staging(self.shared.clone())
    }

    /// Tasks that are here.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.held.len()
    }

    /// Whether records are read before anything starts, as for a lease after a start or a reconnect.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.shared.settling.is_settling(self.shared.broker.link().generation)
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &TaskCounters {
        &self.shared.counters
    }

    /// Names of the tasks, with their plugins', for logs and the ready message.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.units.iter().map(|unit| (unit.room.name.as_str(), unit.name.as_str()))
    }

    /// Stops pulling at once, lets what runs finish, and before `grace` is over hands back the rest, recorded. Returns
    /// how many attempts were cut off. Takes no longer than `grace`, plus what it takes to drop a future.
    pub async fn drain(mut self, grace: Duration) -> usize {
        let end = Instant::now() + grace;
        let hand_back_at = end - HAND_BACK_MAX.min(grace / 4);
        let shared = self.shared.clone();
        let before = unfinished(&shared);
        shared.stop.cancel();
        let finished = async {
            while self.consumers.join_next().await.is_some() {}
            shared.attempts.close();
            shared.attempts.wait().await;
        };
        tokio::pin!(finished);
        if tokio::time::timeout_at(hand_back_at, &mut finished).await.is_err() {
            tracing::warn!(tasks = shared.held.len(), "tasks are cut off and handed back: the grace is over");
            shared.held.stop_all();
            if tokio::time::timeout_at(end, &mut finished).await.is_err() {
                shared.give_up.cancel();
                // Whoever only waits for the broker ends now; anything else is left behind.
                let _ = tokio::time::timeout(Duration::from_millis(100), &mut finished).await;
            }
        }
        self.helpers.abort_all();
        let left = u64::try_from(shared.held.len()).unwrap_or(u64::MAX);
        let cut_off = unfinished(&shared).saturating_sub(before).saturating_add(left);
        usize::try_from(cut_off).unwrap_or(usize::MAX)
    }
}

impl Drop for TaskEngine {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

fn unfinished(shared: &Shared) -> u64 {
    let counters = &shared.counters;
    counters.interrupted.load(Ordering::Relaxed).saturating_add(counters.given_up.load(Ordering::Relaxed))
}

/// Slots per plugin, and outcomes under way per plugin, such that all plugins' tasks find room on the board.
fn capacity(wanted: usize, plugins: usize) -> (usize, usize) {
    let budget = BOARD_SHARE / plugins.max(1);
    let ending = ENDING_MAX.min(budget / 3).max(1);
    (wanted.min(budget.saturating_sub(ending)).max(1), ending)
}

/// How many tasks of each plugin run at once, where `wanted` were asked for.
#[must_use]
pub fn slots_per_plugin(wanted: usize, plugins: usize) -> usize {
    capacity(wanted, plugins).0
}

fn units(
    shared: &Arc<Shared>,
    plugin: &Arc<Plugin>,
    (quarantines, live_limits): (&Quarantines, &AllLiveLimits),
    (settings, time_scale): (&Tasks, TimeScale),
    slots: usize,
    ending: usize,
) -> Vec<Arc<Unit>> {
    // The loader has checked the names.
    let Ok(name) = Name::new(&plugin.identity.name) else { return Vec::new() };
    let tasks = &plugin.description.tasks;
    let room = Arc::new(Room {
        plugin: plugin.clone(),
        gate: quarantines.gate(&name, &plugin.identity.version),
        name,
        slots: Slots::new(slots, &tasks.iter().map(|task| slots_of(task, slots)).collect::<Vec<_>>()),
        running: Semaphore::new(slots),
        running_max: u32::try_from(slots).unwrap_or(u32::MAX),
        ending: Semaphore::new(ending),
    });
    let unit = |(place, task): (usize, &crate::loader::TaskDescription)| {
        let (index, name) = (u32::try_from(place).ok()?, Name::new(&task.name).ok()?);
        let limits = TaskLimits::of(task, settings).scaled(time_scale);
        let live = live_limits.of(room.name.clone(), name.clone());
        let hook = hook_of(task, plugin);
        let schema = task.reader_hash(&plugin.identity.version);
        let of = OneTask { place, index, name, schema, limits, hook, live };
        Some(Arc::new(Unit::new(shared.clone(), room.clone(), of)))
    };
    tasks.iter().enumerate().filter_map(unit).collect()
}

/// What the plugin has run when this task is given up.
fn hook_of(task: &crate::loader::TaskDescription, plugin: &Plugin) -> Option<Hook> {
    let name = task.exhausted.as_deref()?;
    let hook = plugin.description.tasks.iter().find(|other| other.name == name)?;
    Some(Hook {
        task: Name::new(name).ok()?,
        terms: Terms::of(hook),
        version: plugin.identity.version.to_string(),
        major: plugin.identity.major,
    })
}

/// The most slots that a task may have at once.
fn slots_of(task: &crate::loader::TaskDescription, all: usize) -> usize {
    task.concurrency.and_then(|handlers| usize::try_from(handlers).ok()).unwrap_or(all).clamp(1, all.max(1))
}

fn is_consuming(shared: &Shared, units: &[Arc<Unit>]) -> bool {
    !shared.stop.is_cancelled() && shared.broker.connected() && units.iter().all(|unit| unit.is_consuming())
}

/// Publishes whether all consumers consume. One bad look may be a pull that is being replaced; two are not.
async fn look(shared: Arc<Shared>, units: Vec<Arc<Unit>>, sender: watch::Sender<bool>) {
    let mut bad_looks = 0;
    loop {
        bad_looks = if is_consuming(&shared, &units) { 0 } else { bad_looks + 1 };
        let consuming = bad_looks == 0 || (bad_looks == 1 && *sender.borrow());
        sender.send_if_modified(|known| std::mem::replace(known, consuming) != consuming);
        tokio::select! {
            () = tokio::time::sleep(if consuming { LOOK_EVERY } else { LOOK_AGAIN }) => {}
            () = sender.closed() => return,
        }
    }
}
