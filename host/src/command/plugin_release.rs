//! `cardcage plugin release NAME`: lifts a quarantine, for all workers.
//!
//! Invariant: it changes what the broker keeps, and asks no worker: those that run follow, those that start read it.

use serde_json::{Value, json};

use super::output;
use super::session::{Session, broker_trouble, told};
use crate::cli::ReleaseArgs;
use crate::exit::Exit;

/// Releases a plugin.
pub async fn run(args: ReleaseArgs) -> Exit {
    let ReleaseArgs { name, version, json, configuration } = args;
    let session = match Session::open(configuration, "plugin release").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let released = match session.broker.release(&name, version.as_deref()).await {
        Ok(released) => released,
        Err(error) => return broker_trouble(&format!("{name} cannot be released"), &error),
    };
    if released.is_empty() {
        let of = version.map(|version| format!(" {version}")).unwrap_or_default();
        return told(
            Exit::Unexpected,
            &format!("{name}{of} is not quarantined; `cardcage workers list` shows what is"),
        );
    }
    if json {
        let each: Vec<Value> = released
            .iter()
            .map(|one| {
                json!({
                    "plugin": one.plugin, "version": one.version, "quarantined_at": one.quarantined_at,
                    "reason": one.reason(),
                })
            })
            .collect();
        output::json(&json!({ "released": each }));
        return Exit::Success;
    }
    for one in &released {
        output::result(&output::shown(&format!(
            "{} {} is released; it was quarantined because {}",
            one.plugin,
            one.version,
            one.reason()
        )));
    }
    Exit::Success
}
