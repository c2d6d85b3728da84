//! Another plugin set, or other settings, while the host serves.
//!
//! ```text
//! asked ─▶ another child comes up beside the one that serves ─▶ up ─▶ it is followed, the one before drains
//!                                                       └ refused, dead, hung: buried; nothing has changed
//! ```
//!
//! The present child cannot be told to load other libraries: code that is loaded never leaves a process. So there is
//! another child, and until it is up nothing is taken from the one that serves. One that dies meanwhile is replaced as ever, on the
//! board that it leaves: nobody waits for the new child, but where the present plan cannot serve any more.
//!
//! Invariants: one at a time, and none while the child before the present one still drains; a plugin that serves now is
//! never lost to a new set that refuses it; a child that came up and is not wanted any more is drained and buried as any other.
//!
//! What it refuses: it judges no configuration and no library. What it is given has been looked at.

use super::aftermath::Aftermath;
use super::assent::Assent;
use super::birth::Birth;
use super::connected::Connected;
use super::control::{Excluded, Refusal, Role, Start};
use super::grave::Grave;
use super::held::{Held, Shelf};
use super::retiree::send_away;
use super::spawn::Spawn;
use super::status::{Snapshot, Status};
use super::wear::Limits;
use super::{Seat, Shutdown};
use crate::crash::Board;
use crate::exit::Exit;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// The longest pause between two tries to bring back what was left out.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// What a child is started with, as far as the configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The resolved settings.
    pub settings: serde_json::Value,
    /// How long a drain may take.
    pub grace: Duration,
    /// How long each step of loading a plugin may take.
    pub load_timeout: Duration,
    /// Names of the plugins without which the host must not serve.
    pub required: BTreeSet<String>,
    /// When a worker's child has served its time.
    pub limits: Limits,
}

impl Plan {
    /// The start order of a child.
    pub(super) fn start(
        &self,
        means: &Means,
        without: &[Refusal],
        needed: Vec<String>,
        held: &Held,
    ) -> Start {
        let excluded =
            without.iter().map(|one| Excluded { plugin: one.plugin.clone(), reason: one.message.clone() });
        Start {
            role: means.role,
            instance: means.instance.clone(),
            seat: means.seat.clone(),
            settings: self.settings.clone(),
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            excluded: excluded.collect(),
            needed,
            served: held.ready(),
        }
    }
}

/// Why nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The exit code that a start with it would have had.
    pub exit: Exit,
    /// One sentence each.
    pub reasons: Vec<String>,
    /// The plugins that are why, where any are; each is one of the reasons.
    pub refused: Vec<Refusal>,
}

impl Unfit {
    pub(super) fn of(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, reasons: vec![reason.into()], refused: Vec::new() }
    }

    /// For plugins that are refused and cannot be done without.
    pub(crate) fn without(exit: Exit, refused: Vec<Refusal>) -> Self {
        Self { exit, reasons: refused.iter().map(Refusal::to_string).collect(), refused }
    }
}

/// Asks a supervisor for a reload. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Order>);

impl Reloads {
    /// Waits until a child with this plan serves in place of the one before; says what it serves.
    ///
    /// # Errors
    /// Why the one before serves on.
    pub async fn reload(&self, plan: Plan) -> Result<Snapshot, Unfit> {
        self.reload_with(plan, None).await
    }

    /// The same; the child that has come up waits for an assent before it follows.
    pub(super) async fn reload_with(&self, plan: Plan, assent: Option<Assent>) -> Result<Snapshot, Unfit> {
        let stopping = || Unfit::of(Exit::Unavailable, "the host is stopping");
        let (answer, answered) = oneshot::channel();
        self.0.send(Order { plan: Some(plan), assent, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// The same with the present plan, until it has come to pass: what was left out is tried again.
    pub(super) async fn again(self, after: Duration) {
        let mut pause = after;
        loop {
            tokio::time::sleep(pause).await;
            let (answer, answered) = oneshot::channel();
            if self.0.send(Order { plan: None, assent: None, answer }).await.is_err() {
                return;
            }
            match answered.await {
                Ok(Err(unfit)) => {
                    let reason = unfit.reasons.join("; ");
                    tracing::warn!(reason, "a plugin that was left out cannot be brought back yet");
                    pause = (pause * 2).min(AGAIN_MAX);
                }
                _ => return,
            }
        }
    }
}

/// A wish for a reload.
#[derive(Debug)]
pub(super) struct Order {
    /// `None`: the present one.
    plan: Option<Plan>,
    assent: Option<Assent>,
    answer: oneshot::Sender<Result<Snapshot, Unfit>>,
}

impl Order {
    pub(super) fn refuse(self, unfit: Unfit) {
        // Whoever asked may have given up.
        let _ = self.answer.send(Err(unfit));
    }
}

/// A child that came up with a new plan, and serves.
pub(super) struct Risen {
    pub(super) child: Connected,
    pub(super) plan: Plan,
    /// What it said of itself.
    pub(super) now: Snapshot,
    /// Plugins that took children before it down; none of them served.
    pub(super) banned: Vec<Refusal>,
    /// The libraries that it has.
    pub(super) held: Held,
    /// Somebody asked for it: its plan, and its libraries, may be others.
    pub(super) is_new: bool,
    answer: oneshot::Sender<Result<Snapshot, Unfit>>,
}

impl Risen {
    /// Tells whoever asked that it serves; answers the child.
    pub(super) fn followed(self, now: Snapshot) -> Connected {
        // Whoever asked may have given up.
        let _ = self.answer.send(Ok(now));
        self.child
    }
}

/// What happens to a reload.
pub(super) enum Turn {
    /// One is asked for.
    Asked(Order),
    /// The child is up.
    Risen(Box<Risen>),
}

/// The next turn; never for a child that is itself to be handed over. May be dropped and called again.
pub(super) async fn turn(reloading: &mut Option<&mut Reloading>, may_begin: bool) -> Turn {
    match reloading {
        Some(reloading) => reloading.turn(may_begin).await,
        None => std::future::pending().await,
    }
}

/// What every child of a supervisor has in common.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) role: Role,
    pub(super) instance: String,
    pub(super) seat: Option<Seat>,
    pub(super) spawn: Arc<dyn Spawn>,
    pub(super) hooks: Arc<dyn Aftermath>,
}

/// A supervisor's end of it.
pub(super) struct Reloading {
    pub(super) means: Means,
    orders: mpsc::Receiver<Order>,
    rising: Option<JoinHandle<Option<Box<Risen>>>>,
    /// What the present child was given.
    pub(super) plan: Plan,
    /// The libraries that it has.
    pub(super) held: Held,
    /// The board that the present child does not have.
    pub(super) board: Board,
}

impl Reloading {
    pub(super) fn new(means: Means, board: Board, plan: Plan, shelf: Shelf) -> (Reloads, Self) {
        let (sender, orders) = mpsc::channel(8);
        let held = Held::new(shelf);
        (Reloads(sender), Self { means, orders, rising: None, plan, held, board })
    }

    /// Whether a child is coming up.
    pub(super) fn is_rising(&self) -> bool {
        self.rising.is_some()
    }

    /// Brings up a child beside the one that serves these plugins.
    pub(super) fn begin(
        &mut self,
        mut order: Order,
        listener: Option<OwnedFd>,
        serving: BTreeSet<String>,
        shutdown: Shutdown,
    ) {
        tracing::info!("another child is started, with the new plugin set");
        // With another plan libraries are judged anew, from where they lie.
        let is_new = order.plan.is_some();
        let (plan, held) = match order.plan.take() {
            Some(plan) => (plan, self.held.anew()),
            None => (self.plan.clone(), self.held.clone()),
        };
        let birth = Birth {
            means: self.means.clone(),
            board: self.board,
            listener,
            plan,
            held: held.clone(),
            serving,
            shutdown,
        };
        let Order { assent, answer, .. } = order;
        let (means, board, stop) = (self.means.clone(), self.board, birth.shutdown.clone());
        let rising = async move {
            let risen = birth.bring_up().await;
            if let (Some(assent), true) = (assent, risen.is_ok())
                && !assent.given().await
            {
                if let Ok((child, _, plan, _)) = risen {
                    let status = Status::new(means.role, means.instance);
                    let grave = Grave { board, hooks: means.hooks, status };
                    send_away(child, &plan, grave, stop, None).await;
                }
                let others = "another worker group does not take the new plugin set";
                let _ = answer.send(Err(Unfit::of(Exit::PluginRefused, others)));
                return None;
            }
            match risen {
                Ok((child, now, plan, banned)) => {
                    Some(Box::new(Risen { child, plan, now, banned, held, is_new, answer }))
                }
                Err(unfit) => {
                    tracing::error!(
                        reason = unfit.reasons.join("; "),
                        "the new plugin set is not taken; nothing has changed"
                    );
                    let _ = answer.send(Err(unfit));
                    None
                }
            }
        };
        self.rising = Some(tokio::spawn(rising.in_current_span()));
    }

    async fn turn(&mut self, may_begin: bool) -> Turn {
        if let Some(risen) = self.outcome().await {
            return Turn::Risen(risen);
        }
        let order = if may_begin { self.orders.recv().await } else { None };
        match order {
            Some(order) => Turn::Asked(order),
            None => std::future::pending().await,
        }
    }

    /// Waits for the child that is coming up, if one is. May be dropped and called again.
    pub(super) async fn outcome(&mut self) -> Option<Box<Risen>> {
        // It does not panic; if it did, its child is gone with it.
        let risen = self.rising.as_mut()?.await.ok().flatten();
        self.rising = None;
        risen
    }

    /// The child that has come up; never where none does. May be dropped and called again.
    pub(super) async fn risen(&mut self) -> Box<Risen> {
        match self.outcome().await {
            Some(risen) => risen,
            None => std::future::pending().await,
        }
    }
}
