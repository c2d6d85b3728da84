//! Cargo, on behalf of `plugin package`: which command, with which revision, and which library came of it.
//!
//! Invariant: what cargo says to people goes to stderr as it comes; only its messages for programs are read.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::cli::PackageArgs;
use crate::command::output;

/// The variable by which the build learns the revision, and the one that cargo sets for what it runs.
const REVISION: &str = "CARDCAGE_GIT_REVISION";
const CARGO: &str = "CARGO";

/// Builds the plugin and tells where its library is. The error is a sentence.
pub(super) async fn library(args: &PackageArgs) -> Result<PathBuf, String> {
    if !args.no_audit && !auditable_is_there() {
        return Err(
            "cargo-auditable is not installed, without which a library does not say what it was built from: \
            `cargo install cargo-auditable --locked` gets it, and --no-audit goes without"
                .to_owned(),
        );
    }
    let mut command = Command::new(std::env::var_os(CARGO).unwrap_or_else(|| "cargo".into()));
    if !args.no_audit {
        command.arg("auditable");
    }
    command.args(["build", "--message-format", "json-render-diagnostics", "--profile"]).arg(&args.profile);
    command.args(&args.cargo_arguments).current_dir(&args.path).stdin(Stdio::null()).stdout(Stdio::piped());
    if std::env::var_os(REVISION).is_none() {
        match revision(&args.path).await {
            Some(revision) => drop(command.env(REVISION, revision)),
            None => output::trouble(
                "the folder has no git revision, so the package tells none; commit it to change that",
            ),
        }
    }
    let cannot =
        |error: std::io::Error| format!("cargo cannot be run ({error}): install Rust, or correct PATH");
    let mut child = command.kill_on_drop(true).spawn().map_err(cannot)?;
    let stdout = child.stdout.take().ok_or("cargo has no stdout: a fault of cardcage")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next_line().await.map_err(cannot)? {
        found.extend(serde_json::from_str(&line).ok().and_then(|message| built(&message, &args.path)));
    }
    let status = child.wait().await.map_err(cannot)?;
    if !status.success() {
        return Err("the build failed, and cargo's own message is above".to_owned());
    }
    let folder = args.path.display();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([library]) => Ok(library),
        Err(found) if found.is_empty() => Err(format!(
            "{folder} builds no library for plugins: write `crate-type = [\"cdylib\"]` under [lib] in its Cargo.toml"
        )),
        Err(found) => {
            Err(format!("{folder} builds {} libraries: name one's folder with --path", found.len()))
        }
    }
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

/// What cargo runs for `cargo auditable`.
fn auditable_is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let mut folders = std::env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    folders.any(|folder| folder.join("cargo-auditable").is_file())
}

/// The revision that the folder stands at; `None` outside of a repo and before the first commit.
async fn revision(folder: &Path) -> Option<String> {
    let revision = git(folder, &["rev-parse", "HEAD"]).await?;
    let changes = git(folder, &["status", "--porcelain", "--", "."]).await?;
    let dirty = if changes.trim().is_empty() { "" } else { "-dirty" };
    Some(format!("{}{dirty}", revision.trim()))
}

async fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).current_dir(folder).stdin(Stdio::null()).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
