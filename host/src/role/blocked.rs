//! Finds plugins whose runtime does not run, because a handler, or something that it started, holds its threads.
//!
//! Each plugin's runtime is asked for a sign of life once a second, by a task that does nothing. One that gives none within
//! [`PATIENCE`] is blocked until it does: its other handlers wait, its timers are late. The supervisor ends a handler
//! only at its time limit; until then this says who waits for whom.
//!
//! Invariants: a plugin is asked once at a time, so one that is blocked for hours has one question waiting. A host that was
//! starved itself blames nobody.
//!
//! What it refuses: it ends nothing. A handler that holds a thread which the host lent blocks no plugin, and is told by
//! `loader::Lending`.

use super::child::report;
use super::metrics::line;
use crate::crash::Board;
use crate::loader::{Plugin, PluginSet};
use crate::process::BlockedPlugin;
use crate::process::child::Outbox;
use crate::process::control::ToSupervisor;
use cardcage_protocol::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often a plugin is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A timer of the host's own that is later than this says that the host was starved.
const LATE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Seen {
    /// How often each plugin was blocked.
    times: BTreeMap<String, u64>,
    now: Vec<BlockedPlugin>,
}

/// Which plugins are blocked. Clones see the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocked {
    seen: Arc<Mutex<Seen>>,
}

impl Blocked {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that holds the lock panics.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the plugins of the set for as long as the child lives.
    pub(super) fn watch(&self, set: &PluginSet, board: Board, outbox: &Outbox) {
        for (_, plugin) in &set.plugins {
            self.seen().times.insert(plugin.identity.name.to_string(), 0);
            tokio::spawn(self.clone().ask(plugin.clone(), board, outbox.clone()));
        }
    }

    async fn ask(self, plugin: Arc<Plugin>, board: Board, outbox: Outbox) {
        let (name, version) = (&*plugin.identity.name, &*plugin.identity.version);
        loop {
            tokio::time::sleep(EVERY).await;
            let (asked, mut pulse) = (Instant::now(), plugin.pulse());
            if timeout(PATIENCE, &mut pulse).await.is_ok() || asked.elapsed() > PATIENCE + LATE {
                continue;
            }
            let held_by = board.handlers_of(plugin.index);
            tracing::warn!(
                plugin = name,
                version,
                held_by = held_by.join(", "),
                "a plugin's runtime is blocked: its other handlers wait; blocking work belongs on `spawn_blocking`"
            );
            let since = Timestamp::now();
            self.tell(&outbox, |seen| {
                *seen.times.entry(name.to_owned()).or_default() += 1;
                let (plugin, version) = (name.to_owned(), version.to_owned());
                seen.now.push(BlockedPlugin { plugin, version, since, held_by });
            });
            // However it ends: a runtime that was stopped holds nobody up.
            let _ = pulse.await;
            let blocked_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                plugin = name,
                version,
                blocked_ms,
                "a plugin's runtime that was blocked runs again"
            );
            self.tell(&outbox, |seen| seen.now.retain(|one| one.plugin != name));
        }
    }

    fn tell(&self, outbox: &Outbox, change: impl FnOnce(&mut Seen)) {
        let plugins = {
            let mut seen = self.seen();
            change(&mut seen);
            seen.now.clone()
        };
        report(outbox, &ToSupervisor::Blocked { plugins });
    }

    /// How often each plugin was blocked, for `/metrics`.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("# TYPE cardcage_plugin_blocked_total counter\n");
        for (plugin, count) in &self.seen().times {
            line(&mut text, "cardcage_plugin_blocked_total", &format!("{{plugin=\"{plugin}\"}}"), count);
        }
        text
    }
}
