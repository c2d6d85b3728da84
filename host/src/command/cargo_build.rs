//! `cargo build` of a plugin's folder, and which library came of it.
//!
//! Invariant: what cargo says to people goes to stderr as it comes; only its messages for programs are read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::executable;
use crate::exit::Exit;

/// The variable that cargo sets for what it runs: the cargo to be used.
const CARGO: &str = "CARGO";
/// What cargo is told.
const BUILD: [&str; 3] = ["build", "--message-format", "json-render-diagnostics"];

/// Why there is no library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Cargo said why: the source is at fault, and may be mended.
    Source,
    /// There is no cargo, as its guard has said.
    NoCargo,
    /// A sentence.
    Other(String),
}

/// Cargo with these arguments before `build`'s own, to be run in the plugin's folder.
pub(super) fn command(before: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(cargo());
    command.args(before).args(BUILD);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// The same under a guard, which ends cargo and all that cargo started when the [`Build`] is dropped, or this process dies.
pub(super) fn guarded(folder: &Path) -> Command {
    let mut command = Command::new(executable::path());
    command.arg("dev-build-guard").arg(cargo()).args(BUILD);
    // A group of its own: what signals it gets is not for a terminal to say.
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command
}

fn cargo() -> OsString {
    std::env::var_os(CARGO).unwrap_or_else(|| "cargo".into())
}

/// A build under way. Dropping it ends cargo.
pub(super) struct Build {
    child: Child,
    folder: PathBuf,
}

impl Build {
    /// Starts what [`command`] or [`guarded`] made for this folder.
    pub(super) fn start(mut command: Command, folder: &Path) -> Result<Self, Fault> {
        let child = command.spawn().map_err(fault)?;
        Ok(Self { child, folder: folder.to_owned() })
    }

    /// Waits for its end; answers the library.
    pub(super) async fn library(mut self) -> Result<PathBuf, Fault> {
        // Waiting for a process would close it, and that is the guard's sign to end the build.
        let _pipe = self.child.stdin.take();
        let stdout = self.child.stdout.take();
        let stdout =
            stdout.ok_or_else(|| Fault::Other("cargo has no stdout: a fault of cardcage".to_owned()))?;
        let mut lines = BufReader::new(stdout).lines();
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().await.map_err(fault)? {
            found.extend(serde_json::from_str(&line).ok().and_then(|message| built(&message, &self.folder)));
        }
        let status = self.child.wait().await.map_err(fault)?;
        if status.code() == Some(Exit::Unavailable.code().into()) {
            return Err(Fault::NoCargo);
        }
        if !status.success() {
            return Err(Fault::Source);
        }
        let folder = self.folder.display();
        match <[PathBuf; 1]>::try_from(found) {
            Ok([library]) => Ok(library),
            Err(found) if found.is_empty() => Err(Fault::Other(format!(
                "{folder} builds no library for plugins: write `crate-type = [\"cdylib\"]` under [lib] in its Cargo.toml"
            ))),
            Err(found) => Err(Fault::Other(format!(
                "{folder} builds {} libraries: name the folder of the one that is meant",
                found.len()
            ))),
        }
    }
}

fn fault(error: std::io::Error) -> Fault {
    Fault::Other(cannot(&error))
}

/// Why cargo is of no use.
pub(super) fn cannot(error: &std::io::Error) -> String {
    format!("cargo cannot be run ({error}): install Rust, or correct PATH")
}

/// The library that a message of cargo's tells of, where it is this folder's.
fn built(message: &Value, folder: &Path) -> Option<PathBuf> {
    let kinds = message.pointer("/target/crate_types")?.as_array()?;
    let is_cdylib = kinds.iter().any(|kind| kind == "cdylib");
    let manifest = Path::new(message.get("manifest_path")?.as_str()?).canonicalize().ok()?;
    if !is_cdylib || manifest != folder.join("Cargo.toml").canonicalize().ok()? {
        return None;
    }
    let mut files = message.get("filenames")?.as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.find(|file| file.extension().is_some_and(|end| end == "so"))
}
