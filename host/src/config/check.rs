//! From merged layers to settings: every stated option is known, has its type and lies within its bounds, and
//! what must fit together does.
//!
//! It goes on after a mistake, so that all are told at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::errors::Mistake;
use super::groups;
use super::options::{Preset, Row, SECTIONS, Settings};
use super::own_process;
use super::plugins;
use super::suggest::nearest;
use super::tree::{Node, Table};
use super::trust::TRUST;

/// What the checks collect and look things up in.
pub(crate) struct Check<'a> {
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) mistakes: Vec<Mistake>,
}

impl Check<'_> {
    /// The settings that `table` states. `None` when something is wrong; `mistakes` then says what.
    pub(crate) fn settings(&mut self, table: &Table) -> Option<Settings> {
        let mut json = Map::new();
        for section in SECTIONS {
            let stated = table.get(section.name).and_then(|node| self.table(section.name, node));
            let rows = self.rows(section.name, section.rows, stated);
            json.insert(section.name.to_owned(), Json::Object(rows));
        }
        let stated = table.get("plugins").and_then(|node| self.table("plugins", node));
        json.insert("trust".to_owned(), Json::Object(self.values("plugins", TRUST.rows, stated)));
        let plugins = stated.map_or_else(Map::new, |table| plugins::read(self, table));
        let worker = table.get("worker").and_then(Node::table);
        let mut groups = groups::read(self, worker.and_then(|worker| worker.get(groups::KEY)), &plugins);
        own_process::add(self, &mut groups, stated, &plugins);
        json.insert("groups".to_owned(), Json::Array(groups));
        json.insert("plugins".to_owned(), Json::Object(plugins));
        self.unknown_sections(table);
        self.grace_fits_lease(table, &json);
        if !self.mistakes.is_empty() {
            return None;
        }
        match serde_json::from_value(Json::Object(json)) {
            Ok(settings) => Some(settings),
            Err(error) => {
                let title =
                    format!("the settings do not fit their types ({error}); this is a fault of cardcage");
                self.mistakes.push(Mistake::new(title));
                None
            }
        }
    }

    /// The entries of `node`, which must be a table.
    pub(crate) fn table<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n Table> {
        let table = node.table();
        if table.is_none() {
            self.mistakes.push(Mistake::not_a_table(path, node));
        }
        table
    }

    /// Reads the options of one table, which has nothing else; unset ones get their default, or null.
    pub(crate) fn rows(&mut self, path: &str, rows: &[Row], stated: Option<&Table>) -> Map<String, Json> {
        let json = self.values(path, rows, stated);
        self.unknown_options(path, rows, stated);
        json
    }

    /// The same where the table has other entries too.
    fn values(&mut self, path: &str, rows: &[Row], stated: Option<&Table>) -> Map<String, Json> {
        let mut json = Map::new();
        for row in rows {
            let value = match stated.and_then(|table| table.get(row.name)) {
                Some(node) => match row.kind.read(node) {
                    Ok(value) => value,
                    Err(fault) => {
                        self.mistakes.push(Mistake::fault(&format!("{path}.{}", row.name), node, fault));
                        Json::Null
                    }
                },
                None => default(row),
            };
            json.insert(row.name.to_owned(), value);
        }
        json
    }

    fn unknown_options(&mut self, path: &str, rows: &[Row], stated: Option<&Table>) {
        for (key, node) in stated.into_iter().flatten() {
            let is_group = path == "worker" && key == groups::KEY;
            if !is_group && !rows.iter().any(|row| row.name == key) {
                let names = || rows.iter().map(|row| row.name);
                let help = match (nearest(key, names()), section_of(key)) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, Some(section)) => format!("`{key}` belongs in `[{section}]`"),
                    (None, None) => {
                        format!("`{path}` has {}", names().collect::<Vec<_>>().join(", "))
                    }
                };
                let title = format!("there is no option `{path}.{key}`");
                self.mistakes.push(Mistake::new(title).at_key(node, "unknown").help(help));
            }
        }
    }

    fn unknown_sections(&mut self, table: &Table) {
        let names = || SECTIONS.iter().map(|section| section.name).chain(["plugins"]);
        for (key, node) in table.iter().filter(|(key, _)| !names().any(|name| name == *key)) {
            let help = match (nearest(key, names()), section_of(key)) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(section)) => format!("`{key}` belongs in `[{section}]`"),
                (None, None) => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            let title = format!("there is no section `{key}`");
            self.mistakes.push(Mistake::new(title).at_key(node, "unknown").help(help));
        }
    }

    /// What a drain hands back must still be under its lease.
    fn grace_fits_lease(&mut self, table: &Table, json: &Map<String, Json>) {
        let number = |section: &str, name: &str| json.get(section)?.get(name)?.as_u64();
        let (Some(grace), Some(lease)) = (number("drain", "grace_ms"), number("tasks", "lease_ms")) else {
            return;
        };
        let longest = lease / 3 * 2;
        if grace <= longest {
            return;
        }
        let node = |section: &str, name: &str| table.get(section)?.table()?.get(name);
        let mut mistake = Mistake::new(format!(
            "`drain.grace_ms` ({grace}) is longer than two thirds of `tasks.lease_ms` ({lease})"
        ));
        if let Some(node) = node("drain", "grace_ms") {
            mistake = mistake.at_value(node, format!("must be at most {longest}"));
        }
        if let Some(node) = node("tasks", "lease_ms") {
            mistake = mistake.at_value(node, "the lease");
        }
        let help =
            "what a drain hands back must still be under its lease: lower the grace or raise the lease";
        self.mistakes.push(mistake.help(help.to_owned()));
    }
}

/// The section that has an option of this name.
fn section_of(key: &str) -> Option<&'static str> {
    let mut sections = SECTIONS.iter().filter(|section| section.rows.iter().any(|row| row.name == key));
    sections.next().map(|section| section.name)
}

fn default(row: &Row) -> Json {
    let Preset::Value(text) = row.default else { return Json::Null };
    // The table's own defaults; a unit test reads them all.
    toml::de::DeValue::parse(text).ok().map_or(Json::Null, |value| match value.get_ref() {
        toml::de::DeValue::Integer(integer) => integer.as_str().parse::<u64>().map_or(Json::Null, Json::from),
        toml::de::DeValue::Float(float) => float.as_str().parse::<f64>().map_or(Json::Null, Json::from),
        toml::de::DeValue::Boolean(boolean) => Json::Bool(*boolean),
        // The only lists that are defaults are empty ones.
        toml::de::DeValue::Array(_) => Json::Array(Vec::new()),
        value => value.as_str().map_or(Json::Null, Json::from),
    })
}
