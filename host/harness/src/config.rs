//! The host's configuration, built in code and written as the TOML file that a person would write.

use std::path::Path;

use toml::{Table, Value};

use crate::{Nats, Result, locate};

/// A configuration for one installation: one namespace, shared by its api and worker processes.
///
/// It starts with a namespace of its own and with listeners on free ports; everything else is at its default.
#[derive(Debug, Clone)]
pub struct Config {
    table: Table,
}

impl Default for Config {
    fn default() -> Self {
        let mut table = Config { table: Table::new() };
        table.put("broker.namespace", format!("t{:08x}", fastrand::u32(..)).into());
        table.put("api.listen", "127.0.0.1:0".into());
        table.put("admin.listen", "127.0.0.1:0".into());
        table
    }
}

impl Config {
    /// A configuration that uses `nats`.
    pub fn new(nats: &Nats) -> Self {
        Self::default().set("broker.url", nats.url())
    }

    /// Sets an option by its dotted name, such as `tasks.lease_s`. What stood there before is replaced.
    #[must_use]
    pub fn set(mut self, option: &str, value: impl Into<Value>) -> Self {
        self.put(option, value.into());
        self
    }

    /// Adds one of the workspace's plugins.
    ///
    /// # Errors
    /// Its library has not been built.
    pub fn plugin(self, name: &str) -> Result<Self> {
        Ok(self.plugin_at(name, &locate::plugin_library(name)?))
    }

    /// Adds a plugin from a library file.
    #[must_use]
    pub fn plugin_at(self, name: &str, library: &Path) -> Self {
        self.set(&format!("plugins.{name}.library"), library.display().to_string())
    }

    /// Sets an option of a plugin's own.
    #[must_use]
    pub fn plugin_set(self, name: &str, option: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("plugins.{name}.config.{option}"), value)
    }

    /// The namespace on the broker.
    pub fn namespace(&self) -> &str {
        self.table
            .get("broker")
            .and_then(|broker| broker.get("namespace"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }

    fn put(&mut self, option: &str, value: Value) {
        let mut table = &mut self.table;
        let mut keys = option.split('.').peekable();
        while let Some(key) = keys.next() {
            if keys.peek().is_none() {
                table.insert(key.to_owned(), value);
                return;
            }
            let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            let Value::Table(inner) = entry else { return };
            table = inner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_names_become_tables() {
        let config = Config::default()
            .set("tasks.lease_s", 5)
            .plugin_at("hello", Path::new("/x/libhello.so"))
            .plugin_set("hello", "greeting", "hi");
        let table: Table = config.to_toml().parse().unwrap();
        assert_eq!(table["tasks"]["lease_s"].as_integer(), Some(5));
        assert_eq!(table["plugins"]["hello"]["library"].as_str(), Some("/x/libhello.so"));
        assert_eq!(table["plugins"]["hello"]["config"]["greeting"].as_str(), Some("hi"));
        assert_eq!(table["broker"]["namespace"].as_str(), Some(config.namespace()));
    }

    #[test]
    fn two_configurations_never_share_a_namespace() {
        assert_ne!(Config::default().namespace(), Config::default().namespace());
    }
}
