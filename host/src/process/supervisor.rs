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
//! Invariants: one child at a time; while a handler holds a thread for ever, or the host takes over a new plugin set
//! (`reload`), a second one until the first has drained. A dead child's board is read and emptied before the next child
//! starts. A plugin that took a child down while loading, or the process that asked it what it declares, is never loaded again by
//! this supervisor, unless a reload asks for it.

mod verdict;

use super::aftermath::Aftermath;
use super::backoff::Backoff;
use super::connected::Connected;
use super::control::{Error, Refusal, Role, ToChild};
use super::crash_loops::CrashLoops;
use super::grave::Grave;
use super::held::Shelf;
use super::life::{Ending, Lived, Outcome, Setting, live, live_on};
use super::reload::{Means, Plan, Reloading, Reloads, Risen};
use super::replacement::{self, Why};
use super::retiree::{Retiree, send_away};
use super::spawn::{Process, Spawn};
use super::started::Started;
use super::status::{ChildMetrics, DutyMetrics, Handle, Stage, Status};
use super::{CrashReport, Death, Seat, Shutdown};
use crate::crash::Board;
use crate::exit::Exit;
use crate::loader::Code;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;
use verdict::Next;

/// So many starts in a row may fail with no plugin to blame.
const FAILED_STARTS_MAX: u32 = 5;

/// Longest that a child which has come up waits until the one before accepts no more: no caller waits longer because of one that
/// is frozen. Should that come to itself, it may accept some more before it reads its order.
pub(super) const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What a supervisor is given.
pub struct SupervisorOptions {
    /// What the host is for.
    pub role: Role,
    /// The instance's name.
    pub instance: String,
    /// Which process of which worker group it has.
    pub seat: Option<Seat>,
    /// What the configuration says.
    pub plan: Plan,
    /// The bound HTTP listener of an API; it stays open between two children.
    pub listener: Option<OwnedFd>,
    /// A board for the child, and one for its successor while both live; created by the caller, who needs them for the
    /// leases too.
    pub boards: [Board; 2],
    /// Answers for the dead.
    pub hooks: Arc<dyn Aftermath>,
    /// Starts the children; [`super::SelfExecutable`] outside tests.
    pub spawn: Arc<dyn Spawn>,
    /// Where the host's supervisors hold libraries.
    pub shelf: Shelf,
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
    reloading: Reloading,
    reloads: Reloads,
    loops: CrashLoops,
    /// Bring back what was left out.
    returning: JoinSet<()>,
}

impl Supervisor {
    /// A supervisor that has not started yet.
    #[must_use]
    pub fn new(options: SupervisorOptions) -> Self {
        let status = Status::new(options.role, options.instance.clone());
        status.update(|now| now.seat.clone_from(&options.seat));
        let (metrics, metrics_requests) = ChildMetrics::channel();
        let means = Means {
            role: options.role,
            instance: options.instance.clone(),
            seat: options.seat.clone(),
            spawn: options.spawn.clone(),
            hooks: options.hooks.clone(),
        };
        let [_, second] = options.boards;
        let (reloads, reloading) = Reloading::new(means, second, options.plan.clone(), options.shelf.clone());
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
            reloading,
            reloads,
            loops: CrashLoops::default(),
            returning: JoinSet::new(),
        }
    }

    /// Which process of which worker group it has.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        self.options.seat.clone()
    }

    /// Where another plugin set is handed in.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloads.clone()
    }

    /// What the admin listener needs to know.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { status: self.status.clone(), metrics: self.metrics.clone(), duties: DutyMetrics::default() }
    }

    /// Keeps a child alive until a stop is asked for or nothing more can be done; says how to exit.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let exit = self.generations(&mut shutdown).await;
        // One that comes up for nobody goes as it came.
        if let Some(risen) = self.reloading.outcome().await {
            let board = self.reloading.board;
            let (hooks, status) = (self.options.hooks.clone(), self.status.clone());
            let grave = Grave { board, hooks, status };
            send_away(risen.child, &risen.plan, grave, shutdown.clone(), None).await;
        }
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
        let mut risen = None;
        // One that has come up is followed, and drained as the host's, also where a stop was asked for since.
        while risen.is_some() || !shutdown.requested() {
            let ended = self.live_once(risen.take(), shutdown).await;
            failed_starts = match ended.as_ref().map(|lived| &lived.ending) {
                None | Some(Ending::Starting) => failed_starts + 1,
                Some(_) => 0,
            };
            let alive = ended.as_ref().map_or(Duration::ZERO, |lived| lived.alive);
            let next = match failed_starts {
                FAILED_STARTS_MAX.. => {
                    tracing::error!(failed_starts, "no child gets as far as serving; giving up");
                    Next::Exit(Exit::Unexpected)
                }
                _ => self.verdict(ended),
            };
            let pause = match next {
                Next::Exit(exit) if shutdown.requested() => return exit,
                Next::Exit(exit) => match self.last_hope().await {
                    Some(child) => {
                        risen = Some(child);
                        continue;
                    }
                    // Also where a stop was asked for meanwhile: it had failed before.
                    None => return exit,
                },
                Next::AtOnce => Duration::ZERO,
                Next::AfterPause => backoff.after(alive),
            };
            tokio::select! {
                biased;
                () = shutdown.drain() => {}
                child = self.reloading.risen() => risen = Some(child),
                () = tokio::time::sleep(pause) => self.status.update(|now| now.restarts += 1),
            }
        }
        Exit::Success
    }

    /// What may still serve where the present plan cannot: the child with another one, if it comes up.
    async fn last_hope(&mut self) -> Option<Box<Risen>> {
        if self.reloading.is_rising() {
            tracing::warn!("nothing serves; the child with the new plugin set is waited for");
        }
        self.reloading.outcome().await
    }

    /// A child's life, and the lives of those that follow it without a gap; what follows at once from the end of the last.
    /// The first is the one that has `risen`, or one with the present plan. `None` when none could be started.
    async fn live_once(&mut self, risen: Option<Box<Risen>>, shutdown: &Shutdown) -> Option<Lived> {
        if self.retiring.as_ref().is_none_or(JoinHandle::is_finished) {
            (self.retiring, self.successor) = (None, None);
        }
        // They took down or held up the process that was to describe them for the last child: the next one would wait for the
        // same again.
        self.ban_refused(|one| [Code::Died.as_str(), Code::Hung.as_str()].contains(&one.code.as_str()));
        // While the one before serves, so does the host.
        if self.successor.is_none() {
            let without = self.without();
            self.status.update(|now| now.renew(&without));
        }
        let mut outcome = match risen {
            Some(risen) => Ok(self.follow(*risen, shutdown).await),
            None => self.begin(shutdown).await,
        };
        loop {
            outcome = match outcome {
                Ok(Outcome::Followed(before, mut risen)) => {
                    let (plan, grave) = (self.options.plan.clone(), self.grave(self.board()));
                    let stop = shutdown.clone();
                    let accepts = self.options.listener.is_some() && before.serves;
                    let (accepting, left) = oneshot::channel();
                    let leaving =
                        async move { send_away(*before, &plan, grave, stop, Some(accepting)).await };
                    self.retiring = Some(tokio::spawn(leaving.in_current_span()));
                    if accepts {
                        accepts_no_more(left, &mut *risen.child.process, shutdown.clone()).await;
                    }
                    Ok(self.follow(*risen, shutdown).await)
                }
                Ok(Outcome::Retired(child, why)) => {
                    return Some(self.retire(*child, why, shutdown).await);
                }
                Ok(Outcome::Ended(lived)) => {
                    self.status.update(|now| {
                        now.child_pid = None;
                        if now.status == Stage::Serving {
                            now.status = Stage::Starting;
                        }
                    });
                    let report = self.grave(self.board()).bury(&lived).await;
                    if let Some(report) = report
                        && matches!(lived.ending, Ending::Serving | Ending::Starting)
                    {
                        self.note_crash(&report);
                    }
                    return Some(lived);
                }
                // Only of one that is to be handed over.
                Ok(Outcome::Up(_)) => return None,
                Err(error) => {
                    tracing::error!(%error, "no child can be started");
                    return None;
                }
            };
        }
    }

    /// Starts a child and stays with it.
    async fn begin(&mut self, shutdown: &Shutdown) -> Result<Outcome, Error> {
        let Reloading { means, held, .. } = &self.reloading;
        let start = self.options.plan.start(means, &self.without(), Vec::new(), held);
        live(&mut self.setting(), start, shutdown).await
    }

    /// Stays with a child that has come up with another plan: from now on this is the host's.
    async fn follow(&mut self, risen: Risen, shutdown: &Shutdown) -> Outcome {
        self.reloading.board = self.board();
        self.board = 1 - self.board;
        self.options.plan = risen.plan.clone();
        (self.reloading.plan, self.reloading.held) = (risen.plan.clone(), risen.held.clone());
        self.banned.clone_from(&risen.banned);
        if risen.is_new {
            // Whoever put another set in place has seen to what was left out.
            self.loops = CrashLoops::default();
            self.returning.abort_all();
        }
        if self.options.listener.is_some() {
            risen.child.order(&ToChild::Accept);
        }
        let (pid, seen) = (risen.child.process.id(), risen.now.clone());
        self.status.update(|now| {
            now.take_over(seen);
            now.child_pid = pid;
        });
        tracing::info!(pid, "the child with the new plugin set has taken over");
        let child = risen.followed(self.status.snapshot());
        live_on(&mut self.setting(), child, shutdown).await
    }

    fn setting(&mut self) -> Setting<'_> {
        Setting {
            board: self.board(),
            held: self.reloading.held.clone(),
            spawn: &*self.options.spawn,
            listener: &mut self.options.listener,
            grace: self.options.plan.grace,
            load_timeout: self.options.plan.load_timeout,
            required: &self.options.plan.required,
            limits: self.options.plan.limits,
            status: &self.status,
            metrics: &mut self.metrics_requests,
            successor: &mut self.successor,
            // Inline handlers of an API have no limit, and are on no board.
            replaceable: (self.options.role == Role::Worker).then_some(self.replaceable),
            retiring: self.retiring.as_ref(),
            reloading: Some(&mut self.reloading),
        }
    }

    /// What a child is started without.
    fn without(&self) -> Vec<Refusal> {
        self.banned.iter().cloned().chain(self.loops.out(Instant::now())).collect()
    }

    /// Leaves a plugin out for a while that crashes its children by itself.
    fn note_crash(&mut self, report: &CrashReport) {
        if let Some(wait) = self.loops.note(report, Instant::now()) {
            while self.returning.try_join_next().is_some() {}
            self.returning.spawn(self.reloads.clone().again(wait).in_current_span());
        }
    }

    /// The present child's board.
    fn board(&self) -> Board {
        let [first, second] = self.options.boards;
        if self.board == 0 { first } else { second }
    }

    fn grave(&self, board: Board) -> Grave {
        Grave { board, hooks: self.options.hooks.clone(), status: self.status.clone() }
    }

    /// Sends a child away that a handler holds up, or that has served its time; another one takes its place first.
    async fn retire(&mut self, child: Connected, why: Why, shutdown: &Shutdown) -> Lived {
        let word = replacement::tell(why, &*self.options.hooks).await;
        self.status.update(|now| *now.replaced.entry(word).or_default() += 1);
        let alive = child.born.elapsed();
        let Plan { grace, limits, .. } = self.options.plan;
        let retiree = Retiree { child, grace, limits, hands_over: false, accepting: None };
        let (sender, successor) = oneshot::channel();
        let (grave, shutdown) = (self.grave(self.board()), shutdown.clone());
        self.successor = Some(sender);
        let leaving = async move {
            let lived = retiree.run(successor, shutdown).await;
            tracing::info!(how = %lived.death, "the child that was replaced has ended");
            grave.bury(&lived).await;
        };
        self.retiring = Some(tokio::spawn(leaving.in_current_span()));
        self.reloading.board = self.board();
        self.board = 1 - self.board;
        self.replaceable = Instant::now() + self.replacing.after(alive);
        Lived::replaced(Death::Killed("was replaced"), alive, Started::default())
    }
}

/// Waits until a child that hands over accepts no more connections, or has ended; not for ever, and not where nobody follows.
pub(super) async fn accepts_no_more(
    left: oneshot::Receiver<()>,
    next: &mut dyn Process,
    mut shutdown: Shutdown,
) {
    tokio::select! {
        _ = left => {}
        () = shutdown.drain() => {}
        _ = next.wait() => {}
        () = tokio::time::sleep(LEAVE_MAX) => {
            tracing::warn!("the child before has not said that it accepts no more connections; the new one accepts beside it");
        }
    }
}
