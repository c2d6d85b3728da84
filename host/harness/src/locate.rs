//! Where the binaries and libraries are that this crate starts. It finds; it neither builds nor downloads.

use std::env;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The folder of the workspace, known when this crate was compiled.
pub fn workspace_root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The nats-server to start: `CARDCAGE_NATS_SERVER`, else the fetched one in `.tools/`.
///
/// # Errors
/// It is not there; the error names the command that gets it.
pub fn nats_server_binary() -> Result<PathBuf> {
    from_environment("CARDCAGE_NATS_SERVER")?.map_or_else(
        || {
            existing(
                workspace_root().join(".tools/nats-server"),
                "./justw fetch-tools",
                "CARDCAGE_NATS_SERVER",
            )
        },
        Ok,
    )
}

/// The host to start: `CARDCAGE_BIN`, else the one built beside the running executable.
///
/// # Errors
/// It is not there; the error names the command that builds it.
pub fn cardcage_binary() -> Result<PathBuf> {
    from_environment("CARDCAGE_BIN")?.map_or_else(
        || existing(profile_folder()?.join("cardcage"), "cargo build --workspace", "CARDCAGE_BIN"),
        Ok,
    )
}

/// The library of one of the workspace's plugins, built beside the running executable.
///
/// # Errors
/// It is not there; the error names the command that builds it.
pub fn plugin_library(plugin: &str) -> Result<PathBuf> {
    let file = format!("libcardcage_plugin_{}.so", plugin.replace('-', "_"));
    let path = profile_folder()?.join(&file);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!("{} is missing; run `cargo build --workspace` first", path.display())))
}

fn from_environment(variable: &str) -> Result<Option<PathBuf>> {
    match env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => Err(Error::new(format!(
            "{variable} names {}, which is not a file; correct or unset it",
            path.display()
        ))),
        None => Ok(None),
    }
}

fn existing(path: PathBuf, command: &str, variable: &str) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!("{} is missing; run `{command}` first, or set {variable}", path.display())))
}

/// `target/<profile>`: a test runs in its `deps`, an example in its `examples`, a binary in the folder itself.
fn profile_folder() -> Result<PathBuf> {
    let exe = env::current_exe().map_err(Error::doing("cannot tell which executable this is"))?;
    let folder = exe.parent().unwrap_or(Path::new("/"));
    let nested = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    Ok(if nested { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn missing_library_error_names_the_command_that_builds_it() {
        let error = plugin_library("no-such").unwrap_err().to_string();
        assert!(error.contains("libcardcage_plugin_no_such.so") && error.contains("cargo build"), "{error}");
    }
}
