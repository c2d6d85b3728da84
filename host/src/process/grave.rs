//! What remains of a child: its board is read and emptied, it is said who died of what, and its debts are paid.

use super::control::LoadedPlugin;
use super::fate::fates;
use super::lease::now_unix_ms;
use super::life::{Ending, Lived};
use super::supervisor::{AFTERMATH_MAX, Aftermath};
use super::{Fate, Scene};
use crate::crash::{Board, Entry, Kind};
use std::sync::Arc;

/// Where a child's death is dealt with.
pub(super) struct Grave {
    pub(super) board: Board,
    pub(super) hooks: Arc<dyn Aftermath>,
    /// The plugins that it had loaded.
    pub(super) plugins: Vec<LoadedPlugin>,
}

impl Grave {
    /// Deals with it; the board can be used by another child then.
    pub(super) async fn bury(&self, lived: &Lived) {
        let board = &self.board;
        let entries = board.live();
        let scene = Scene {
            polling: board.polling(),
            culprit: board.culprit(),
            stopping: matches!(lived.ending, Ending::Stopped(_) | Ending::Replaced),
        };
        let polled = polled(&scene, &entries, &self.plugins);
        // At once: while entries stand there, their leases are renewed.
        board.reset();
        if entries.is_empty() && lived.ending != Ending::Serving {
            return;
        }
        let mut fates = fates(&entries, &scene, &lived.death);
        let now = now_unix_ms();
        for (entry, fate) in entries.iter().zip(&mut fates) {
            if *fate == Fate::Interrupted && entry.hard_deadline_unix_ms < now {
                *fate = Fate::TimedOut;
            }
        }
        let of = |fate| fates.iter().filter(|known| **known == fate).count();
        let tasks = entries.iter().filter(|entry| entry.kind.is_task()).count();
        tracing::error!(
            how = %lived.death,
            alive_ms = u64::try_from(lived.alive.as_millis()).unwrap_or(u64::MAX),
            polled = polled.join(", "),
            calls = entries.len() - tasks,
            tasks,
            crashed = of(Fate::Crashed),
            suspected = of(Fate::Suspected),
            "the child died, or ended with work unfinished"
        );
        let remains = entries.into_iter().zip(fates).collect();
        let hooks = self.hooks.child_died(remains, self.plugins.clone(), lived.death.clone());
        if tokio::time::timeout(AFTERMATH_MAX, hooks).await.is_err() {
            tracing::error!("answering for the dead child took too long; its leases will run out instead");
        }
    }
}

/// What the child's threads were polling, in words; ids as the other logs write them.
fn polled(scene: &Scene, entries: &[Entry], plugins: &[LoadedPlugin]) -> Vec<String> {
    let named = scene.polling.iter().map(|thread| {
        let id = uuid::Uuid::from_bytes(thread.id);
        let request = id.simple();
        if let Some(entry) = entries.iter().find(|entry| entry.id == thread.id) {
            return match entry.kind {
                Kind::Call => format!("{}/{} {request}", entry.plugin, entry.name),
                Kind::Task | Kind::Suspect => format!("{}/{} {id}", entry.plugin, entry.name),
            };
        }
        // Inline handlers stand on no board: their caller's connection is what they owe.
        let place = usize::try_from(thread.plugin).ok().and_then(|place| place.checked_sub(1));
        match place.and_then(|place| plugins.get(place)) {
            Some(plugin) => format!("{} {request}", plugin.name),
            None => format!("plugin {} {request}", thread.plugin),
        }
    });
    named.collect()
}
