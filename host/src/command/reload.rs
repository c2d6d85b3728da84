//! `cardcage reload`: asks the hosts on this machine to read their configuration again, and says what came of it.
//!
//! Invariants: it changes nothing itself; its exit code is the worst of what the hosts answered, as that of a start with the
//! new configuration would have been.
//!
//! What it refuses to do: it passes on no settings. A host reads its own, which this command may not even see.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{admin_client, output};
use crate::admin::{ReloadAccepted, ReloadResult, ReloadState};
use crate::cli::ReloadArgs;
use crate::config;
use crate::exit::Exit;

/// How often a host is asked whether it is done.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// The longest that a reload is waited for: plugins may take their time, and a drain before it its grace.
const WAIT_MAX: Duration = Duration::from_secs(1_800);

/// What became of one host.
#[derive(Debug, Serialize)]
struct Told {
    admin: SocketAddr,
    /// The reload's result.
    result: Option<ReloadResult>,
    /// Why there is none.
    fault: Option<String>,
    /// Nobody listens there, and nobody said that somebody does.
    absent: bool,
}

/// Reloads, and waits for it.
pub async fn run(args: ReloadArgs) -> Exit {
    let is_stated = !args.admin.is_empty();
    let addresses = match addresses(&args) {
        Ok(addresses) => addresses,
        Err((exit, fault)) => {
            output::trouble_as_is(&fault);
            return exit;
        }
    };
    let asked = addresses.into_iter().map(|address| one(address, is_stated));
    let told: Vec<Told> = futures_util::future::join_all(asked).await;
    if args.json {
        output::json(&serde_json::json!({ "hosts": told }));
    } else {
        output::result(told.iter().map(text).collect::<String>().trim_end());
    }
    if told.iter().all(|one| one.absent) {
        output::trouble("no host listens there: start one, or name its admin listener with --admin");
        return Exit::Unavailable;
    }
    told.iter().map(exit).fold(Exit::Success, Exit::or_worse)
}

fn addresses(args: &ReloadArgs) -> Result<Vec<SocketAddr>, (Exit, String)> {
    if !args.admin.is_empty() {
        return Ok(args.admin.clone());
    }
    let settings = config::load(&args.configuration.clone().sources())
        .map_err(|errors| (Exit::Config, errors.render(output::trouble_styled())))?;
    let mut addresses = vec![settings.api_admin_listen(), settings.worker_admin_listen()];
    addresses.dedup();
    if addresses.iter().any(|address| address.port() == 0) {
        let fault = "cardcage: `admin.listen` leaves the port to the system: name it with --admin";
        return Err((Exit::Usage, fault.to_owned()));
    }
    Ok(addresses)
}

async fn one(admin: SocketAddr, is_stated: bool) -> Told {
    match host(admin).await {
        Ok(result) => Told { admin, result: Some(result), fault: None, absent: false },
        Err(error) => {
            let is_refused = error.kind() == ErrorKind::ConnectionRefused;
            let fault = match (is_refused, is_stated) {
                (true, true) => "no host listens there: start it, or correct --admin".to_owned(),
                (true, false) => {
                    "no host listens there: start it, or name its admin listener with --admin".to_owned()
                }
                (false, _) => error.to_string(),
            };
            Told { admin, result: None, fault: Some(fault), absent: is_refused && !is_stated }
        }
    }
}

/// Has the host with this admin listener reload, and waits until it has.
pub(super) async fn host(admin: SocketAddr) -> std::io::Result<ReloadResult> {
    let (status, body) = admin_client::ask("POST", admin, "/reload").await?;
    if status != 202 {
        return Err(std::io::Error::other(refusal(status, &body)));
    }
    let ReloadAccepted { number } = serde_json::from_slice(&body)?;
    let until = Instant::now() + WAIT_MAX;
    while Instant::now() < until {
        let (_, body) = admin_client::ask("GET", admin, "/reload").await?;
        let state: ReloadState = serde_json::from_slice(&body)?;
        match state.last {
            Some(result) if result.number >= number => return Ok(result),
            _ => sleep(ASK_EVERY).await,
        }
    }
    Err(std::io::Error::other("it is not done after half an hour: see the host's log"))
}

/// What the host says, or else its status.
fn refusal(status: u16, body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    detail.map_or_else(|| format!("it answers with {status}"), str::to_owned)
}

fn exit(told: &Told) -> Exit {
    match &told.result {
        Some(result) => Exit::from_code(result.exit_code.into()).unwrap_or(Exit::Unexpected),
        None if told.absent => Exit::Success,
        None => Exit::Unavailable,
    }
}

fn text(told: &Told) -> String {
    let Told { admin, result, fault, absent } = told;
    let Some(result) = result else {
        return match (absent, fault) {
            (true, _) => format!("{admin}: no host here\n"),
            (false, fault) => {
                format!("{admin}: not reloaded: {}\n", output::shown(fault.as_deref().unwrap_or("no answer")))
            }
        };
    };
    let mut text = String::new();
    if result.exit_code == 0 {
        let _ = writeln!(text, "{admin}: reloaded: {}", output::shown(&result.plugins.join(", ")));
    } else {
        let _ = writeln!(text, "{admin}: refused (code {}), nothing has changed:", result.exit_code);
        for reason in &result.reasons {
            let _ = writeln!(text, "  {}", output::shown_lines(reason).replace('\n', "\n  "));
        }
    }
    if result.exit_code == 0 {
        for refused in &result.refused {
            let _ = writeln!(text, "  not loaded: {}", output::shown(refused));
        }
    }
    if !result.needs_restart.is_empty() {
        let _ = writeln!(text, "  needs a restart, and stays as it was: {}", result.needs_restart.join(", "));
    }
    text
}
