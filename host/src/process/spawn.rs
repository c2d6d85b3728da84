//! Starting a child: this executable again, with the control channel as its stdin.
//!
//! The child stays in the supervisor's process group, so that nothing has to hunt for it; it swallows
//! the signals that reach the group and waits for orders. It inherits the environment (secrets may be
//! referred to there) and stderr (logs), and no descriptor but the channel.

use futures_util::future::BoxFuture;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

/// The hidden subcommand that makes the executable a child.
pub(crate) const SUBCOMMAND: &str = "child";

const RUNNING_EXECUTABLE: &str = "/proc/self/exe";

/// Starts children.
pub trait Spawn: Send + Sync {
    /// Starts a child whose control channel is `control`.
    ///
    /// # Errors
    /// When the machine refuses; a retry may help.
    fn spawn(&self, control: OwnedFd) -> io::Result<Box<dyn Process>>;
}

/// A child that was started. Dropping it kills the child.
pub trait Process: Send {
    /// The process id, while it runs.
    fn id(&self) -> Option<u32>;
    /// Sends SIGKILL; nothing if it has ended.
    fn kill(&mut self);
    /// Waits for its end. May be dropped and called again.
    fn wait(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>>;
}

/// Starts this executable again.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfExecutable;

impl SelfExecutable {
    /// The executable's path, for a readable process list; but if another file stands there by now (an
    /// upgrade in place), the very file this process runs: supervisor and child must be the same.
    pub(crate) fn path() -> PathBuf {
        let inode = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        let running = PathBuf::from(RUNNING_EXECUTABLE);
        match std::env::current_exe() {
            Ok(path) if inode(&path).is_some() && inode(&path) == inode(&running) => path,
            _ => running,
        }
    }
}

impl Spawn for SelfExecutable {
    fn spawn(&self, control: OwnedFd) -> io::Result<Box<dyn Process>> {
        let mut command = tokio::process::Command::new(Self::path());
        command.arg(SUBCOMMAND);
        spawn_command(command, control)
    }
}

/// Starts any command as a child.
pub(super) fn spawn_command(
    mut command: tokio::process::Command,
    control: OwnedFd,
) -> io::Result<Box<dyn Process>> {
    command.stdin(Stdio::from(control)).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let child = command.spawn()?;
    // The command owns our copy of the child's end: while it is open, the channel has no end.
    drop(command);
    Ok(Box::new(child))
}

impl Process for tokio::process::Child {
    fn id(&self) -> Option<u32> {
        tokio::process::Child::id(self)
    }

    fn kill(&mut self) {
        // It fails only when the child has ended.
        let _ = self.start_kill();
    }

    fn wait(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>> {
        Box::pin(tokio::process::Child::wait(self))
    }
}
