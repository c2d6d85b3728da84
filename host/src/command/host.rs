//! `cardcage api` and `cardcage worker`: load the settings, listen for the order to stop, supervise.

use super::{output, parent_pipe};
use crate::cli::Configuration;
use crate::config;
use crate::exit::Exit;
use crate::process::Shutdown;
use crate::process::control::Role;
use crate::role;

/// Runs a role until it is told to stop.
pub async fn run(role: Role, configuration: Configuration) -> Exit {
    let settings = match config::load(&configuration.sources()) {
        Ok(settings) => settings,
        Err(errors) => {
            output::trouble_as_is(&errors.render(output::trouble_styled()));
            return Exit::Config;
        }
    };
    let shutdown = Shutdown::on_signals().and_then(|shutdown| parent_pipe::watch().map(|()| shutdown));
    match shutdown {
        Ok(shutdown) => role::run_supervisor(role, settings, shutdown).await,
        Err(error) => {
            output::trouble(&format!(
                "the order to stop could not be listened for ({error}): check the process limits"
            ));
            Exit::Unexpected
        }
    }
}
