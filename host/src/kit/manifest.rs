//! A member's `Cargo.toml` without its workspace.
//!
//! Keys that are inherited get the workspace's values, line by line, so that comments and order stay as they were written.
//! What only matters inside the workspace goes: lints, and where the package is a dependency, its tests' dependencies.
//!
//! Invariant: each entry that is inherited stands on one line; a test reads all manifests that are written.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// What members inherit.
pub(super) struct Workspace {
    package: Table,
    dependencies: Table,
}

impl Workspace {
    /// Reads the workspace's `Cargo.toml`.
    pub(super) fn read(text: &str) -> Result<Self, toml::de::Error> {
        let mut root: Table = text.parse()?;
        let mut workspace = table(root.remove("workspace"));
        let package = table(workspace.remove("package"));
        let dependencies = table(workspace.remove("dependencies"));
        Ok(Self { package, dependencies })
    }

    /// The manifest `text`, complete in itself. `at` says where a package of the workspace lies, seen from this one, and
    /// `tests` whether its tests go along.
    pub(super) fn resolve(&self, text: &str, tests: bool, at: &dyn Fn(&Path) -> PathBuf) -> String {
        let mut out = String::new();
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']', ' ']);
            }
            let apart = section.starts_with("lints") || (!tests && section == "dev-dependencies");
            if apart {
                continue;
            }
            let inherited = match section {
                "package" => self.package_line(line),
                _ if section.ends_with("dependencies") => self.dependency_line(line, at),
                _ => None,
            };
            out.push_str(inherited.as_deref().unwrap_or(line));
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// `version.workspace = true`, with the workspace's value.
    fn package_line(&self, line: &str) -> Option<String> {
        let (key, entry) = inherited(line)?;
        let value = self.package.get(&key).filter(|_| entry.len() == 1)?;
        Some(format!("{key} = {value}"))
    }

    /// `name.workspace = true` or `name = { workspace = true, … }`, with the workspace's requirement.
    fn dependency_line(&self, line: &str, at: &dyn Fn(&Path) -> PathBuf) -> Option<String> {
        let (key, mut entry) = inherited(line)?;
        entry.remove("workspace");
        let mut merged = match self.dependencies.get(&key)?.clone() {
            Value::Table(table) => table,
            version => Table::from_iter([("version".to_owned(), version)]),
        };
        if let Some(Value::String(path)) = merged.get_mut("path") {
            *path = at(Path::new(path)).display().to_string();
            // Whichever version lies there is meant.
            merged.remove("version");
        }
        for (key, value) in entry {
            match (merged.get_mut(&key), value) {
                (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
                (_, value) => drop(merged.insert(key, value)),
            }
        }
        let plain = merged.get("version").filter(|_| merged.len() == 1).cloned();
        Some(format!("{key} = {}", plain.unwrap_or(Value::Table(merged))))
    }
}

/// A line's key and table, where it inherits from the workspace.
fn inherited(line: &str) -> Option<(String, Table)> {
    let (key, value) = line.parse::<Table>().ok()?.into_iter().next()?;
    let entry = table(Some(value));
    entry.contains_key("workspace").then_some((key, entry))
}

fn table(value: Option<Value>) -> Table {
    match value {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace.package]\nversion = \"1.2.3\"\n[workspace.dependencies]\n\
        near = { path = \"sdk/near\", version = \"1\" }\nplain = \"2.5\"\nrich = { version = \"3\", features = [\"a\"] }\n";

    fn resolved(text: &str, tests: bool) -> String {
        let workspace = Workspace::read(WORKSPACE).unwrap();
        workspace.resolve(text, tests, &|path| Path::new("..").join(path))
    }

    #[test]
    fn inherited_keys_get_the_workspaces_values_and_the_rest_stays() {
        let text = "[package]\nname = \"x\" # mine\nversion.workspace = true\n\n[dependencies]\nnear.workspace = true\n\
            plain.workspace = true\nrich = { workspace = true, features = [\"b\"], optional = true }\nown = \"1\"\n";
        let expected = "[package]\nname = \"x\" # mine\nversion = \"1.2.3\"\n\n[dependencies]\n\
            near = { path = \"../sdk/near\" }\nplain = \"2.5\"\n\
            rich = { features = [\"a\", \"b\"], optional = true, version = \"3\" }\nown = \"1\"\n";
        assert_eq!(resolved(text, true), expected);
    }

    #[test]
    fn lints_go_and_the_dependencies_of_tests_where_the_tests_do_not_come() {
        let text = "[package]\nname = \"x\"\n\n[dev-dependencies]\nplain.workspace = true\n\n[lints]\nworkspace = true\n";
        assert_eq!(resolved(text, true), "[package]\nname = \"x\"\n\n[dev-dependencies]\nplain = \"2.5\"\n");
        assert_eq!(resolved(text, false), "[package]\nname = \"x\"\n");
    }
}
