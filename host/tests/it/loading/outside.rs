//! Plugins built in a workspace outside this repository, as their authors would: a folder of their own, a lock file
//! and a target folder of their own, the SDK by path.
//!
//! The folder is kept between runs, so that only the first one compiles the SDK's dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cardcage_harness::workspace_root;

const SOURCE: &str = include_str!("outside/plugin.rs");
/// The second is the first under another name.
const NAMES: [&str; 2] = ["outsider", "twin"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside")
}

/// Where cargo leaves what it builds outside, also for other tests; only with the [`lock`] held.
pub(crate) fn target() -> PathBuf {
    folder().join("target")
}

/// Another test process may be at it.
pub(crate) fn lock() -> std::fs::File {
    std::fs::create_dir_all(folder()).unwrap();
    let lock = std::fs::File::create(folder().join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// The library of `outsider` or `twin`.
pub(crate) fn library(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(build);
    folder().join(format!("target/debug/lib{name}.so"))
}

/// Writes a file unless it says so already: cargo goes by modification times.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn manifest(name: &str) -> String {
    let sdk = workspace_root().join("plugin-api");
    format!(
        "[package]\nname = \"{name}\"\nversion = \"3.1.4\"\nedition = \"2024\"\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\ncardcage-plugin-api = {{ path = {:?} }}\nserde = \"1\"\n",
        sdk.display().to_string()
    )
}

fn build() {
    let folder = folder();
    let _lock = lock();
    let members = NAMES.map(|name| format!("\"{name}\"")).join(", ");
    let workspace =
        format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[profile.dev]\ndebug = false\n");
    write(&folder.join("Cargo.toml"), &workspace);
    for name in NAMES {
        write(&folder.join(name).join("Cargo.toml"), &manifest(name));
        let source = SOURCE.replace("\"outsider\"", &format!("\"{name}\""));
        write(&folder.join(name).join("src/lib.rs"), &source);
    }
    // The versions that are on this machine already: the build is offline.
    let lock_file = folder.join("Cargo.lock");
    if !lock_file.exists() {
        std::fs::copy(workspace_root().join("Cargo.lock"), lock_file).unwrap();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Whoever wrote it has flags of their own, not those that this workspace is built with.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    command.args(["build", "--offline", "--target-dir"]).arg(target()).current_dir(&folder);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "the outside workspace does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
