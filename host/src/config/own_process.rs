//! Plugins with a ceiling for their memory: each has a worker process of its own.
//!
//! Memory is a process's, and nobody can say how much of it which of several plugins has. So a plugin with a ceiling is a worker
//! group of its name, made here unless the operator has written one with it alone.
//!
//! Invariant: whoever reads groups later finds one with such a plugin and no other, and the plugin's ceiling in it.

use serde_json::{Map, Value as Json, json};

use super::check::Check;
use super::errors::Mistake;
use super::groups::GROUP;
use super::tree::{Node, Table};

const OPTION: &str = "memory_max_mb";

/// What the group of all others is called where the operator has written none, unless a plugin is called so.
const OTHERS: &str = "rest";

/// Whether a plugin has a ceiling of its own.
pub(super) fn is_asked_for(plugins: &Map<String, Json>, plugin: &str) -> bool {
    ceiling(plugins, plugin).is_some()
}

fn ceiling<'a>(plugins: &'a Map<String, Json>, plugin: &str) -> Option<&'a Json> {
    plugins.get(plugin)?.get(OPTION).filter(|ceiling| !ceiling.is_null())
}

/// Adds the groups of plugins that have a ceiling to those that the operator has written; `stated` is where plugins are.
pub(super) fn add(
    check: &mut Check<'_>,
    groups: &mut Vec<Json>,
    stated: Option<&Table>,
    plugins: &Map<String, Json>,
) {
    let is_grouped = !groups.is_empty();
    list_the_only_one(check, groups, plugins);
    for plugin in plugins.keys() {
        let Some(ceiling) = ceiling(plugins, plugin) else { continue };
        let is_name_taken = groups.iter().any(|group| group["name"] == json!(plugin));
        let has_it = |group: &&mut Json| names(group).is_some_and(|names| names.contains(&json!(plugin)));
        match groups.iter_mut().find(has_it) {
            Some(group) if group[OPTION].is_null() && names(group).is_some_and(|names| names.len() == 1) => {
                group[OPTION] = ceiling.clone();
            }
            Some(group) => {
                let at = stated.and_then(|table| table.get(plugin)?.table()?.get(OPTION));
                check
                    .mistakes
                    .push(at.map_or_else(|| clash(plugin, group), |at| pointed(clash(plugin, group), at)));
            }
            None if is_name_taken => {
                let title = format!(
                    "plugin `{plugin}` has a memory ceiling, so it has a worker group of its name, and another group is named so"
                );
                let help =
                    format!("set another `name` for that group, or write `plugins = [\"{plugin}\"]` in it");
                check.mistakes.push(Mistake::new(title).help(help));
            }
            None => groups.push(group(check, plugin, Some((plugin, ceiling)))),
        }
    }
    if !is_grouped && !groups.is_empty() && plugins.keys().any(|plugin| !is_asked_for(plugins, plugin)) {
        let numbered = (2..).map(|number| format!("{OTHERS}-{number}"));
        let mut names = std::iter::once(OTHERS.to_owned()).chain(numbered);
        let name = names.find(|name| !plugins.contains_key(name)).unwrap_or_default();
        groups.push(group(check, &name, None));
    }
}

/// A written group that has what no other names, and that is plugins with a ceiling: it is the group of the only one. For more
/// than one it would be left with none, and what is written in it would hold for nobody.
fn list_the_only_one(check: &mut Check<'_>, groups: &mut [Json], plugins: &Map<String, Json>) {
    let is_listed =
        |plugin: &&String| groups.iter().filter_map(names).any(|names| names.contains(&json!(plugin)));
    let rest: Vec<&String> = plugins.keys().filter(|plugin| !is_listed(plugin)).collect();
    if rest.is_empty() || !rest.iter().all(|plugin| is_asked_for(plugins, plugin)) {
        return;
    }
    let Some(group) = groups.iter_mut().find(|group| group["plugins"].is_null()) else { return };
    match rest.as_slice() {
        [only] => group["plugins"] = json!([only]),
        several => {
            let name = group["name"].as_str().unwrap_or_default();
            let several = several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let title = format!(
                "worker group `{name}` would have no plugin: {several} have a memory ceiling, so each has a process of its own"
            );
            let help = "remove the group, or write one with each plugin alone in it";
            check.mistakes.push(Mistake::new(title).help(help.to_owned()));
        }
    }
}

fn names(group: &Json) -> Option<&Vec<Json>> {
    group["plugins"].as_array()
}

/// A group as if it were written, of one plugin with its ceiling or of all that are in no other.
fn group(check: &mut Check<'_>, name: &str, only: Option<(&str, &Json)>) -> Json {
    let mut group = check.rows("worker.group", GROUP.rows, None);
    group.insert("name".to_owned(), json!(name));
    if let Some((plugin, ceiling)) = only {
        group.insert("plugins".to_owned(), json!([plugin]));
        group.insert(OPTION.to_owned(), ceiling.clone());
    }
    Json::Object(group)
}

/// The operator has written a group with the plugin in which its ceiling cannot hold.
fn clash(plugin: &str, group: &Json) -> Mistake {
    let name = group["name"].as_str().unwrap_or_default();
    if names(group).is_some_and(|names| names.len() == 1) {
        let title = format!("plugin `{plugin}` and its worker group `{name}` both have a memory ceiling");
        return Mistake::new(title).help(format!("remove `{OPTION}` from one of the two"));
    }
    let title =
        format!("plugin `{plugin}` has a memory ceiling, but shares the processes of worker group `{name}`");
    Mistake::new(title).help(format!(
        "take it out of the group, and it gets a process of its own; or set `{OPTION}` of the group instead"
    ))
}

fn pointed(mistake: Mistake, at: &Node) -> Mistake {
    mistake.at_key(at, "the plugin's ceiling")
}
