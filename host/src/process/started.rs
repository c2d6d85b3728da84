//! Plugins that a child has begun to start: who is who on its board before it serves, and whose doing its death was.
//!
//! While one plugin is loaded, threads of those before it run already. A child that dies then need not have died of the one that
//! was loaded: where the thread that faulted is not the one that loads, and stood in the library of another plugin, it was that
//! one's doing.
//!
//! Invariant: nobody but the plugin that is loaded is blamed without an address in their library.

use super::control::{LoadedPlugin, Phase};
use super::crash_report::Wound;
use crate::crash::Board;

/// Those that were begun, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Started(Vec<LoadedPlugin>);

impl Started {
    /// Notes whose step is next.
    pub(super) fn enter(&mut self, phase: &Phase) {
        let Some(place) = phase.index.and_then(|index| usize::try_from(index).ok()?.checked_sub(1)) else {
            return;
        };
        // One that did not start has given up its number.
        self.0.truncate(place);
        self.0.push(LoadedPlugin {
            name: phase.plugin.clone(),
            version: phase.version.clone(),
            is_loaded: true,
            routes: 0,
            tasks: 0,
            task_names: Vec::new(),
            called: Vec::new(),
        });
    }

    /// All of them, as the board numbers them.
    pub(super) fn into_plugins(self) -> Vec<LoadedPlugin> {
        self.0
    }

    /// Whether the child died of another plugin than the one that was in this step.
    pub(super) fn is_of_another(&self, phase: &Phase, board: &Board) -> bool {
        let wound = Wound::of(board);
        let is_loading = board.culprit() == Some(phase.thread);
        // What loads has the addresses of all that were loaded before on its stack.
        let place = wound.at.or(wound.from.filter(|_| !is_loading));
        let place = place.and_then(|place| usize::try_from(place.plugin).ok()?.checked_sub(1));
        place.and_then(|place| self.0.get(place)).is_some_and(|one| one.name != phase.plugin)
    }
}
