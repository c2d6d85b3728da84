//! `cardcage workers list`: who is there, with what, and how busy.
//!
//! Supervisors are asked, who run no plugin code: they answer while every handler blocks. A worker that does not answer is
//! not listed, for nothing is known of it.

use cardcage_protocol::Timestamp;
use cardcage_protocol::presence::{Presence, Question};
use serde_json::json;

use super::output;
use super::session::{Session, age, broker_trouble};
use crate::cli::Configuration;
use crate::exit::Exit;

/// Lists them.
pub async fn run(json: bool, configuration: Configuration) -> Exit {
    let session = match Session::open(configuration, "workers list").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let workers = match session.broker.ask_workers(Question::default()).await {
        Ok(workers) => workers,
        Err(error) => return broker_trouble("workers cannot be asked", &error),
    };
    if json {
        output::json(&json!({ "workers": workers }));
    } else if workers.is_empty() {
        output::result("no worker answers");
    } else {
        output::result(&table(&workers, session.now()));
    }
    Exit::Success
}

fn table(workers: &[Presence], now: Timestamp) -> String {
    let mut table = output::table();
    table.set_header(["worker", "group", "host", "pid", "version", "up", "status", "busy", "plugins"]);
    for worker in workers {
        let plugins: Vec<String> = worker
            .plugins
            .iter()
            .map(|plugin| {
                let quarantined = if plugin.quarantined_at.is_some() { " (quarantined)" } else { "" };
                format!("{} {}{quarantined}", plugin.name, output::shown(&plugin.version))
            })
            .collect();
        let status = match worker.consuming {
            true => output::shown(&worker.status),
            false => format!("{}, takes nothing", output::shown(&worker.status)),
        };
        table.add_row([
            worker.instance.to_string(),
            output::shown(worker.group.as_deref().unwrap_or("-")),
            output::shown(&worker.host),
            worker.pid.to_string(),
            output::shown(&worker.version),
            age(Some(worker.started_at), now),
            status,
            format!("{} of {}", worker.busy, worker.slots),
            plugins.join(", "),
        ]);
    }
    table.trim_fmt()
}
