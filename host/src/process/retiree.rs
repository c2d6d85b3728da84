//! A child that is to go, because another one takes its place: a handler in it holds a thread and does not give it back,
//! or the host was given a new plugin set.
//!
//! It serves on until its successor is up. Then it drains: what is not stuck finishes within the grace, the rest is handed
//! back. What is left on its board when it has ended is answered as for any dead child.
//!
//! One that does not serve yet, because it was just started in the place of a dead one, has nothing to finish, and is given less.
//!
//! Invariants: it has ended, and is reaped, when [`Retiree::run`] returns; it gets no longer than the grace and a margin
//! once its successor serves, or once nobody will follow any more.

use super::connected::Connected;
use super::control::{ToChild, ToSupervisor};
use super::grave::Grave;
use super::life::{GRACE_MARGIN, Lived, OVER_CEILING, START_GRACE};
use super::oom::OomWatch;
use super::overdue::LOOK;
use super::reload::Plan;
use super::wear::{self, Limits, Wear};
use super::{Death, Shutdown};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Completes "it was killed because it".
const OVER_GRACE: &str = "did not finish within the grace";

/// A child on its way out.
pub(super) struct Retiree {
    pub(super) child: Connected,
    pub(super) grace: Duration,
    /// Its memory ceiling holds to its end.
    pub(super) limits: Limits,
    /// Whether those who come again to it find another child.
    pub(super) hands_over: bool,
    /// Dropped when it accepts no more connections.
    pub(super) accepting: Option<oneshot::Sender<()>>,
}

impl Retiree {
    /// Stays with it to its end. `successor` says that another child serves; its loss says that none will.
    pub(super) async fn run(mut self, mut successor: oneshot::Receiver<()>, shutdown: Shutdown) -> Lived {
        let (mut first, mut second) = (shutdown.clone(), shutdown);
        let mut drained_at: Option<Instant> = None;
        let (mut open, mut killed) = (true, None);
        let (ceiling, mut oom) = (Wear::new(self.limits), OomWatch::start());
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let status = loop {
            let (is_draining, until) =
                (drained_at.is_some(), drained_at.unwrap_or(self.child.born) + self.patience());
            tokio::select! {
                status = self.child.process.wait() => break status,
                // It is no longer asked for anything; what it says is read so that it can go on.
                said = self.child.reader.next::<ToSupervisor>(), if open => match said {
                    // It came to it before it read that it is to go: what it has taken since gets the whole grace.
                    Ok(Some(ToSupervisor::Ready(_))) => self.child.serves = true,
                    Ok(Some(ToSupervisor::Leaving)) => self.accepting = None,
                    Ok(Some(ToSupervisor::Phase { entered })) => {
                        entered.iter().for_each(|phase| self.child.started.enter(phase));
                    }
                    said => open = matches!(said, Ok(Some(_))),
                },
                _ = &mut successor, if !is_draining => drained_at = Some(self.drain()),
                () = first.drain(), if !is_draining => drained_at = Some(self.drain()),
                () = second.now(), if killed.is_none() => {
                    killed = Some(OVER_GRACE);
                    self.child.process.kill();
                }
                () = sleep_until(until), if is_draining && killed.is_none() => {
                    killed = Some(OVER_GRACE);
                    self.child.process.kill();
                }
                _ = looks.tick() => {
                    oom.look();
                    let resident_mb = ceiling.over_ceiling(self.child.process.id().and_then(wear::resident_mb));
                    if let (Some(resident_mb), None) = (resident_mb, killed) {
                        tracing::error!(resident_mb, "the child that is to go is over its memory ceiling");
                        killed = Some(OVER_CEILING);
                        self.child.process.kill();
                    }
                }
            }
        };
        self.child.writer.abort_all();
        let death = Death::of_child(status, killed, &oom);
        Lived::replaced(death, self.child.born.elapsed(), self.child.started)
    }

    /// Tells it to drain; since when.
    fn drain(&self) -> Instant {
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        let order = match self.hands_over {
            true => ToChild::HandOver { grace_ms },
            false => ToChild::Drain { grace_ms },
        };
        self.child.order(&order);
        Instant::now()
    }

    /// How long it may take to end.
    fn patience(&self) -> Duration {
        match self.child.serves {
            true => self.grace + GRACE_MARGIN,
            false => self.grace.min(START_GRACE),
        }
    }
}

/// Lets a child finish what it has that is not to serve any more: another one does, or will not be followed by it. `accepting`
/// is dropped when it accepts no more connections, and at its end.
pub(super) async fn send_away(
    child: Connected,
    plan: &Plan,
    grave: Grave,
    shutdown: Shutdown,
    accepting: Option<oneshot::Sender<()>>,
) {
    let Plan { grace, limits, .. } = *plan;
    let retiree = Retiree { child, grace, limits, hands_over: true, accepting };
    // The other one is up already.
    let (_, successor) = oneshot::channel();
    let lived = retiree.run(successor, shutdown).await;
    tracing::info!(how = %lived.death, "the child that was sent away has ended");
    grave.bury(&lived).await;
}
