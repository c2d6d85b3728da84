//! Ending with the process that started this one: the end of stdin means that it is gone.
//!
//! `cardcage dev` may be killed with `kill -9`, which nothing can catch. So it starts its processes with a pipe as
//! stdin and `CARDCAGE_STOP_ON_STDIN_EOF=1`; the kernel closes the pipe whatever ends `dev`, and an orderly stop
//! uses the same way.
//!
//! Invariants: without the variable nobody reads stdin; the end of stdin is exactly one SIGTERM to this process,
//! so that stopping has one path and [`crate::process::Shutdown`] counts one wish.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::oneshot;

/// The variable that asks for it.
pub const VARIABLE: &str = "CARDCAGE_STOP_ON_STDIN_EOF";

/// If the starting process asked for it, turns the end of stdin into a SIGTERM to this process. Call it once, after
/// the signal handlers are installed.
///
/// # Errors
/// When the machine refuses a descriptor or a thread.
pub fn watch() -> std::io::Result<()> {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "1") {
        on_end_of_stdin(|| {
            // A signal to oneself is always allowed.
            let _ = kill_process(getpid(), Signal::TERM);
        })?;
    }
    Ok(())
}

/// Waits for the end of stdin.
///
/// # Errors
/// When the machine refuses a descriptor or a thread.
pub(super) async fn end_of_stdin() -> std::io::Result<()> {
    let (ended, end) = oneshot::channel();
    on_end_of_stdin(move || {
        // Nobody waits any more: the process is at its end already.
        let _ = ended.send(());
    })?;
    // The sender is dropped by its thread only after sending.
    let _ = end.await;
    Ok(())
}

/// Calls `ended` once, from a thread of its own. A thread, because reading stdin through the runtime would hold up
/// the runtime's end, and because any kind of file may be stdin.
fn on_end_of_stdin(ended: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    // A copy that is closed on exec, so that no process started from here holds the pipe's reading end.
    let stdin: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    std::thread::Builder::new().name("parent-pipe".to_owned()).spawn(move || {
        let mut stdin = std::fs::File::from(stdin);
        let mut ignored = [0; 64];
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Not readable: as good as gone.
                Err(_) => break,
            }
        }
        ended();
    })?;
    Ok(())
}
