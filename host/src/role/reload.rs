//! A reload: the configuration is read again, judged, and given to a new child; what hangs on it follows.
//!
//! ```text
//! SIGHUP, POST /reload ─▶ desk ─▶ read ─▶ what stays until a restart ─▶ judge ─▶ process::Reloads ─▶ told
//! ```
//!
//! Invariants: one at a time, in the order in which they are asked for; nothing changes before the new child takes work;
//! a plugin that serves now is never lost because the new set refuses it.
//!
//! What it refuses to change: what the supervisor has bound, connected to or shares with other hosts ([`STAYS`]). Those are
//! kept, and named.

use super::options::plan;
use super::seats::{self, seats};
use crate::admin::{Desk, ReloadResult};
use crate::config::Settings;
use crate::exit::Exit;
use crate::process::control::Role;
use crate::process::{Crew, Reloads, Seat, Snapshot, Unfit, crew, hangup_stops};
use cardcage_protocol::Timestamp;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
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
    /// Plugins that would not be loaded, with a sentence each.
    pub refused: Vec<(String, String)>,
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
    pub(super) reloads: Vec<(Option<Seat>, Reloads)>,
    pub(super) crew: Crew,
    /// What the children that serve were given.
    pub(super) settings: watch::Sender<Arc<Settings>>,
}

impl Reloader {
    /// Works until it is dropped.
    pub(super) async fn run(self) {
        loop {
            let number = self.desk.next().await;
            tracing::info!(number, "the configuration is read again");
            let mut needs_restart = Vec::new();
            let outcome = self.reload(&mut needs_restart).await;
            let now = match &outcome {
                Ok(now) => now.clone(),
                Err(_) => self.crew.snapshot(),
            };
            let (exit, reasons) = match outcome {
                Ok(_) => {
                    tracing::info!(number, needs_restart = needs_restart.join(", "), "the reload is done");
                    (Exit::Success, Vec::new())
                }
                Err(Unfit { exit, reasons }) => {
                    let reason = reasons.join("; ");
                    tracing::error!(
                        number,
                        code = exit.code(),
                        reason,
                        "the reload was refused; nothing has changed"
                    );
                    (exit, reasons)
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
                refused: now.refused.iter().map(|refusal| refusal.message.clone()).collect(),
            });
        }
    }

    async fn reload(&self, needs_restart: &mut Vec<String>) -> Result<Snapshot, Unfit> {
        let fault = |error: serde_json::Error| {
            refuse(
                Exit::Unexpected,
                vec![format!("the settings cannot be passed on ({error}): a fault of cardcage")],
            )
        };
        let read = self.source.read().map_err(|mistakes| refuse(Exit::Config, vec![mistakes]))?;
        let current = self.settings.borrow().clone();
        let (settings, kept) = keep(&current, &read).map_err(fault)?;
        *needs_restart = kept;
        let settings = self.keep_groups(&current, settings, needs_restart)?;
        let serving: Vec<String> = self.crew.snapshot().plugins.into_iter().map(|one| one.name).collect();
        let Judgement { mistakes, refused, unexpected } = self.source.judge(&settings).await;
        if !mistakes.is_empty() {
            return Err(refuse(Exit::Config, mistakes));
        }
        let is_needed = |plugin: &String| {
            serving.contains(plugin) || settings.plugins.get(plugin).is_some_and(|one| one.required)
        };
        let lost: Vec<String> =
            refused.into_iter().filter(|(plugin, _)| is_needed(plugin)).map(|(_, why)| why).collect();
        if !lost.is_empty() {
            return Err(refuse(Exit::PluginRefused, lost));
        }
        if let Some(unexpected) = unexpected {
            return Err(refuse(Exit::Unexpected, vec![unexpected]));
        }
        let of_seat = |(seat, reloads): &(Option<Seat>, Reloads)| {
            Ok((reloads.clone(), plan(&settings.of_group(seats::group(seat))).map_err(fault)?))
        };
        let plans = self.reloads.iter().map(of_seat).collect::<Result<Vec<_>, Unfit>>()?;
        match plans.as_slice() {
            // Nobody has to wait for anybody.
            [(reloads, plan)] => drop(reloads.reload(plan.clone()).await?),
            plans => crew::reload(plans).await?,
        }
        self.settings.send_replace(Arc::new(settings));
        Ok(self.crew.snapshot())
    }

    /// Which groups there are, and how many processes, stays until a restart: what each has, and may use, does not.
    fn keep_groups(
        &self,
        current: &Settings,
        mut new: Settings,
        needs_restart: &mut Vec<String>,
    ) -> Result<Settings, Unfit> {
        if seats(self.role, current) == seats(self.role, &new) {
            return Ok(new);
        }
        needs_restart.push("worker.group".to_owned());
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

fn refuse(exit: Exit, reasons: Vec<String>) -> Unfit {
    Unfit { exit, reasons }
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

/// Turns SIGHUP into a reload, unless it stops this host. Call it inside a tokio runtime.
pub(super) fn on_hangup(desk: Desk) -> std::io::Result<tokio::task::JoinHandle<()>> {
    if hangup_stops() {
        return Ok(tokio::spawn(async {}));
    }
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            desk.ask();
        }
    }))
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
