//! Cargo, on behalf of `plugin package`: which command, with which revision.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::cli::PackageArgs;
use crate::command::cargo_build::{self, Build, Fault};
use crate::command::output;

/// The variable by which the build learns the revision.
const REVISION: &str = "CARDCAGE_GIT_REVISION";

/// Builds the plugin and tells where its library is. The error is a sentence.
pub(super) async fn library(args: &PackageArgs) -> Result<PathBuf, String> {
    if !args.no_audit && !auditable_is_there() {
        return Err(
            "cargo-auditable is not installed, without which a library does not say what it was built from: \
            `cargo install cargo-auditable --locked` gets it, and --no-audit goes without"
                .to_owned(),
        );
    }
    let before: &[&str] = if args.no_audit { &[] } else { &["auditable"] };
    let mut command = cargo_build::command(before, &args.path);
    command.arg("--profile").arg(&args.profile).args(&args.cargo_arguments);
    if std::env::var_os(REVISION).is_none() {
        match revision(&args.path).await {
            Some(revision) => drop(command.env(REVISION, revision)),
            None => output::trouble(
                "the folder has no git revision, so the package tells none; commit it to change that",
            ),
        }
    }
    let built = async { Build::start(command, &args.path)?.library().await };
    built.await.map_err(|fault| match fault {
        Fault::Source => "the build failed, and cargo's own message is above".to_owned(),
        Fault::NoCargo => "cargo cannot be run: install Rust, or correct PATH".to_owned(),
        Fault::Other(sentence) => sentence,
    })
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
