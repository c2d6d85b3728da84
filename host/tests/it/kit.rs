//! What teams that write plugins get, used as they would use it: in a folder of their own, with the printed text.

mod new;
mod package;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cardcage_harness::workspace_root;

use crate::loading::outside;

/// Runs the real binary to its end, in this folder.
fn cardcage(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardcage"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// Cargo in a folder outside of this workspace, offline, with what the outside tests have compiled already.
fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let _lock = outside::lock();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", outside::target());
    // What its tests start.
    command.env("CARDCAGE_BIN", env!("CARGO_BIN_EXE_cardcage"));
    command.env("CARDCAGE_NATS_SERVER", cardcage_harness::nats_server_binary().unwrap());
    let output = command.output().unwrap();
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?} in {}:\n{told}", folder.display());
    told
}

/// A folder outside of this repository, empty. Its path is the same each time, so that cargo's target folder does not grow;
/// tests with the same `name` must not run at once.
fn elsewhere(name: &str) -> PathBuf {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    workspace_root().hash(&mut hasher);
    let folder = std::env::temp_dir().join(format!("cardcage-kit-{:x}", hasher.finish())).join(name);
    assert!(!folder.starts_with(workspace_root()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
