//! What only a worker with groups says against a plugin set: plugins that need each other must be in one group.
//!
//! Invariant: it judges what stands in the configuration, so that it is told before any process of a group is started.
//!
//! What it refuses: a plugin that nobody has is not its business; that is told by who judges the set.

use std::collections::BTreeMap;

use crate::config::{Settings, Share};
use crate::loader::{Description, Need, Refusal, needs_refusal};

/// The refusals that only a worker with groups has, by name: of plugins that need one that is in another group.
pub(super) fn apart(
    settings: &Settings,
    descriptions: &BTreeMap<String, Description>,
) -> BTreeMap<String, Refusal> {
    let mut refused = BTreeMap::new();
    for group in &settings.groups {
        let share = Share { group: Some(group.name.clone()), generation: 0 };
        let there = settings.of_share(&share).plugins;
        for (name, plugin) in &there {
            let mut needs = descriptions.get(name).into_iter().flat_map(|description| &description.needs);
            let is_apart = |need: &&Need| {
                !need.optional
                    && !there.contains_key(&need.plugin)
                    && settings.plugins.contains_key(&need.plugin)
            };
            if let Some(Need { plugin: other, major, .. }) = needs.find(is_apart) {
                let has_ceiling = |name: &&String| {
                    settings.plugins.get(*name).is_some_and(|one| one.memory_max_mb.is_some())
                };
                let why = [name, other].into_iter().find(has_ceiling).map_or_else(String::new, |name| {
                    format!(" (`plugins.{name}.memory_max_mb` gives it a process of its own)")
                });
                let fault = format!(
                    "needs the plugin `{other}` v{major}, which is not in the worker group `{}`{why}",
                    group.name
                );
                refused.insert(name.clone(), needs_refusal(name, &plugin.library, &fault));
            }
        }
    }
    refused
}
