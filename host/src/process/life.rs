//! One child's life: from its start to its end, whatever ends it.
//!
//! Everything that happens to a child is one of: a message, its end, an order to stop, a deadline. This
//! loop waits for them and says at the end which [`Ending`] it was; what follows from that is the
//! supervisor's business.
//!
//! Invariants: it returns only after the child is reaped, and after every message that the child sent
//! before its end was read. It never waits for a child without a deadline, except for one that serves.

mod ending;
mod messages;

use super::connected::{self, Connected};
use super::control::{Error, Phase, Reader, Start, ToChild, encode, send_prefix_with_fds};
use super::held::Held;
use super::lease::now_unix_ms;
use super::oom::OomWatch;
use super::overdue::{LOOK, Watch};
use super::pulse;
use super::reload::{Order, Reloading, Risen, Turn, Unfit, turn};
use super::replacement::Why;
use super::spawn::{Process, Spawn};
use super::started::Started;
use super::status::{Stage, Status};
use super::wear::{self, Limits, Wear};
use super::{Death, Shutdown};
use crate::crash::Board;
use crate::exit::Exit;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub(super) use ending::{Ending, Lived};

/// A starting child outside any loading phase must say something within this time: it may be waiting
/// for the broker, which takes 10 s at most.
const START_SILENCE: Duration = Duration::from_secs(60);
/// After the grace, the child's own watchdog comes first; then we kill it.
pub(super) const GRACE_MARGIN: Duration = Duration::from_secs(1);
/// A child that does not serve yet holds nothing that deserves the full grace.
pub(super) const START_GRACE: Duration = Duration::from_secs(2);
/// A child that said "failed" or closed its channel has this long to exit.
const EXIT_WAIT: Duration = Duration::from_secs(2);
/// How long to wait for the rest of a dead child's messages.
const REST_WAIT: Duration = Duration::from_millis(500);
/// Completes "it was killed because it".
pub(super) const OVER_CEILING: &str = "was over its memory ceiling";
/// Metrics requests that may wait for the child at once.
const METRICS_PENDING_MAX: usize = 8;

/// What a child's life needs.
pub(super) struct Setting<'a> {
    pub(super) spawn: &'a dyn Spawn,
    pub(super) board: Board,
    /// Given up at a drain, so that the kernel refuses connections as soon as the child closes its own.
    pub(super) listener: &'a mut Option<OwnedFd>,
    pub(super) grace: Duration,
    pub(super) load_timeout: Duration,
    pub(super) required: &'a BTreeSet<String>,
    pub(super) limits: Limits,
    /// Where libraries are held that it has judged.
    pub(super) held: Held,
    pub(super) status: &'a Status,
    pub(super) metrics: &'a mut mpsc::Receiver<oneshot::Sender<String>>,
    /// Told when this child takes work: another one waits for it.
    pub(super) successor: &'a mut Option<oneshot::Sender<()>>,
    /// When it may be replaced, at the earliest; `None`: never.
    pub(super) replaceable: Option<Instant>,
    /// The one before it, which may still be there.
    pub(super) retiring: Option<&'a JoinHandle<()>>,
    /// Where another plugin set comes from; `None`: this child is the one with it, and is handed over once it is up.
    pub(super) reloading: Option<&'a mut Reloading>,
}

/// What became of a child.
pub(super) enum Outcome {
    /// It has ended.
    Ended(Lived),
    /// It lives, and must be replaced.
    Retired(Box<Connected>, Why),
    /// It lives, though it may not serve yet, and another one with a new plugin set does.
    Followed(Box<Connected>, Box<Risen>),
    /// It has come up, and is handed over.
    Up(Box<Connected>),
}

struct Life<'a, 'b> {
    setting: &'b mut Setting<'a>,
    process: Box<dyn Process>,
    reader: Reader<OwnedReadHalf>,
    orders: mpsc::UnboundedSender<Vec<u8>>,
    writer: JoinSet<()>,
    watch: Watch,
    oom: OomWatch,
    wear: Wear,
    pending: HashMap<u64, oneshot::Sender<String>>,
    next_metrics_id: u64,
    /// When the child last said something, or the phase was entered.
    heard: Instant,
    phase: Option<Phase>,
    started: Started,
    served: bool,
    open: bool,
    exit_by: Option<Instant>,
    failed: Option<Ending>,
    drain_by: Option<Instant>,
    killed: Option<&'static str>,
    forced: bool,
}

/// Starts a child and stays with it until it has ended.
pub(super) async fn live(
    setting: &mut Setting<'_>,
    start: Start,
    shutdown: &Shutdown,
) -> Result<Outcome, Error> {
    let born = Instant::now();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let frame = encode(&ToChild::Start(start))?;
    let (prefix, body) = frame.split_first_chunk::<4>().ok_or(Error::Cut)?;
    let fds: Vec<_> =
        std::iter::once(setting.board.fd()).chain(setting.listener.as_ref().map(AsFd::as_fd)).collect();
    send_prefix_with_fds(&ours, *prefix, &fds)?;
    let process = setting.spawn.spawn(OwnedFd::from(theirs))?;
    let pid = process.id();
    setting.status.update(|now| now.child_pid = pid);

    let child = Connected::new(process, ours, body.to_vec(), born)?;
    Ok(Life::of(setting, child).run(shutdown, born).await)
}

/// Stays with a child that came up elsewhere until it has ended.
pub(super) async fn live_on(setting: &mut Setting<'_>, child: Connected, shutdown: &Shutdown) -> Outcome {
    let born = child.born;
    Life::of(setting, child).run(shutdown, born).await
}

impl<'a, 'b> Life<'a, 'b> {
    fn of(setting: &'b mut Setting<'a>, child: Connected) -> Self {
        let Connected { process, reader, orders, writer, serves: served, started, born: _ } = child;
        let wear = Wear::new(setting.limits);
        Self {
            setting,
            process,
            reader,
            orders,
            writer,
            watch: Watch::default(),
            oom: OomWatch::start(),
            wear,
            pending: HashMap::new(),
            next_metrics_id: 0,
            heard: Instant::now(),
            phase: None,
            started,
            served,
            open: true,
            exit_by: None,
            failed: None,
            drain_by: None,
            killed: None,
            forced: false,
        }
    }

    async fn run(mut self, shutdown: &Shutdown, born: Instant) -> Outcome {
        let (mut first, mut second) = (shutdown.clone(), shutdown.clone());
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let status = loop {
            let deadline = self.deadline().filter(|_| self.killed.is_none());
            let (at, why) = deadline.unwrap_or((born, ""));
            // Asked again at each tick: who asks for a reload waits until it can begin.
            let is_followable = self.is_followable();
            tokio::select! {
                status = self.process.wait() => break status,
                message = self.reader.next(), if self.open => {
                    self.receive(message);
                    if self.is_up() {
                        return Outcome::Up(Box::new(self.let_go(born)));
                    }
                }
                turn = turn(&mut self.setting.reloading, is_followable), if self.drain_by.is_none() => match turn {
                    Turn::Asked(order) => self.begin(order, shutdown),
                    Turn::Risen(risen) => return Outcome::Followed(Box::new(self.let_go(born)), risen),
                },
                () = first.drain(), if self.drain_by.is_none() => self.drain(),
                () = second.now(), if !self.forced => {
                    self.forced = true;
                    self.kill("was told to stop at once");
                }
                () = sleep_until(at), if deadline.is_some() => self.kill(why),
                Some(request) = self.setting.metrics.recv() => self.ask_metrics(request),
                // Asked at each tick: what it hangs on changes while nothing else wakes this loop.
                _ = looks.tick() => {
                    self.oom.look();
                    if self.served {
                        pulse::feel(&self.setting.board, self.setting.status, self.process.id());
                    }
                    if let Some(why) = self.look() {
                        return Outcome::Retired(Box::new(self.let_go(born)), why);
                    }
                }
            }
        };
        while self.open {
            match timeout(REST_WAIT, self.reader.next()).await {
                Ok(message) => self.receive(message),
                // Something else holds the channel open, such as a process that a plugin started.
                Err(_) => break,
            }
        }
        let death = Death::of_child(status, self.killed, &self.oom);
        Outcome::Ended(self.ended(death, born.elapsed()))
    }

    /// Whether it serves, and nothing has begun to end it.
    fn is_sound(&self) -> bool {
        let is_ending = self.drain_by.is_some() || self.exit_by.is_some();
        self.served && self.open && !is_ending && self.killed.is_none()
    }

    /// Whether another child may come up beside it: there are two boards, and so two children at most.
    fn is_followable(&self) -> bool {
        self.is_sound()
            && self.setting.retiring.is_none_or(JoinHandle::is_finished)
            && self.setting.reloading.as_ref().is_some_and(|reloading| !reloading.is_rising())
    }

    fn is_replaceable(&self) -> bool {
        self.is_followable() && self.setting.replaceable.is_some_and(|at| at <= Instant::now())
    }

    /// Whether this is a child for handing over, and takes work.
    fn is_up(&self) -> bool {
        let is_wanted = self.setting.reloading.is_none() && self.is_sound();
        is_wanted && self.setting.status.snapshot().consuming != Some(false)
    }

    /// Brings up another child, with what the order says.
    fn begin(&mut self, order: Order, shutdown: &Shutdown) {
        let Some(reloading) = &mut self.setting.reloading else { return };
        let serving = self.setting.status.snapshot().plugins.into_iter().map(|plugin| plugin.name);
        match self.setting.listener.as_ref().map(OwnedFd::try_clone).transpose() {
            Ok(listener) => reloading.begin(order, listener, serving.collect(), shutdown.clone()),
            Err(error) => order.refuse(Unfit::of(Exit::Unexpected, format!("the machine refuses: {error}"))),
        }
    }

    fn let_go(self, born: Instant) -> Connected {
        let Self { process, reader, orders, writer, served: serves, started, .. } = self;
        Connected { process, reader, orders, writer, born, serves, started }
    }

    /// Why the child is to be replaced, if it is. One that is over its memory ceiling is killed.
    fn look(&mut self) -> Option<Why> {
        let resident_mb = self.process.id().and_then(wear::resident_mb);
        // Also while it loads: a plugin may fill its memory in its start.
        if let Some(resident_mb) = self.wear.over_ceiling(resident_mb)
            && self.killed.is_none()
        {
            tracing::error!(resident_mb, "the child is over its memory ceiling");
            self.kill(OVER_CEILING);
        }
        let worn = match self.served {
            true => self.wear.look(self.setting.board.tasks_begun(), resident_mb),
            false => None,
        };
        if !self.is_replaceable() {
            return None;
        }
        let overdue = self.watch.look(&self.setting.board, now_unix_ms());
        overdue.map(Why::Overdue).or(worn.map(Why::Worn))
    }

    /// The next deadline, and what the child is killed for when it passes.
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        let loading = self
            .phase
            .as_ref()
            .map(|_| (self.heard + self.setting.load_timeout, "hung while loading a plugin"));
        let is_starting = !self.served || self.setting.reloading.is_none();
        let starting = is_starting.then_some((self.heard + START_SILENCE, "hung in its start"));
        let drain = self.drain_by.map(|by| (by, "did not finish within the grace"));
        drain.or(self.exit_by.map(|by| (by, "was at its end and did not exit"))).or(loading).or(starting)
    }

    fn kill(&mut self, why: &'static str) {
        if self.killed.is_none() {
            tracing::warn!(pid = self.process.id(), why, "killing the child");
        }
        self.killed.get_or_insert(why);
        self.process.kill();
    }

    fn drain(&mut self) {
        let grace = self.setting.grace;
        self.drain_by =
            Some(Instant::now() + if self.served { grace + GRACE_MARGIN } else { grace.min(START_GRACE) });
        self.setting.status.update(|now| now.status = Stage::Draining);
        *self.setting.listener = None;
        self.order(&ToChild::Drain { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) });
    }

    fn order(&self, order: &ToChild) {
        connected::send(&self.orders, order);
    }

    fn ask_metrics(&mut self, request: oneshot::Sender<String>) {
        self.pending.retain(|_, waiting| !waiting.is_closed());
        if self.served && self.open && self.pending.len() < METRICS_PENDING_MAX {
            self.next_metrics_id += 1;
            self.pending.insert(self.next_metrics_id, request);
            self.order(&ToChild::Metrics { id: self.next_metrics_id });
        }
    }
}
