//! The hidden keeper of one build under `dev --plugin`.
//!
//! Cargo takes no notice of who started it, so it would finish its build after a `dev` that is killed, and a build script
//! that hangs would stay for ever. This process holds the pipe instead: at its end it kills cargo and all that cargo started.
//!
//! Invariant: it ends when cargo does, and says whether that built.

use std::ffi::OsString;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::command::{cargo_build, output, parent_pipe};
use crate::exit::Exit;

/// Runs `command` (cargo and its arguments) until it ends or stdin does. Call it inside a tokio runtime.
pub async fn run(command: &[OsString]) -> Exit {
    let Some((program, arguments)) = command.split_first() else { return Exit::Usage };
    let cargo = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn();
    let mut cargo = match cargo {
        Ok(cargo) => cargo,
        Err(error) => {
            output::trouble(&cargo_build::cannot(&error));
            return Exit::Unavailable;
        }
    };
    let group = cargo.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    tokio::select! {
        status = cargo.wait() => match status {
            Ok(status) if status.success() => Exit::Success,
            _ => Exit::Unexpected,
        },
        // A pipe that cannot be listened to is as good as closed.
        _ = parent_pipe::end_of_stdin() => {
            if let Some(group) = group {
                // Nobody has waited for cargo's end, so the number is still its own.
                let _ = kill_process_group(group, Signal::KILL);
            }
            Exit::Unexpected
        }
    }
}
