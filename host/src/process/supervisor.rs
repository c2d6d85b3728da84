//! Keeps one child alive, and answers for the dead.
//!
//! ```text
//!            ┌─────────── backoff ◀── died, no plugin to blame ──┐
//!            ▼                                                   │
//!        starting ── ready ──▶ serving ── died: aftermath ───────┘
//!         │  │ ▲                   │
//!         │  │ └ died loading P: P is refused, next child without it (P required: exit 70)
//!         │  └── failed(code): exit code
//!         └────────┬───────────────┘
//!        first signal ▼
//!              draining ── ended: exit 0 │ grace exceeded or second signal: exit 75
//! ```
//!
//! Invariants: one child at a time; while a handler holds a thread for ever, a second one until the first has
//! drained. A dead child's board is read and emptied before the next child
//! starts. A plugin that took a child down while loading is never loaded again by this supervisor.

use super::backoff::Backoff;
use super::control::{Excluded, LoadedPlugin, Phase, Refusal, Role, Start};
use super::grave::Grave;
use super::life::{Ending, Lived, Outcome, Setting, live};
use super::overdue::Overdue;
use super::retiree::Retiree;
use super::spawn::Spawn;
use super::status::{ChildMetrics, Handle, Snapshot, Stage, Status};
use super::{Death, Fate, Shutdown};
use crate::crash::{Board, Entry};
use crate::exit::Exit;
use crate::loader::Code;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long the aftermath may hold up the next child.
pub(super) const AFTERMATH_MAX: Duration = Duration::from_secs(5);
/// So many starts in a row may fail with no plugin to blame.
const FAILED_STARTS_MAX: u32 = 5;

/// What is owed to others when a child has died: an answer for each call, the return of each task.
pub trait Aftermath: Send + Sync {
    /// Called once for each child that died while serving or left entries behind, with what its death means for each.
    /// `plugins` are those that it had loaded. It is given five seconds, during which no new child starts.
    fn child_died(
        &self,
        remains: Vec<(Entry, Fate)>,
        plugins: Vec<LoadedPlugin>,
        how: Death,
    ) -> BoxFuture<'_, ()>;

    /// Called for a task that holds its thread past its limit where its child cannot give it up. The child is replaced.
    fn overran(&self, task: Entry) -> BoxFuture<'_, ()>;
}

/// What a supervisor is given.
pub struct SupervisorOptions {
    /// What the host is for.
    pub role: Role,
    /// The instance's name.
    pub instance: String,
    /// The resolved settings, for the child.
    pub settings: serde_json::Value,
    /// How long a drain may take.
    pub grace: Duration,
    /// How long each step of loading a plugin may take.
    pub load_timeout: Duration,
    /// The bound HTTP listener of an API; it stays open between two children.
    pub listener: Option<OwnedFd>,
    /// A board for the child, and one for its successor while both live; created by the caller, who needs them for the
    /// leases too.
    pub boards: [Board; 2],
    /// Names of the plugins without which the host must not serve.
    pub required: BTreeSet<String>,
    /// Answers for the dead.
    pub hooks: Arc<dyn Aftermath>,
    /// Starts the children; [`super::SelfExecutable`] outside tests.
    pub spawn: Arc<dyn Spawn>,
}

/// What follows from the end of a child.
enum Next {
    Exit(Exit),
    AtOnce,
    AfterPause,
}

/// Keeps one child alive.
pub struct Supervisor {
    options: SupervisorOptions,
    status: Status,
    metrics: ChildMetrics,
    metrics_requests: mpsc::Receiver<oneshot::Sender<String>>,
    /// Plugins that took a child down while loading.
    banned: Vec<Refusal>,
    /// Which of the boards the child has.
    board: usize,
    /// The child before, which is on its way out.
    retiring: Option<JoinHandle<()>>,
    /// Tells it that the present one serves.
    successor: Option<oneshot::Sender<()>>,
    /// When a child may be replaced again.
    replaceable: Instant,
    replacing: Backoff,
}

impl Supervisor {
    /// A supervisor that has not started yet.
    #[must_use]
    pub fn new(options: SupervisorOptions) -> Self {
        let status = Status::new(options.role, options.instance.clone());
        let (metrics, metrics_requests) = ChildMetrics::channel();
        Self {
            options,
            status,
            metrics,
            metrics_requests,
            banned: Vec::new(),
            board: 0,
            retiring: None,
            successor: None,
            replaceable: Instant::now(),
            replacing: Backoff::default(),
        }
    }

    /// What the admin listener needs to know.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { status: self.status.clone(), metrics: self.metrics.clone() }
    }

    /// Keeps a child alive until a stop is asked for or nothing more can be done; says how to exit.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let exit = self.generations(&mut shutdown).await;
        // Nobody follows any more: what is retiring drains now, if it does not yet.
        self.successor = None;
        if let Some(retiring) = self.retiring.take() {
            let _ = retiring.await;
        }
        self.status.update(|now| {
            now.status = Stage::Ended;
            now.child_pid = None;
        });
        exit
    }

    async fn generations(&mut self, shutdown: &mut Shutdown) -> Exit {
        let mut backoff = Backoff::default();
        let mut failed_starts = 0;
        while !shutdown.requested() {
            let ended = self.live_once(shutdown).await;
            failed_starts = match ended.as_ref().map(|lived| &lived.ending) {
                None | Some(Ending::Starting) => failed_starts + 1,
                Some(_) => 0,
            };
            if failed_starts >= FAILED_STARTS_MAX {
                tracing::error!(failed_starts, "no child gets as far as serving; giving up");
                return Exit::Unexpected;
            }
            let alive = ended.as_ref().map_or(Duration::ZERO, |lived| lived.alive);
            let pause = match self.verdict(ended) {
                Next::Exit(exit) => return exit,
                Next::AtOnce => Duration::ZERO,
                Next::AfterPause => backoff.after(alive),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => self.status.update(|now| now.restarts += 1),
                () = shutdown.drain() => {}
            }
        }
        Exit::Success
    }

    /// What follows from the end of a child.
    fn verdict(&mut self, ended: Option<Lived>) -> Next {
        let Some(Lived { ending, death, .. }) = ended else { return Next::AfterPause };
        match ending {
            Ending::Stopped(exit) => Next::Exit(exit),
            Ending::Incomplete => Next::Exit(Exit::PluginRefused),
            Ending::Failed { exit_code, message, retry: false } => {
                tracing::error!(exit_code, reason = message, "the child cannot start");
                Next::Exit(Exit::from_code(exit_code.into()).unwrap_or(Exit::Unexpected))
            }
            Ending::Failed { message, retry: true, .. } => {
                tracing::warn!(reason = message, "the child cannot start; trying again");
                Next::AfterPause
            }
            Ending::Loading(phase) if self.ban(&phase, &death) => Next::Exit(Exit::PluginRefused),
            // The culprit is known and out: no reason to wait.
            Ending::Loading(_) => Next::AtOnce,
            Ending::Starting => {
                tracing::error!(how = %death, "the child died before it served");
                Next::AfterPause
            }
            Ending::Serving => Next::AfterPause,
            Ending::Replaced => Next::AtOnce,
        }
    }

    /// One child's life and what follows at once from its end; `None` when none could be started.
    async fn live_once(&mut self, shutdown: &Shutdown) -> Option<Lived> {
        let start = self.start();
        // While the one before serves, so does the host.
        if self.retiring.as_ref().is_none_or(JoinHandle::is_finished) {
            (self.retiring, self.successor) = (None, None);
            self.status.update(|now| renew(now, &self.banned));
        }
        let board = self.board();
        let mut setting = Setting {
            spawn: &*self.options.spawn,
            board,
            listener: &mut self.options.listener,
            grace: self.options.grace,
            load_timeout: self.options.load_timeout,
            required: &self.options.required,
            status: &self.status,
            metrics: &mut self.metrics_requests,
            successor: &mut self.successor,
            // Inline handlers of an API have no limit, and are on no board.
            replaceable: (self.options.role == Role::Worker).then_some(self.replaceable),
            retiring: self.retiring.as_ref(),
        };
        match live(&mut setting, start, shutdown).await {
            Ok(Outcome::Retired(retiree, overdue)) => Some(self.retire(*retiree, overdue, shutdown).await),
            Ok(Outcome::Ended(lived)) => {
                self.status.update(|now| {
                    now.child_pid = None;
                    if now.status == Stage::Serving {
                        now.status = Stage::Starting;
                    }
                });
                self.grave(board).bury(&lived).await;
                Some(lived)
            }
            Err(error) => {
                tracing::error!(%error, "no child can be started");
                None
            }
        }
    }

    fn start(&self) -> Start {
        let options = &self.options;
        Start {
            role: options.role,
            instance: options.instance.clone(),
            settings: options.settings.clone(),
            grace_ms: u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX),
            excluded: self
                .banned
                .iter()
                .map(|one| Excluded { plugin: one.plugin.clone(), reason: one.message.clone() })
                .collect(),
        }
    }

    /// The present child's board.
    fn board(&self) -> Board {
        let [first, second] = self.options.boards;
        if self.board == 0 { first } else { second }
    }

    fn grave(&self, board: Board) -> Grave {
        let (hooks, plugins) = (self.options.hooks.clone(), self.status.snapshot().plugins);
        Grave { board, hooks, plugins, status: self.status.clone() }
    }

    /// Sends a child away that a handler holds up; another one takes its place first.
    async fn retire(&mut self, retiree: Retiree, overdue: Overdue, shutdown: &Shutdown) -> Lived {
        let Overdue { entry, is_held } = overdue;
        tracing::error!(
            plugin = entry.plugin,
            name = entry.name,
            id = %uuid::Uuid::from_bytes(entry.id),
            "a handler holds its thread past its time limit; the child is replaced"
        );
        if is_held && entry.kind.is_task() {
            let hooks = self.options.hooks.overran(entry);
            if tokio::time::timeout(AFTERMATH_MAX, hooks).await.is_err() {
                tracing::error!("a task that is over its limit could not be handed back; its lease runs out");
            }
        }
        let alive = retiree.born.elapsed();
        let (sender, successor) = oneshot::channel();
        let (grave, shutdown) = (self.grave(self.board()), shutdown.clone());
        self.successor = Some(sender);
        self.retiring = Some(tokio::spawn(async move {
            let (death, alive) = retiree.run(successor, shutdown).await;
            tracing::info!(how = %death, "the child that was replaced has ended");
            grave.bury(&Lived { ending: Ending::Replaced, death, alive }).await;
        }));
        self.board = 1 - self.board;
        self.replaceable = Instant::now() + self.replacing.after(alive);
        Lived { ending: Ending::Replaced, death: Death::Killed("was replaced"), alive }
    }

    /// Refuses a plugin that took a child down; true when the host cannot do without it.
    fn ban(&mut self, phase: &Phase, death: &Death) -> bool {
        let refusal = refusal(phase, death, self.options.load_timeout, &self.options.required);
        tracing::error!(
            plugin = refusal.plugin,
            file = refusal.file,
            code = refusal.code,
            reason = refusal.message,
            "a plugin was refused"
        );
        let required = refusal.required;
        self.status.update(|now| now.refuse(refusal.clone()));
        // A child that loads what it was told to leave out would go round for ever.
        let again = self.banned.iter().any(|one| one.plugin == refusal.plugin);
        if again {
            tracing::error!(
                plugin = refusal.plugin,
                "a child loaded what it was told to leave out; giving up"
            );
        }
        self.banned.push(refusal);
        required || again
    }
}

/// The status at the start of a child's life.
fn renew(now: &mut Snapshot, banned: &[Refusal]) {
    now.status = Stage::Starting;
    now.consuming = (now.role == Role::Worker).then_some(false);
    now.refused = banned.to_vec();
    now.degraded.clear();
    now.plugins.clear();
    now.bound.clear();
}

/// The refusal of a plugin that took its child down while loading: the same codes and sentences as `check` has.
fn refusal(phase: &Phase, death: &Death, limit: Duration, required: &BTreeSet<String>) -> Refusal {
    let Phase { plugin, file, step, .. } = phase;
    let (code, fault, remedy) = match death {
        Death::Exited(code) => (
            Code::Died,
            format!("called exit({code}) in its {step}"),
            "a plugin must return an error instead of ending the process",
        ),
        Death::Signalled(name) => (
            Code::Died,
            format!("died of {name} in its {step}"),
            "mend the plugin; its last words may stand above",
        ),
        Death::OutOfMemory => (
            Code::Died,
            format!("was ended by the kernel in its {step}, because memory ran out"),
            "give the host more memory, or the plugin less to do",
        ),
        Death::Killed(_) => (
            Code::Hung,
            format!("hung in its {step}: it did not return within {} ms", limit.as_millis()),
            "make it faster or raise `loading.timeout_ms`",
        ),
    };
    Refusal {
        plugin: plugin.clone(),
        file: file.clone(),
        code: code.as_str().to_owned(),
        message: format!("{file}: {fault}; {remedy}"),
        required: required.contains(plugin),
    }
}
