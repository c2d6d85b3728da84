//! A reload: the configuration is read again, judged, and given to a new child; what hangs on it follows.
//!
//! ```text
//! SIGHUP, POST /reload ─▶ desk ─▶ read ─▶ what stays until a restart ─▶ judge ─▶ process::Reloads ─▶ told
//! ```
//!
//! Invariants: one at a time, in the order in which they are asked for; nothing changes before the new child takes work;
//! a plugin that serves now is never lost because the new set refuses it. Processes of previous libraries come up before the
//! current ones change, and go after they have: there is no moment in which nobody takes what is served before and after.
//!
//! What it refuses to change: what the supervisor has bound, connected to or shares with other hosts ([`STAYS`]). Those are
//! kept, and named.

use super::options::plan;
use super::seats::{Chair, Furniture, chairs};
use crate::admin::{Desk, ReloadResult};
use crate::config::{PluginSettings, Settings};
use crate::exit::Exit;
use crate::process::control::{Refusal, Role};
use crate::process::{Crew, Member, Recruiting, Snapshot, Unfit, crew, hangup_stops};
use cardcage_protocol::Timestamp;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Sections and options that only a restart changes.
const STAYS: [&str; 12] = [
    "api.listen",
    "admin",
    "broker",
    "stores",
    "log",
    "tasks.lease_ms",
    "tasks.result_ttl_s",
    "tasks.idempotency_ttl_s",
    "tasks.dead_max_age_s",
    "tasks.ack_pending_max",
    "tasks.quarantine_after",
    "tasks.quarantine_window_s",
];

/// What a judge finds wrong with a plugin set.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Mistakes in the configuration that only the libraries show, a sentence each.
    pub mistakes: Vec<String>,
    /// Plugins that would not be loaded.
    pub refused: Vec<Refusal>,
    /// Plugins of which a previous library would not be: only workers load those.
    pub refused_previous: Vec<Refusal>,
    /// What went wrong and is no plugin's fault.
    pub unexpected: Option<String>,
}

/// Where a new configuration comes from: the same places as the first.
pub trait Reconfiguration: Send + Sync {
    /// Reads it.
    ///
    /// # Errors
    /// Every mistake in it, for people.
    fn read(&self) -> Result<Settings, String>;

    /// Judges its plugin set, without loading any of it into this process.
    fn judge<'a>(&'a self, settings: &'a Settings) -> BoxFuture<'a, Judgement>;
}

/// Does what is asked for at the desk.
pub(super) struct Reloader {
    pub(super) source: Arc<dyn Reconfiguration>,
    pub(super) desk: Desk,
    pub(super) role: Role,
    /// The seats that there are, in the order in which they are shown.
    pub(super) members: Vec<(Chair, Member)>,
    /// Where others are taken in.
    pub(super) recruiting: Recruiting,
    pub(super) furniture: Furniture,
    pub(super) crew: Crew,
    /// What the children that serve were given.
    pub(super) settings: watch::Sender<Arc<Settings>>,
}

impl Reloader {
    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let number = self.desk.next().await;
            tracing::info!(number, "the configuration is read again");
            let mut needs_restart = Vec::new();
            let outcome = self.reload(&mut needs_restart).await;
            let now = match &outcome {
                Ok(now) => now.clone(),
                Err(_) => self.crew.snapshot(),
            };
            let (exit, reasons, refusals) = match outcome {
                Ok(_) => {
                    tracing::info!(number, needs_restart = needs_restart.join(", "), "the reload is done");
                    (Exit::Success, Vec::new(), now.refused.clone())
                }
                Err(Unfit { exit, reasons, refused }) => {
                    let reason = reasons.join("; ");
                    tracing::error!(
                        number,
                        code = exit.code(),
                        reason,
                        "the reload was refused; nothing has changed"
                    );
                    (exit, reasons, refused)
                }
            };
            let plugins = now.plugins.iter().map(|plugin| format!("{} {}", plugin.name, plugin.version));
            self.desk.end(ReloadResult {
                number,
                at: Timestamp::now(),
                exit_code: exit.code(),
                reasons,
                needs_restart,
                plugins: plugins.collect(),
                refused: now.refused.iter().map(Refusal::to_string).collect(),
                refusals,
            });
        }
    }

    async fn reload(&mut self, needs_restart: &mut Vec<String>) -> Result<Snapshot, Unfit> {
        let read = self.source.read().map_err(|mistakes| refuse(Exit::Config, vec![mistakes]))?;
        let current = self.settings.borrow().clone();
        let (settings, kept) = keep(&current, &read).map_err(fault)?;
        *needs_restart = kept;
        let settings = self.keep_groups(&current, settings, needs_restart)?;
        let serving: BTreeSet<String> =
            self.crew.snapshot().plugins.into_iter().map(|one| one.name).collect();
        let is_needed =
            |(name, plugin): &(&String, &PluginSettings)| plugin.required || serving.contains(*name);
        let needed = settings.plugins.iter().filter(is_needed).map(|(name, _)| name.clone()).collect();
        self.judge(&settings, &needed).await?;
        let chairs = chairs(self.role, &settings);
        let is_new = |chair: &&Chair| !self.members.iter().any(|(known, _)| known == *chair);
        let new = self.take_in(chairs.iter().filter(is_new), &settings, &needed).await?;
        let stays = |(chair, _): &&(Chair, Member)| chairs.contains(chair);
        if let Err(unfit) = self.lead(self.members.iter().filter(stays), &settings).await {
            new.iter().for_each(|(_, member)| member.dismiss());
            return Err(unfit);
        }
        for (_, member) in &new {
            member.admit();
            self.crew.add(member.handle.clone());
        }
        self.members.extend(new);
        // After the others have followed: until then what they have serves.
        let (crew, members) = (&self.crew, &mut self.members);
        members.retain(|(chair, member)| {
            let stays = chairs.contains(chair);
            if !stays {
                crew.remove(&member.handle.status.snapshot().instance);
                member.dismiss();
            }
            stays
        });
        self.settings.send_replace(Arc::new(settings));
        Ok(self.crew.snapshot())
    }

    /// Whether the libraries themselves speak against it. `needed`: without which nothing changes.
    async fn judge(&self, settings: &Settings, needed: &BTreeSet<String>) -> Result<(), Unfit> {
        let Judgement { mistakes, mut refused, refused_previous, unexpected } =
            self.source.judge(settings).await;
        if !mistakes.is_empty() {
            return Err(refuse(Exit::Config, mistakes));
        }
        if self.role == Role::Worker {
            refused.extend(refused_previous);
        }
        refused.retain(|one| needed.contains(&one.plugin));
        if !refused.is_empty() {
            return Err(Unfit::without(Exit::PluginRefused, refused));
        }
        unexpected.map_or(Ok(()), |unexpected| Err(refuse(Exit::Unexpected, vec![unexpected])))
    }

    /// Brings up seats that there were not, beside those that serve: all of them, or none.
    async fn take_in(
        &self,
        chairs: impl Iterator<Item = &Chair>,
        settings: &Settings,
        needed: &BTreeSet<String>,
    ) -> Result<Vec<(Chair, Member)>, Unfit> {
        let trials = chairs.map(|chair| async move {
            tracing::info!(
                group = chair.seat.as_ref().map(|seat| &seat.group),
                "another worker process is started"
            );
            let supervisor = self.furniture.seat(chair, settings, None).map_err(fault)?;
            Ok((chair.clone(), self.recruiting.try_out(supervisor, needed).await?))
        });
        let trials: Vec<Result<_, Unfit>> = futures_util::future::join_all(trials).await;
        let (mut up, mut unfit) = (Vec::new(), None);
        for trial in trials {
            match trial {
                Ok(member) => up.push(member),
                Err(why) => unfit = unfit.or(Some(why)),
            }
        }
        match unfit {
            None => Ok(up),
            Some(unfit) => {
                up.iter().for_each(|(_, member)| member.dismiss());
                Err(unfit)
            }
        }
    }

    /// Gives the seats that stay what they are to have: all of them follow, or none does.
    async fn lead(
        &self,
        members: impl Iterator<Item = &(Chair, Member)>,
        settings: &Settings,
    ) -> Result<(), Unfit> {
        let plan = |(chair, member): &(Chair, Member)| {
            let plan = plan(self.role, &settings.of_share(&chair.share)).map_err(fault)?;
            Ok((member.reloads.clone(), plan))
        };
        let plans = members.map(plan).collect::<Result<Vec<_>, Unfit>>()?;
        match plans.as_slice() {
            // Nobody has to wait for anybody.
            [(reloads, plan)] => reloads.reload(plan.clone()).await.map(drop),
            plans => crew::reload(plans).await,
        }
    }

    /// Which groups there are, and how many processes, stays until a restart: what each has, and may use, does not.
    fn keep_groups(
        &self,
        current: &Settings,
        mut new: Settings,
        needs_restart: &mut Vec<String>,
    ) -> Result<Settings, Unfit> {
        let groups = |settings: &Settings| -> Vec<Chair> {
            let chairs = chairs(self.role, settings).into_iter();
            chairs.filter(|chair| chair.share.generation == 0).collect()
        };
        if groups(current) == groups(&new) {
            return Ok(new);
        }
        let ceilings = self::ceilings(current, &mut new);
        match ceilings.is_empty() {
            true => needs_restart.push("worker.group".to_owned()),
            false => needs_restart.extend(ceilings),
        }
        new.groups.clone_from(&current.groups);
        let out = new.ungrouped();
        if out.is_empty() {
            return Ok(new);
        }
        let reason = format!(
            "{} would be in none of the worker groups that there are; other groups need a restart: keep the groups' \
             names and processes for this reload, or restart the worker",
            out.join(", ")
        );
        Err(refuse(Exit::Config, vec![reason]))
    }
}

/// Puts back which plugins have a memory ceiling, and thereby a group; names the options of those that would have got or lost one.
fn ceilings(current: &Settings, new: &mut Settings) -> Vec<String> {
    let mut changed = Vec::new();
    for (name, plugin) in &mut new.plugins {
        let before = current.plugins.get(name).and_then(|plugin| plugin.memory_max_mb);
        if before.is_some() != plugin.memory_max_mb.is_some() {
            plugin.memory_max_mb = before;
            changed.push(format!("plugins.{name}.memory_max_mb"));
        }
    }
    changed
}

fn fault(error: impl std::fmt::Display) -> Unfit {
    refuse(
        Exit::Unexpected,
        vec![format!(
            "the new plugin set cannot be set up ({error}): a fault of cardcage, or of this machine"
        )],
    )
}

fn refuse(exit: Exit, reasons: Vec<String>) -> Unfit {
    Unfit { exit, reasons, refused: Vec::new() }
}

/// The new settings, with what only a restart changes as it was; and the names of that.
fn keep(current: &Settings, new: &Settings) -> Result<(Settings, Vec<String>), serde_json::Error> {
    let (old, mut json) = (serde_json::to_value(current)?, serde_json::to_value(new)?);
    let mut kept = Vec::new();
    for stays in STAYS {
        let (section, option) = stays.split_once('.').map_or((stays, None), |(a, b)| (a, Some(b)));
        let (Some(old), Some(new)) = (old.get(section), json.get_mut(section)) else { continue };
        let (Value::Object(old), Value::Object(new)) = (old, new) else { continue };
        for (name, value) in old.iter().filter(|(name, _)| option.is_none_or(|option| option == *name)) {
            if new.get(name) != Some(value) {
                kept.push(format!("{section}.{name}"));
                new.insert(name.clone(), value.clone());
            }
        }
    }
    let mut settings: Settings = serde_json::from_value(json)?;
    // The lease that stays must still outlive the drain.
    if settings.drain.grace_ms > settings.tasks.lease_ms / 3 * 2 {
        kept.push("drain.grace_ms".to_owned());
        settings.drain.grace_ms = current.drain.grace_ms;
    }
    Ok((settings, kept))
}

/// Hears SIGHUP, unless it stops this host: from now on it ends no process, also while the host is being set up. Call it inside a
/// tokio runtime.
pub(super) fn hangups() -> std::io::Result<Option<Signal>> {
    (!hangup_stops()).then(|| signal(SignalKind::hangup())).transpose()
}

/// Turns each into a reload.
pub(super) async fn on_hangup(hangups: Option<Signal>, desk: Desk) {
    let Some(mut hangups) = hangups else { return };
    while hangups.recv().await.is_some() {
        desk.ask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn settings(assignments: &[&str]) -> Settings {
        let assignments = assignments.iter().map(|one| one.parse().unwrap()).collect();
        load(&Sources { assignments, ..Sources::default() }).unwrap()
    }

    #[test]
    fn what_is_bound_or_shared_stays_and_is_named_and_the_rest_is_taken() {
        let current = settings(&[]);
        let new = settings(&[
            "api.listen=127.0.0.1:1",
            "api.in_flight_max=7",
            "broker.url=nats://127.0.0.1:1",
            "tasks.lease_ms=90000",
            "drain.grace_ms=60000",
            "worker.task_concurrency=3",
        ]);
        let (settings, kept) = keep(&current, &new).unwrap();
        assert_eq!(kept, ["api.listen", "broker.url", "tasks.lease_ms", "drain.grace_ms"]);
        assert_eq!((settings.api.listen, &settings.broker), (current.api.listen, &current.broker));
        assert_eq!(settings.drain.grace_ms, current.drain.grace_ms, "it would outlive the lease that stays");
        assert_eq!((settings.api.in_flight_max, settings.worker.task_concurrency), (7, 3));
        assert_eq!(keep(&current, &current).unwrap(), (current, vec![]));
    }
}
