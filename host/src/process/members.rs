//! Who belongs to a host's crew: seats are taken in when it starts and with a reload, and let go with one.
//!
//! ```text
//! taken in at the start ───────────────────▶ member ─── ends by itself ─▶ the others drain
//! tried out ─▶ up ─── admitted ────────────▶ member ─── dismissed ─▶ drains ─▶ gone
//!          └─▶ not up: sent away, and nothing has changed
//! ```
//!
//! Invariants: a stop of the host reaches every seat, whatever it is; the host lives until the last one has ended; only a
//! member's end is the host's.

use super::control::Refusal;
use super::crew::Seat;
use super::status::Handle;
use super::{Reloads, Shutdown, ShutdownHandle, Supervisor, Unfit};
use crate::exit::Exit;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument;

/// A seat that runs, as whoever leads the crew holds it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which process of which worker group.
    pub seat: Option<Seat>,
    /// Where it is given another plugin set.
    pub reloads: Reloads,
    /// What is seen of it.
    pub handle: Handle,
    stop: ShutdownHandle,
    is_member: Arc<AtomicBool>,
}

impl Member {
    /// Makes one that was tried out a member.
    pub fn admit(&self) {
        self.is_member.store(true, Ordering::SeqCst);
    }

    /// Lets it go: it drains, and the others stay.
    pub fn dismiss(&self) {
        self.is_member.store(false, Ordering::SeqCst);
        self.stop.request();
    }
}

struct Recruit {
    supervisor: Supervisor,
    stop: ShutdownHandle,
    stopped: Shutdown,
    is_member: Arc<AtomicBool>,
    ended: oneshot::Sender<Exit>,
}

/// Where seats are taken in. Clones lead to the same host.
#[derive(Clone)]
pub struct Recruiting(mpsc::UnboundedSender<Recruit>);

/// Those that are to be taken in.
pub struct Recruits(mpsc::UnboundedReceiver<Recruit>);

impl std::fmt::Debug for Recruiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recruiting").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Recruits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recruits").finish_non_exhaustive()
    }
}

impl Recruiting {
    /// The two ends: nobody runs before [`keep`] does.
    #[must_use]
    pub fn new() -> (Self, Recruits) {
        let (sender, recruits) = mpsc::unbounded_channel();
        (Self(sender), Recruits(recruits))
    }

    /// Takes in a member of a host that starts.
    #[must_use]
    pub fn take_in(&self, supervisor: Supervisor) -> Member {
        self.recruit(supervisor, true).0
    }

    /// Takes in one that is to become a member once it is up, with all the plugins that are `needed` of those it has.
    ///
    /// # Errors
    /// Why it is not up; it is gone then.
    pub async fn try_out(&self, supervisor: Supervisor, needed: &BTreeSet<String>) -> Result<Member, Unfit> {
        let (member, mut ended) = self.recruit(supervisor, false);
        let status = member.handle.status.clone();
        let lacks = || -> Vec<Refusal> {
            let refused = status.snapshot().refused.into_iter();
            refused.filter(|one| needed.contains(&one.plugin)).collect()
        };
        let exit = tokio::select! {
            now = status.wait_for(|now| now.ready) => {
                let lacking = lacks();
                if now.ready && lacking.is_empty() {
                    return Ok(member);
                }
                member.dismiss();
                // It is gone when the sender is.
                let _ = ended.await;
                return Err(Unfit::without(Exit::PluginRefused, lacking));
            }
            exit = &mut ended => exit.unwrap_or(Exit::Success),
        };
        let lacking = lacks();
        Err(match (exit, lacking.is_empty()) {
            (Exit::Success, _) => Unfit::of(Exit::Unavailable, "the host is stopping"),
            (exit, false) => Unfit::without(exit, lacking),
            (exit, true) => {
                let seat = member.seat.map(|seat| seat.group).unwrap_or_default();
                Unfit::of(exit, format!("no child of {seat} comes up: the host's log says why"))
            }
        })
    }

    fn recruit(&self, supervisor: Supervisor, is_member: bool) -> (Member, oneshot::Receiver<Exit>) {
        let (stop, stopped) = Shutdown::manual();
        let (ended, end) = oneshot::channel();
        let member = Member {
            seat: supervisor.seat(),
            reloads: supervisor.reloads(),
            handle: supervisor.handle(),
            stop: stop.clone(),
            is_member: Arc::new(AtomicBool::new(is_member)),
        };
        let is_member = member.is_member.clone();
        // A host that has ended takes nobody: the sender of the end goes with the recruit.
        let _ = self.0.send(Recruit { supervisor, stop, stopped, is_member, ended });
        (member, end)
    }
}

/// Keeps every seat's child alive until a stop is asked for, or a member can do nothing more; says how to exit.
pub async fn keep(mut recruits: Recruits, shutdown: Shutdown) -> Exit {
    let (stop, stopped) = Shutdown::manual();
    let relay = tokio::spawn(pass_on(shutdown, stop.clone(), stopped.clone()));
    let mut running = JoinSet::new();
    let mut exit = Exit::Success;
    loop {
        while let Ok(recruit) = recruits.0.try_recv() {
            running.spawn(run(recruit, stopped.clone()));
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            Some(recruit) = recruits.0.recv() => {
                running.spawn(run(recruit, stopped.clone()));
            }
            Some(ended) = running.join_next() => {
                let (ended, was_member) = ended.unwrap_or((Exit::Unexpected, true));
                if exit == Exit::Success && (was_member || stopped.requested()) {
                    exit = ended;
                }
                if was_member && !stopped.requested() {
                    if !running.is_empty() {
                        tracing::error!(code = ended.code(), "a worker group has given up; the others drain");
                    }
                    stop.request();
                }
            }
        }
    }
    relay.abort();
    exit
}

/// One seat's life; how it ended, and whether the host misses it.
async fn run(recruit: Recruit, host: Shutdown) -> (Exit, bool) {
    let Recruit { supervisor, stop, stopped, is_member, ended } = recruit;
    let span = match supervisor.seat() {
        Some(seat) => tracing::error_span!("seat", group = seat.group, process = seat.process),
        None => tracing::Span::none(),
    };
    let relay = tokio::spawn(pass_on(host, stop, stopped.clone()));
    let exit = supervisor.run(stopped).instrument(span.clone()).await;
    relay.abort();
    let was_member = is_member.load(Ordering::SeqCst);
    if !was_member {
        span.in_scope(|| {
            tracing::info!(code = exit.code(), "a worker process that is not wanted any more has ended")
        });
    }
    // Nobody may be waiting for it.
    let _ = ended.send(exit);
    (exit, was_member)
}

/// Passes a wish to stop on, and the second one; who stops already for another reason is not cut off by the first.
async fn pass_on(mut from: Shutdown, to: ShutdownHandle, seen: Shutdown) {
    from.drain().await;
    if !seen.requested() {
        to.request();
    }
    from.now().await;
    to.request();
    to.request();
}
