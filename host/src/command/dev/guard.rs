//! The hidden keeper of `dev`'s nats-server.
//!
//! nats-server takes no notice of who started it, so it would outlive a `dev` that is killed. This process holds the
//! pipe instead: at its end it stops nats-server, removes the folder and exits.
//!
//! Invariant: it ends when nats-server does, with its exit code, and never the other way round alone.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::folder;
use crate::command::{output, parent_pipe};
use crate::exit::Exit;
use crate::process::{Death, Shutdown};

/// How long nats-server may take over SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `command` (a program and its arguments) until it ends, stdin does, or a signal asks for it. Call it inside a
/// tokio runtime.
pub async fn run(folder: &Path, command: &[OsString]) -> Exit {
    match keep(folder, command).await {
        Ok(exit) => exit,
        Err(error) => {
            let program =
                command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
            output::trouble(&format!("{program} cannot be started ({error}): correct `dev.nats_server`"));
            Exit::Unavailable
        }
    }
}

async fn keep(folder: &Path, command: &[OsString]) -> std::io::Result<Exit> {
    let Some((program, arguments)) = command.split_first() else { return Ok(Exit::Usage) };
    let mut shutdown = Shutdown::on_signals()?;
    let log = std::fs::File::options().create(true).append(true).open(folder::broker_log(folder))?;
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.as_fd().try_clone_to_owned()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()?;
    tokio::select! {
        status = server.wait() => {
            let death = Death::of(status?);
            output::trouble(&format!("nats-server {death}"));
            return Ok(Exit::Unavailable);
        }
        ended = parent_pipe::end_of_stdin() => ended?,
        () = shutdown.drain() => {}
    }
    stop(&mut server).await;
    folder::remove(folder);
    Ok(Exit::Success)
}

async fn stop(server: &mut Child) {
    if let Some(pid) = server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It fails only for one that has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(GRACE, server.wait()).await.is_err() {
        let _ = server.start_kill();
        let _ = server.wait().await;
    }
}
