//! Runs cargo for the tests of the boundary.
//!
//! Plugins stand for what others built: they get none of the flags that this run was built with. Hosts get them, so that a run
//! with a sanitizer looks at both sides. All share the target folder of the plugins that are built outside, a compiler each
//! its own part of it, so that only the first run compiles dependencies.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What is built where.
pub(super) struct Build<'a> {
    /// The workspace.
    pub(super) folder: &'a Path,
    /// What of it.
    pub(super) arguments: &'a [&'a str],
    /// Whether its lock file is part of it, and never changes.
    pub(super) locked: bool,
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside/target")
}

/// Toolchains that may be another one than that of this run, which is not the same everywhere.
const TOOLCHAINS: [&str; 2] = ["nightly", "stable"];

/// The version of a toolchain's compiler, or of this run's.
fn compiler(toolchain: Option<&str>) -> Option<String> {
    let mut command = match toolchain {
        Some(toolchain) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "rustc"]);
            command
        }
        None => Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())),
    };
    let output = command.arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A compiler besides the one that built this, where the machine has one.
pub(super) fn other_toolchain() -> Option<&'static str> {
    let this = compiler(None);
    TOOLCHAINS.into_iter().find(|toolchain| {
        let other = compiler(Some(toolchain));
        other.is_some() && other != this
    })
}

/// This run's cargo, or another toolchain's, which must not be told of this one's compiler.
fn cargo(toolchain: Option<&str>) -> Command {
    let Some(toolchain) = toolchain else {
        return Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    };
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo"]);
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER"] {
        command.env_remove(variable);
    }
    command
}

impl Build<'_> {
    /// Builds plugins, as others do, and answers where they are.
    pub(super) fn plugins(&self, toolchain: Option<&str>) -> PathBuf {
        let target = toolchain.map_or_else(target, |toolchain| target().join(toolchain));
        self.run(|| {
            let mut command = cargo(toolchain);
            command.env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
            command.arg("build").arg("--target-dir").arg(&target);
            command
        });
        target.join("debug")
    }

    /// Builds a host as this run was built, and answers where it is.
    pub(super) fn host(&self) -> PathBuf {
        self.run(|| {
            let mut command = cargo(None);
            command.arg("build").arg("--target-dir").arg(target());
            command
        });
        // Empty where there is none: then it adds nothing.
        let triple = std::env::var_os("CARGO_BUILD_TARGET").unwrap_or_default();
        target().join(triple).join("debug")
    }

    /// Offline, for the versions are on this machine already; but those that a lock file of old names may not be any more.
    fn run(&self, command: impl Fn() -> Command) {
        let run = |more: &[&str]| -> Output {
            let mut command = command();
            command.args(self.arguments).args(more).current_dir(self.folder);
            command.env("CARGO_PROFILE_DEV_DEBUG", "false").output().unwrap()
        };
        let mut output = run(if self.locked { &["--locked", "--offline"] } else { &["--offline"] });
        if self.locked && !output.status.success() {
            output = run(&["--locked"]);
        }
        assert!(
            output.status.success(),
            "{} does not build:\n{}",
            self.folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
