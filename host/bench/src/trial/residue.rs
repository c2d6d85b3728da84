//! What is left of 100,000 tasks of all kinds once their time to live is over: in the broker's streams, and in the hosts'
//! memory. More than a tenth over what was there before ends the run.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use cardcage_harness::{Cardcage, Config, Deadline, Error, Http, Nats, Result, eventually};
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};

use super::memory::mebibytes;
use super::{Finding, Trial};
use crate::cli::Settings;
use crate::floor;
use crate::stage::settled;

/// Misbehaves on request, and so leaves of everything something behind.
const PLUGIN: &str = "chaos";
/// The shortest times that settings allow. What one attempt did outside is kept as long as a record.
const RECORD_TTL_S: u64 = 120;
const OTHER_TTL_S: u64 = 60;
/// Requests at the same time.
const CALLERS: usize = 64;
/// Of so many tasks in a row, two fail, and three others come of them: two children and a hook.
const ROUND: u64 = 20;
const FAILED: u64 = 2;
const SUCCEEDED: u64 = ROUND - FAILED + 3;
/// How far above its baseline anything may be.
const TOLERANCE: f64 = 1.1;

/// What the broker holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    messages: u64,
    bytes: u64,
}

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let rounds: u64 = if settings.smoke { 150 } else { 4_400 };
    let nats = Nats::start().await?;
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let config = Config::new(&nats)
        .plugin(PLUGIN)?
        .set("tasks.result_ttl_s", seconds(RECORD_TTL_S))
        .set("tasks.dead_max_age_s", seconds(OTHER_TTL_S))
        .set("tasks.idempotency_ttl_s", seconds(OTHER_TTL_S))
        .set("tasks.lease_ms", 10_000)
        .set("tasks.backoff", "100ms..1s")
        .set("drain.grace_ms", 5_000);
    let api = Cardcage::api(&config).await?;
    let worker = Cardcage::worker(&config).await?;
    settled(&worker).await?;
    let hosts = [("API", &api), ("worker", &worker)];
    let broker = jetstream::new(floor::connect(&nats.url()).await?);
    let before = held(&broker).await?;
    // The first portion fills what is kept and used again.
    let warm_up = rounds / 3;
    pass(&api.http()?, &worker, 0, warm_up).await?;
    let resident = hosts.map(|(_, host)| mebibytes(host));
    pass(&api.http()?, &worker, warm_up, rounds).await?;
    let at_most = held(&broker).await?;

    let deadline = Deadline::after(Duration::from_secs(RECORD_TTL_S + 120));
    let text = format!("the broker holds what it held before: {before:?}");
    let mut last = at_most;
    let gone = eventually(deadline, &text, async || {
        last = held(&broker).await.ok()?;
        let bytes = last.bytes as f64 <= before.bytes as f64 * TOLERANCE;
        (last.messages <= before.messages && bytes).then_some(())
    });
    gone.await.map_err(|error| Error::new(format!("{error}; it holds {last:?}")))?;
    let tasks = rounds * (SUCCEEDED + FAILED);
    let messages = |held: Held| held.messages as f64;
    let mut found = vec![
        Trial::Residue.found(format!("in the broker after {tasks} tasks"), messages(at_most), "messages"),
        Trial::Residue.found("and after their time to live", messages(last), "messages"),
    ];
    for ((name, host), baseline) in hosts.into_iter().zip(resident) {
        let now = mebibytes(host);
        if now > baseline * TOLERANCE {
            return Err(Error::new(format!(
                "the {name} has {now:.1} MiB after {tasks} tasks, and had {baseline:.1} after a third of them"
            )));
        }
        found.push(Trial::Residue.found(format!("{name} by its baseline"), now / baseline, "×"));
    }
    Ok(found)
}

/// Has the rounds from `from` to `to` accepted, and waits until all that comes of them has its outcome.
async fn pass(http: &Http, worker: &Cardcage, from: u64, to: u64) -> Result<()> {
    let posts = (from * ROUND..to * ROUND).map(|n| post(http, n));
    futures_util::stream::iter(posts).buffer_unordered(CALLERS).try_collect::<()>().await?;
    let admin = worker.admin()?;
    let lines = [("succeeded", to * SUCCEEDED), ("failed", to * FAILED)]
        .map(|(what, count)| format!("cardcage_tasks_total{{what=\"{what}\"}} {count}"));
    let mut last = String::new();
    let all = eventually(Deadline::seconds(900), "every task has its outcome", async || {
        last = admin.get("/metrics").await.ok()?.text();
        lines.iter().all(|line| last.lines().any(|found| found == line)).then_some(())
    });
    all.await.map_err(|error| {
        let counts: Vec<&str> = last.lines().filter(|line| line.contains("tasks_total{")).collect();
        Error::new(format!("{error}, as in {lines:?}; the worker says {}", counts.join(", ")))
    })
}

/// One task: every twentieth is of the same kind.
async fn post(http: &Http, n: u64) -> Result<()> {
    let (path, body): (&str, Value) = match n % ROUND {
        0 => ("/chaos/task", json!({ "mode": "fail_until", "times": 2 })),
        1 => ("/chaos/task", json!({ "mode": "fail_for_good" })),
        2 => ("/chaos/delayed?delay_ms=500", json!({ "mode": "ok" })),
        3 => (
            "/chaos/keyed",
            json!({ "mode": "ok", "unique": n.to_string(), "serial": (n / ROUND % 50).to_string() }),
        ),
        4 => ("/chaos/task", json!({ "mode": "ok", "children": 2 })),
        5 => ("/chaos/doomed", json!({ "note": "patient", "mode": "fail_for_good" })),
        6 => ("/chaos/effects", json!({ "keys": 1, "bytes": 100 })),
        _ => ("/chaos/task", json!({ "mode": "ok" })),
    };
    let key = n.to_string();
    let mut headers = vec![("content-type", "application/json")];
    if n % ROUND == 7 {
        headers.push(("idempotency-key", &key));
    }
    let reply = http.send(Method::POST, path, &headers, Bytes::from(body.to_string())).await?;
    if reply.status == 202 {
        return Ok(());
    }
    Err(Error::new(format!("POST {path} was answered {}: {}", reply.status, reply.text())))
}

/// What all streams hold together.
async fn held(broker: &jetstream::Context) -> Result<Held> {
    let mut held = Held { messages: 0, bytes: 0 };
    let mut streams = broker.streams();
    while let Some(stream) = streams.try_next().await.map_err(Error::doing("cannot list the streams"))? {
        held.messages += stream.state.messages;
        held.bytes += stream.state.bytes;
    }
    Ok(held)
}
