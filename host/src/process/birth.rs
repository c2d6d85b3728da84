//! A child with another plan, from its start until it is up: tried again without what can be done without.
//!
//! Invariants: a child that does not come up is buried when [`Birth::bring_up`] returns; nothing is shown of it but its reasons.

use super::connected::Connected;
use super::control::{Refusal, Start};
use super::culprit::refusal;
use super::death::Death;
use super::grave::Grave;
use super::held::Held;
use super::life::{Ending, Outcome, Setting, live};
use super::reload::{Means, Plan, Unfit};
use super::status::{ChildMetrics, Snapshot, Status};
use super::{CrashReport, Shutdown};
use crate::crash::Board;
use crate::exit::Exit;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// A child that is up, what it said of itself, its plan, and what was left out for it.
pub(super) type Up = (Connected, Snapshot, Plan, Vec<Refusal>);

/// A child that is to come up.
pub(super) struct Birth {
    pub(super) means: Means,
    pub(super) board: Board,
    pub(super) listener: Option<OwnedFd>,
    pub(super) plan: Plan,
    pub(super) held: Held,
    /// The plugins that serve now.
    pub(super) serving: BTreeSet<String>,
    pub(super) shutdown: Shutdown,
}

impl Birth {
    /// Tries until a child is up, or until one fails for which no plugin is to blame that can be done without.
    pub(super) async fn bring_up(mut self) -> Result<Up, Unfit> {
        let plugins = self.plan.settings.get("plugins").and_then(serde_json::Value::as_object);
        // What serves now and is still wanted.
        let kept = |name: &&String| plugins.is_some_and(|plugins| plugins.contains_key(*name));
        let needed: BTreeSet<String> =
            self.serving.iter().filter(kept).chain(&self.plan.required).cloned().collect();
        let mut banned: Vec<Refusal> = Vec::new();
        loop {
            let status = Status::new(self.means.role, self.means.instance.clone());
            let names = needed.iter().cloned().collect();
            let start = self.plan.start(&self.means, &banned, names, &self.held);
            status.update(|now| now.refused.clone_from(&banned));
            let outcome = self.live(start, &status, &needed).await;
            let lived = match outcome {
                Ok(Outcome::Up(child)) => return Ok((*child, status.snapshot(), self.plan, banned)),
                Ok(Outcome::Ended(lived)) => lived,
                // Neither happens to a child that is to be handed over.
                Ok(Outcome::Retired(..) | Outcome::Followed(..)) => {
                    return Err(Unfit::of(Exit::Unexpected, "the new child was lost: a fault of cardcage"));
                }
                Err(error) => {
                    return Err(Unfit::of(Exit::Unexpected, format!("no child can be started: {error}")));
                }
            };
            let snapshot = status.snapshot();
            let grave = Grave {
                board: self.board,
                hooks: self.means.hooks.clone(),
                // What is shown is the host's, which serves.
                status: status.clone(),
            };
            let report = grave.bury(&lived).await;
            match lived.ending {
                Ending::Loading(phase) => {
                    let culprit = refusal(&phase, &lived.death, self.plan.load_timeout, &needed);
                    let again = banned.iter().any(|one| one.plugin == culprit.plugin);
                    if culprit.required || again {
                        return Err(Unfit::without(Exit::PluginRefused, vec![culprit]));
                    }
                    banned.push(culprit);
                }
                // A circle of plugins that need each other, without one of them.
                Ending::Failed { retry: true, .. }
                    if snapshot.refused.len() > banned.len()
                        && !snapshot.refused.iter().any(|one| needed.contains(&one.plugin)) =>
                {
                    banned = snapshot.refused;
                }
                ending => {
                    let unfit = unfit(ending, &lived.death, report.as_ref(), snapshot.refused, &needed);
                    return Err(unfit);
                }
            }
        }
    }

    async fn live(
        &mut self,
        start: Start,
        status: &Status,
        needed: &BTreeSet<String>,
    ) -> Result<Outcome, super::control::Error> {
        // Nobody asks it for metrics yet.
        let (_metrics, mut requests) = ChildMetrics::channel();
        let mut setting = Setting {
            spawn: &*self.means.spawn,
            board: self.board,
            listener: &mut self.listener,
            grace: self.plan.grace,
            load_timeout: self.plan.load_timeout,
            required: needed,
            limits: self.plan.limits,
            held: self.held.clone(),
            status,
            metrics: &mut requests,
            successor: &mut None,
            replaceable: None,
            retiring: None,
            reloading: None,
        };
        live(&mut setting, start, &self.shutdown).await
    }
}

/// Why a child did not come up.
fn unfit(
    ending: Ending,
    death: &Death,
    report: Option<&CrashReport>,
    refused: Vec<Refusal>,
    needed: &BTreeSet<String>,
) -> Unfit {
    let refused: Vec<Refusal> = refused.into_iter().filter(|one| needed.contains(&one.plugin)).collect();
    match ending {
        Ending::Stopped(_) => Unfit::of(Exit::Unavailable, "the host is stopping"),
        _ if !refused.is_empty() => Unfit::without(Exit::PluginRefused, refused),
        Ending::Failed { exit_code, message, .. } => {
            Unfit::of(Exit::from_code(exit_code.into()).unwrap_or(Exit::Unexpected), message)
        }
        _ => {
            let told = |report: &CrashReport| {
                let (plugin, version) = report.plugin.as_deref().zip(report.version.as_deref())?;
                Some(format!(", by the doing of {plugin} {version} on a thread of its own"))
            };
            let whose = report.and_then(told).unwrap_or_default();
            Unfit::of(Exit::Unexpected, format!("the new child {death} before it took over{whose}"))
        }
    }
}
