//! What remains of a child: its board is read and emptied, it is said who died of what, and its debts are paid.

use super::aftermath::{AFTERMATH_MAX, Aftermath, Deceased};
use super::crash_report::{self, Cause, CrashReport, Wound};
use super::fate::fates;
use super::lease::now_unix_ms;
use super::life::{Ending, Lived};
use super::started::Started;
use super::status::Status;
use super::{Fate, Scene};
use crate::crash::{Board, Entry, Kind};
use std::sync::Arc;

/// Where a child's death is dealt with.
pub(super) struct Grave {
    pub(super) board: Board,
    pub(super) hooks: Arc<dyn Aftermath>,
    /// Where it is shown.
    pub(super) status: Status,
}

impl Grave {
    /// Deals with it; the board can be used by another child then. Answers what is said of it, where it is worth a report.
    pub(super) async fn bury(&self, lived: &Lived) -> Option<CrashReport> {
        let board = &self.board;
        let begun = &lived.begun;
        let entries = board.live();
        let wound = Wound::of(board);
        let scene = Scene {
            polling: board.polling(),
            culprit: board.culprit(),
            plugin: wound.plugin(begun).map(|plugin| plugin.name.clone()),
            stopping: matches!(lived.ending, Ending::Stopped(_) | Ending::Replaced),
        };
        let polled = polled(&scene, &entries, begun);
        // At once: while entries stand there, their leases are renewed.
        board.reset();
        let mut fates = fates(&entries, &scene, &lived.death);
        let now = now_unix_ms();
        for (entry, fate) in entries.iter().zip(&mut fates) {
            if *fate == Fate::Interrupted && entry.hard_deadline_unix_ms < now {
                *fate = Fate::TimedOut;
            }
        }
        let of = |fate| fates.iter().filter(|known| **known == fate).count();
        let tasks = entries.iter().filter(|entry| entry.kind.is_task()).count();
        let report = crash_report::report(&lived.death, &scene, &wound, &entries, &fates, begun);
        // Also where nothing was in flight: a plugin ended the child in its start, or while it was to stop.
        let is_own = report.plugin.is_some() && matches!(report.cause, Cause::Signal | Cause::Exit);
        let is_told = is_own && !matches!(lived.ending, Ending::Loading(_));
        if entries.is_empty() && lived.ending != Ending::Serving && !is_told {
            return None;
        }
        tracing::error!(
            how = %lived.death,
            cause = report.cause.as_str(),
            plugin = report.plugin,
            version = report.version,
            kind = report.work.as_ref().and_then(|work| work.kind),
            name = report.work.as_ref().and_then(|work| work.name.as_deref()),
            id = report.work.as_ref().map(|work| work.id.as_str()),
            library_offset = report.library_offset,
            is_stack_overflow = report.is_stack_overflow.then_some(true),
            alive_ms = u64::try_from(lived.alive.as_millis()).unwrap_or(u64::MAX),
            polled = polled.join(", "),
            calls = entries.len() - tasks,
            tasks,
            crashed = of(Fate::Crashed),
            suspected = of(Fate::Suspected),
            "the child died, or ended with work unfinished"
        );
        if !scene.stopping || is_own {
            self.status.update(|now| now.report(report.clone()));
        }
        let owed = |(entry, _): &(Entry, Fate)| entry.kind != Kind::Inline;
        let remains = entries.into_iter().zip(fates).filter(owed).collect();
        let child = Deceased { begun: begun.all(), how: lived.death.clone(), alive: lived.alive };
        let hooks = self.hooks.child_died(remains, child);
        if tokio::time::timeout(AFTERMATH_MAX, hooks).await.is_err() {
            tracing::error!("answering for the dead child took too long; its leases will run out instead");
        }
        Some(report).filter(|_| !scene.stopping)
    }
}

/// What the child's threads were polling, in words; ids as the other logs write them.
fn polled(scene: &Scene, entries: &[Entry], begun: &Started) -> Vec<String> {
    let named = scene.polling.iter().map(|thread| {
        let id = uuid::Uuid::from_bytes(thread.id);
        let request = id.simple();
        if let Some(entry) = entries.iter().find(|entry| entry.id == thread.id) {
            return match entry.kind {
                Kind::Call | Kind::Inline => format!("{}/{} {request}", entry.plugin, entry.name),
                Kind::Task | Kind::Suspect => format!("{}/{} {id}", entry.plugin, entry.name),
            };
        }
        // Given up before, or more were in flight than there is room for.
        match begun.numbered(thread.plugin) {
            Some(plugin) => format!("{} {request}", plugin.name),
            None => format!("plugin {} {request}", thread.plugin),
        }
    });
    named.collect()
}
