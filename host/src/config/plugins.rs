//! The plugin set: names, mount paths, routes, and the plugins' own settings.
//!
//! Invariants of what it lets through: names are `[a-z0-9_-]{1,64}` and no option of the set, no two plugins share a mount path, none
//! has one of the host's, every secret is resolved.

use serde_json::{Map, Value as Json};

use super::check::Check;
use super::errors::Mistake;
use super::kind::{self, Kind};
use super::options::{PLUGIN, SCHEDULE, Section, TASK};
use super::secrets;
use super::tree::{Node, Table};
use super::trust;

const PLACEMENT: Kind = Kind::OneOf(&["worker", "inline"]);

/// Reads `[plugins]`.
pub(crate) fn read(check: &mut Check<'_>, plugins: &Table) -> Map<String, Json> {
    let mut json = Map::new();
    for (name, node) in plugins.iter().filter(|(name, _)| !trust::is_option(name)) {
        let path = format!("plugins.{name}");
        if !kind::is_name(name) {
            let label = format!("expected {}", Kind::Name.expected());
            check.mistakes.push(Mistake::new(format!("`{name}` cannot name a plugin")).at_key(node, label));
        }
        if let Some(table) = check.table(&path, node) {
            json.insert(name.clone(), plugin(check, name, node, table));
        }
    }
    distinct_prefixes(check, plugins, &json);
    json
}

fn plugin(check: &mut Check<'_>, name: &str, node: &Node, table: &Table) -> Json {
    let path = format!("plugins.{name}");
    let mut json = check.rows(&path, PLUGIN.rows, Some(table));
    if !table.contains_key("library") {
        let title = format!("plugin `{name}` has no library");
        let help = "add `library = \"path/to/lib.so\"`, relative to this file".to_owned();
        check.mistakes.push(Mistake::new(title).at_key(node, "`library` is missing").help(help));
    }
    if !table.contains_key("prefix") && kind::is_name(name) {
        match kind::prefix(&format!("/{name}")) {
            Ok(prefix) => {
                json.insert("prefix".to_owned(), Json::String(prefix));
            }
            Err((label, help)) => {
                let title = format!("plugin `{name}` cannot be mounted at `/{name}`");
                check.mistakes.push(Mistake::new(title).at_key(node, label).help(help));
            }
        }
    }
    let routes = table.get("routes").and_then(Node::table);
    json.insert("routes".to_owned(), routes.map_or_else(empty, |table| routes_of(check, &path, table)));
    let tasks = table.get("tasks").and_then(Node::table);
    json.insert(
        "tasks".to_owned(),
        tasks.map_or_else(empty, |table| named(check, &format!("{path}.tasks"), &TASK, table)),
    );
    let schedules = table.get("schedules").and_then(Node::table);
    json.insert(
        "schedules".to_owned(),
        schedules.map_or_else(empty, |table| named(check, &format!("{path}.schedules"), &SCHEDULE, table)),
    );
    let config = table.get("config").filter(|node| node.table().is_some());
    let config = config.map_or_else(empty, |node| secrets::table(check, &format!("{path}.config"), node));
    json.insert("config".to_owned(), config);
    Json::Object(json)
}

fn empty() -> Json {
    Json::Object(Map::new())
}

fn routes_of(check: &mut Check<'_>, path: &str, routes: &Table) -> Json {
    let mut json = Map::new();
    for (route, node) in routes {
        let known = route.split_once(' ').is_some_and(|(method, path)| {
            !method.is_empty() && method.chars().all(|c| c.is_ascii_uppercase()) && path.starts_with('/')
        });
        if !known {
            let title = format!("`{route}` in `{path}.routes` is not a route");
            let mistake = Mistake::new(title).at_key(node, "expected a method and a path");
            check.mistakes.push(mistake.help("write it like `\"POST /call\" = \"inline\"`".to_owned()));
        }
        match PLACEMENT.read(node) {
            Ok(placement) => {
                json.insert(route.clone(), placement);
            }
            Err(fault) => {
                let option = format!("{path}.routes.\"{route}\"");
                check.mistakes.push(Mistake::fault(&option, node, fault));
            }
        }
    }
    Json::Object(json)
}

/// Whether the plugin has tasks and schedules of these names, only the plugin knows; see `loader::task_faults`.
fn named(check: &mut Check<'_>, path: &str, section: &Section, entries: &Table) -> Json {
    let mut json = Map::new();
    for (name, node) in entries {
        let path = format!("{path}.{name}");
        if let Some(table) = check.table(&path, node) {
            json.insert(name.clone(), Json::Object(check.rows(&path, section.rows, Some(table))));
        }
    }
    Json::Object(json)
}

fn distinct_prefixes(check: &mut Check<'_>, plugins: &Table, json: &Map<String, Json>) {
    let prefix = |name: &str| json.get(name)?.get("prefix")?.as_str();
    // Where the prefix is stated, or else the plugin, which implies it.
    let stated = |name: &str| {
        let node = plugins.get(name)?;
        Some(node.table().and_then(|table| table.get("prefix")).unwrap_or(node))
    };
    for (nth, second) in json.keys().enumerate() {
        let Some(shared) = prefix(second) else { continue };
        let Some(first) = json.keys().take(nth).find(|first| prefix(first) == Some(shared)) else { continue };
        let mut mistake =
            Mistake::new(format!("plugins `{first}` and `{second}` are both mounted at `{shared}`"));
        for (name, label) in [(second, "second"), (first, "first")] {
            if let Some(node) = stated(name) {
                mistake = mistake.at_key(node, label);
            }
        }
        check.mistakes.push(mistake.help("set another `prefix` for one of them".to_owned()));
    }
}
