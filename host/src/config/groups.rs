//! Worker groups: which plugins share a process, and what each of those processes may use.
//!
//! Invariants of what it lets through: names are distinct, every plugin of the set is in exactly one group. Where no group
//! is stated there is none in the settings, and one process has all plugins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::check::Check;
use super::errors::Mistake;
use super::kind::{Kind, integer};
use super::options::{Preset, Row, Section, Settings, preset, section};
use super::own_process;
use super::suggest::nearest;
use super::tree::{Node, Table, Value};

/// The key of `[worker]` under which groups stand.
pub(crate) const KEY: &str = "group";

section! {
    /// One group of a worker's plugins, in processes of their own, written as `[[worker.group]]`; without any, one process has all plugins. What is unset is as in `[worker]`.
    GROUP = "[worker.group]", Group {
        /// Name of the group, in logs, metrics and lists.
        name: String = required("heavy"), Kind::Name;
        /// Plugins of the group; unset means all that no other group names. Every plugin is in exactly one group.
        plugins: Option<Vec<String>> = unset("[\"hello\"]"), Kind::Names;
        /// Processes that each run all plugins of the group, and share their queues.
        processes: u32 = 1, integer(1, 64);
        /// `worker.call_concurrency` of each process.
        call_concurrency: Option<usize> = unset(256), integer(1, 4_096);
        /// `worker.task_concurrency` of each process.
        task_concurrency: Option<usize> = unset(64), integer(1, 4_096);
        /// `worker.plugin_threads` of each process.
        plugin_threads: Option<u32> = unset(2), integer(1, 64);
        /// `worker.recycle_after_tasks` of each process.
        recycle_after_tasks: Option<u64> = unset(100_000), integer(1, 1_000_000_000_000);
        /// `worker.recycle_above_mb` of each process.
        recycle_above_mb: Option<u64> = unset(1_024), integer(16, 16_777_216);
        /// `worker.memory_max_mb` of each process.
        memory_max_mb: Option<u64> = unset(2_048), integer(16, 16_777_216);
    }
}

/// Reads `worker.group`, whose plugins must be those of `plugins`.
pub(crate) fn read(check: &mut Check<'_>, stated: Option<&Node>, plugins: &Map<String, Json>) -> Vec<Json> {
    let Some(node) = stated else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        let mistake = Mistake::new("`worker.group` has the wrong type".to_owned());
        let mistake =
            mistake.at_value(node, format!("expected a list of groups, found {}", node.value.type_name()));
        check.mistakes.push(mistake.help("write each group as a section `[[worker.group]]`".to_owned()));
        return Vec::new();
    };
    let mut groups = Vec::new();
    // Name to where it stands: of groups, and of plugins with their group.
    let mut names: BTreeMap<&str, &Node> = BTreeMap::new();
    let mut placed: BTreeMap<&str, (&Node, &str)> = BTreeMap::new();
    let mut rest: Option<&Node> = None;
    for item in items {
        let Some(table) = check.table("worker.group", item) else { continue };
        groups.push(Json::Object(check.rows("worker.group", GROUP.rows, Some(table))));
        let Some(name) = name(table) else {
            let mistake =
                Mistake::new("a worker group has no name".to_owned()).at_value(item, "`name` is missing");
            check.mistakes.push(mistake.help("add `name = \"…\"`: logs and metrics show it".to_owned()));
            continue;
        };
        let at = table.get("name").unwrap_or(item);
        if let Some(first) = names.insert(name, at) {
            let mistake = Mistake::new(format!("two worker groups are named `{name}`"));
            let mistake = mistake.at_value(at, "second").at_value(first, "first");
            check.mistakes.push(mistake.help("set another `name` for one of them".to_owned()));
        }
        let Some(listed) = table.get("plugins") else {
            if let Some(first) = rest.replace(at) {
                let mistake = Mistake::new("two worker groups have no `plugins`".to_owned());
                let mistake = mistake.at_value(at, "second").at_value(first, "first");
                let help = "only one group can have all plugins that no other names: list those of the other";
                check.mistakes.push(mistake.help(help.to_owned()));
            }
            continue;
        };
        let Value::Array(listed) = &listed.value else { continue };
        for node in listed {
            let Value::String(plugin) = &node.value else { continue };
            place(check, (node, plugin), name, plugins, &mut placed);
        }
    }
    if rest.is_none() && !items.is_empty() {
        let is_left = |plugin: &&String| {
            !placed.contains_key(plugin.as_str()) && !own_process::is_asked_for(plugins, plugin)
        };
        for plugin in plugins.keys().filter(is_left) {
            let mistake = Mistake::new(format!("plugin `{plugin}` is in no worker group"));
            let help = format!(
                "add \"{plugin}\" to the `plugins` of a group, or leave `plugins` out of one group: it then has the rest"
            );
            check.mistakes.push(mistake.at_key(node, "the groups").help(help));
        }
    }
    groups
}

fn place<'n>(
    check: &mut Check<'_>,
    (node, plugin): (&'n Node, &'n str),
    group: &'n str,
    plugins: &Map<String, Json>,
    placed: &mut BTreeMap<&'n str, (&'n Node, &'n str)>,
) {
    if !plugins.contains_key(plugin) {
        let mistake =
            Mistake::new(format!("worker group `{group}` has a plugin `{plugin}` that is not configured"));
        let help = match nearest(plugin, plugins.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a section `[plugins.{plugin}]`, or take it out of the group"),
        };
        check.mistakes.push(mistake.at_value(node, "unknown").help(help));
        return;
    }
    if let Some((first, other)) = placed.insert(plugin, (node, group)) {
        let title = match other == group {
            true => format!("plugin `{plugin}` is twice in worker group `{group}`"),
            false => format!("plugin `{plugin}` is in worker groups `{other}` and `{group}`"),
        };
        let mistake = Mistake::new(title).at_value(node, "second").at_value(first, "first");
        check.mistakes.push(
            mistake.help("take it out of one: more `processes` give it more of the machine".to_owned()),
        );
    }
}

fn name(table: &Table) -> Option<&str> {
    match &table.get("name")?.value {
        Value::String(name) => Some(name),
        _ => None,
    }
}

impl Settings {
    /// The settings of a process of this group: its plugins only, with its limits in place of the worker's. Of a name that
    /// no group has, and of none: all.
    pub(super) fn of_group(&self, name: Option<&str>) -> Self {
        let mut settings = self.clone();
        settings.groups.clear();
        let Some(group) = self.groups.iter().find(|group| Some(group.name.as_str()) == name) else {
            return settings;
        };
        settings.plugins.retain(|plugin, _| self.is_of(plugin, group));
        let worker = &mut settings.worker;
        let Group { call_concurrency, task_concurrency, plugin_threads, .. } = group;
        worker.call_concurrency = call_concurrency.unwrap_or(worker.call_concurrency);
        worker.task_concurrency = task_concurrency.unwrap_or(worker.task_concurrency);
        worker.plugin_threads = plugin_threads.unwrap_or(worker.plugin_threads);
        worker.recycle_after_tasks = group.recycle_after_tasks.or(worker.recycle_after_tasks);
        worker.recycle_above_mb = group.recycle_above_mb.or(worker.recycle_above_mb);
        worker.memory_max_mb = group.memory_max_mb.or(worker.memory_max_mb);
        settings
    }

    /// Plugins that none of the groups has, and names in groups that are no plugin's.
    #[must_use]
    pub fn ungrouped(&self) -> Vec<String> {
        let has = |plugin: &String| {
            self.groups.is_empty() || self.groups.iter().any(|group| self.is_of(plugin, group))
        };
        self.plugins.keys().filter(|plugin| !has(plugin)).cloned().collect()
    }

    fn is_of(&self, plugin: &str, group: &Group) -> bool {
        let names =
            |group: &Group| group.plugins.as_ref().is_some_and(|names| names.iter().any(|one| one == plugin));
        match group.plugins {
            Some(_) => names(group),
            None => !self.groups.iter().any(names),
        }
    }
}
