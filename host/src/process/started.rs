//! Plugins that a child has begun to start: who is who on its board, and whose doing its death was.
//!
//! While one plugin is loaded, threads of those before it run already, also of one that did not start: its library stays. A child
//! that dies then need not have died of the one that was loaded: where the thread that faulted is not the one that loads, and
//! stood in the library of another plugin, it was that one's doing.
//!
//! Invariants: a number means one plugin for as long as the child lives; nobody but the plugin that is loaded is blamed without an
//! address in their library.

use super::control::Phase;
use super::crash_report::Wound;
use crate::crash::Board;

/// A plugin that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number on the board.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The path of its library.
    pub file: String,
}

/// Those that were begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Started(Vec<Begun>);

impl Started {
    /// Notes whose step is next.
    pub(super) fn enter(&mut self, phase: &Phase) {
        let Some(number) = phase.index else { return };
        let Phase { plugin, version, file, .. } = phase.clone();
        self.0.push(Begun { number, name: plugin, version, file });
    }

    /// The plugin with this number on the board.
    pub(super) fn numbered(&self, number: u32) -> Option<&Begun> {
        self.0.iter().find(|one| one.number == number)
    }

    /// The plugin of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Begun> {
        self.0.iter().find(|one| one.name == name)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Begun> {
        self.0.clone()
    }

    /// Whether the child died of another plugin than the one that was in this step.
    pub(super) fn is_of_another(&self, phase: &Phase, board: &Board) -> bool {
        let wound = Wound::of(board);
        let is_loading = board.culprit() == Some(phase.thread);
        // What loads has the addresses of all that were loaded before on its stack.
        let place = wound.at.or(wound.from.filter(|_| !is_loading));
        let of = place.and_then(|place| self.numbered(place.plugin));
        of.is_some_and(|one| one.name != phase.plugin)
    }
}

#[cfg(test)]
impl FromIterator<(u32, &'static str)> for Started {
    fn from_iter<T: IntoIterator<Item = (u32, &'static str)>>(plugins: T) -> Self {
        let begun = |(number, name): (u32, &str)| {
            let file = format!("lib{name}.so");
            Begun { number, name: name.into(), version: "1.2.3".into(), file }
        };
        Self(plugins.into_iter().map(begun).collect())
    }
}
