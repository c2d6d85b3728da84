//! How one host under `dev` comes to what is there now: by reload, or by another start where it cannot be asked.

use std::net::SocketAddr;
use std::time::Duration;

use super::managed::Managed;
use super::ready::{Unready, begin};
use crate::command::{output, reload};
use crate::process::Shutdown;

/// The longest that a restart waits for readiness before it goes on to the next process.
const RESTART_READY: Duration = Duration::from_secs(60);

/// What came of a host's reload.
pub(super) enum Rolled {
    /// It serves the new libraries.
    Done,
    /// The next host must not be told: it refused, or a stop was asked for.
    Stop,
    /// It cannot be asked.
    Restart,
}

/// Has a host that runs reload.
pub(super) async fn take_over(host: &mut Managed, admin: SocketAddr, shutdown: &mut Shutdown) -> Rolled {
    let told = tokio::select! {
        () = shutdown.drain() => return Rolled::Stop,
        change = host.change() => {
            host.follow(change);
            // It is started again with what is there.
            return Rolled::Done;
        }
        told = reload::host(admin) => told,
    };
    let name = host.name();
    match told {
        Ok(result) if result.exit_code == 0 => {
            output::trouble(&format!("{name} took over: {}", output::shown(&result.plugins.join(", "))));
            for refused in &result.refused {
                output::trouble(&format!("{name} does not load {}", output::shown(refused)));
            }
            Rolled::Done
        }
        Ok(result) => {
            let reasons = result.reasons.join("\n  ");
            output::trouble(&format!("{name} goes on with what it has, for it refused:"));
            output::trouble_as_is(&format!("  {}", output::shown_lines(&reasons)));
            Rolled::Stop
        }
        Err(error) => {
            output::trouble(&format!("{name} cannot be asked to reload ({error}): restarting it"));
            Rolled::Restart
        }
    }
}

/// Stops a host, where it runs, and starts it again; false where a stop was asked for.
pub(super) async fn restart(
    host: &mut Managed,
    ready: impl Future<Output = ()>,
    shutdown: &mut Shutdown,
) -> bool {
    host.stop(shutdown).await;
    if shutdown.requested() {
        return false;
    }
    match tokio::time::timeout(RESTART_READY, begin(host, ready, shutdown)).await {
        Ok(Ok(())) => output::trouble(&format!("{} runs again", host.name())),
        Ok(Err(Unready::Asked)) => return false,
        Ok(Err(Unready::Ended(change))) => host.follow(change),
        Err(_) => output::trouble(&format!("{} is not ready yet; going on", host.name())),
    }
    true
}
