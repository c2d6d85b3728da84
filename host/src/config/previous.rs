//! Previous libraries: which part of the plugin set one process has, where a plugin has several majors side by side.
//!
//! ```text
//! [plugins.a] library = A3, previous = [A2, A1]     generation 0: A3, B2   1: A2, B1   2: A1
//! [plugins.b] library = B2, previous = [B1]
//! ```
//!
//! Within a process a plugin is known by its name alone, and what crashes old code is to leave the new alone: so the libraries of
//! each generation have processes of their own, for each worker group that has some.
//!
//! Invariants: a share has one library of a plugin at most; what the other shares of its group have, it knows by name and file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::options::{PluginSettings, Settings, TaskOverrides};

/// What the processes of previous libraries are called, with their generation behind it and, after a `/` that no configured name
/// has, behind their group.
const NAME: &str = "previous";

/// What one process has of the plugin set: the libraries of one generation, of one worker group where there are groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The worker group that is configured.
    pub group: Option<String>,
    /// 0: the current libraries; n: each plugin's n-th previous one.
    pub generation: usize,
}

impl Share {
    /// All current libraries.
    pub const CURRENT: Self = Self { group: None, generation: 0 };

    /// What its processes are called in logs, metrics and lists; `None`: they are the host's only current ones.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match (&self.group, self.generation) {
            (group, 0) => group.clone(),
            (None, generation) => Some(format!("{NAME}-{generation}")),
            (Some(group), generation) => Some(format!("{group}/{NAME}-{generation}")),
        }
    }
}

/// What the settings of a share say beside its own plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its generation.
    pub generation: usize,
    /// What other processes of the host have of the same plugins, in the order of the generations.
    pub elsewhere: Vec<Generation>,
}

/// The libraries of one generation, by plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Which one.
    pub number: usize,
    /// The plugins that have a library in it.
    pub plugins: BTreeMap<String, Elsewhere>,
}

/// A plugin's library that another process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The file.
    pub library: PathBuf,
    /// The operator's limits of its tasks: they hold also for what is enqueued here.
    pub tasks: BTreeMap<String, TaskOverrides>,
}

impl PluginSettings {
    /// The plugin's library of this generation.
    #[must_use]
    pub fn library_of(&self, generation: usize) -> Option<&PathBuf> {
        match generation.checked_sub(1) {
            None => Some(&self.library),
            Some(place) => self.previous.get(place),
        }
    }

    /// All of its libraries, the current one first.
    pub fn libraries(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.library).chain(&self.previous)
    }
}

impl Settings {
    /// The shares that a worker's processes have, each with how many they are: those of the current libraries first.
    #[must_use]
    pub fn shares(&self) -> Vec<(Share, u32)> {
        let groups: Vec<(Option<String>, u32)> = match self.groups.is_empty() {
            true => vec![(None, 1)],
            false => self.groups.iter().map(|one| (Some(one.name.clone()), one.processes)).collect(),
        };
        let of = |(group, processes): &(Option<String>, u32)| {
            let last = self.of_group(group.as_deref()).generations();
            let (group, processes) = (group.clone(), *processes);
            (0..=last).map(move |generation| (Share { group: group.clone(), generation }, processes))
        };
        let mut shares: Vec<(Share, u32)> = groups.iter().flat_map(of).collect();
        shares.sort_by_key(|(share, _)| share.generation);
        shares
    }

    /// The settings of a process with this share: its libraries as if they were the only ones, and what is elsewhere.
    #[must_use]
    pub fn of_share(&self, share: &Share) -> Self {
        let mut settings = self.of_group(share.group.as_deref());
        let elsewhere = (0..=settings.generations()).filter(|number| *number != share.generation);
        let elsewhere = elsewhere.map(|number| settings.generation(number)).collect();
        settings.part = Part { generation: share.generation, elsewhere };
        settings.plugins.retain(|_, plugin| match plugin.library_of(share.generation).cloned() {
            Some(library) => {
                plugin.library = library;
                plugin.previous.clear();
                true
            }
            None => false,
        });
        settings
    }

    /// The last generation that there is.
    fn generations(&self) -> usize {
        self.plugins.values().map(|plugin| plugin.previous.len()).max().unwrap_or(0)
    }

    fn generation(&self, number: usize) -> Generation {
        let elsewhere = |(name, plugin): (&String, &PluginSettings)| {
            let library = plugin.library_of(number)?.clone();
            Some((name.clone(), Elsewhere { library, tasks: plugin.tasks.clone() }))
        };
        Generation { number, plugins: self.plugins.iter().filter_map(elsewhere).collect() }
    }
}
