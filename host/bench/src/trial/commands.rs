//! How long operators wait for a command while every worker is busy and thousands of tasks stand behind. One that takes a
//! second ends the run.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage_harness::{Cardcage, Config, Deadline, Error, Http, Launch, Nats, Result, eventually};
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};

use super::{Finding, Trial};
use crate::cli::Settings;
use crate::stage::settled;

/// Sleeps and fails on request.
const PLUGIN: &str = "chaos";
/// Tasks that the worker may run at the same time. So many that take longer than the trial stand before all others.
const SLOTS: usize = 64;
/// Tasks that wait behind them, and as many that are delayed.
const BEHIND: usize = 5_000;
/// How often each command is run.
const TIMES: usize = 5;
/// Requests at the same time.
const CALLERS: usize = 64;
/// The issue of the task engine: "answers within a second while every worker is busy".
const WITHIN: Duration = Duration::from_secs(1);

/// The tasks that commands are about, by what has become of them; of each at least as many as a command is run.
struct Tasks {
    dead: Vec<String>,
    running: Vec<String>,
    queued: Vec<String>,
    delayed: Vec<String>,
}

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let behind = if settings.smoke { 50 } else { BEHIND };
    let nats = Nats::start().await?;
    let slots = i64::try_from(SLOTS).unwrap_or(i64::MAX);
    let config = Config::new(&nats)
        .plugin(PLUGIN)?
        .set("worker.task_concurrency", slots)
        .set("tasks.lease_ms", 10_000)
        .set("drain.grace_ms", 1_000);
    let api = Cardcage::api(&config).await?;
    let worker = Cardcage::worker(&config).await?;
    settled(&worker).await?;
    let tasks = Tasks::made(&api.http()?, &worker, behind).await?;
    let mut findings = Vec::new();
    for (what, of) in commands() {
        let mut slowest = Duration::ZERO;
        for nth in 0..TIMES {
            let began = Instant::now();
            let done = Launch::new(of(&tasks, nth)).config(&config).run(Deadline::seconds(60)).await?;
            slowest = slowest.max(began.elapsed());
            if !done.status.success() {
                return Err(Error::new(format!("cardcage {what} failed: {}", done.stderr)));
            }
        }
        if slowest >= WITHIN {
            return Err(Error::new(format!("cardcage {what} took {} ms", slowest.as_millis())));
        }
        findings.push(Trial::Commands.found(what, slowest.as_secs_f64() * 1_000.0, "ms"));
    }
    Ok(findings)
}

/// The arguments of a command, the nth time that it is run.
type Arguments = fn(&Tasks, usize) -> Vec<String>;

fn commands() -> [(&'static str, Arguments); 18] {
    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }
    fn about(line: &str, tasks: &[String], nth: usize) -> Vec<String> {
        let mut words = words(line);
        words.extend(tasks.get(nth).cloned());
        words
    }
    // From the end of the queue: those stand there until the last command.
    fn last(line: &str, tasks: &[String], nth: usize) -> Vec<String> {
        about(line, tasks, tasks.len().saturating_sub(nth + 1))
    }
    [
        ("tasks list", |_, _| words("tasks list")),
        ("tasks list --state running", |_, _| words("tasks list --state running")),
        ("tasks show (queued)", |tasks, nth| last("tasks show", &tasks.queued, nth)),
        ("tasks show (running)", |tasks, nth| about("tasks show", &tasks.running, nth)),
        ("tasks why (queued)", |tasks, nth| last("tasks why", &tasks.queued, nth)),
        ("tasks why (running)", |tasks, nth| about("tasks why", &tasks.running, nth)),
        ("tasks why (delayed)", |tasks, nth| about("tasks why", &tasks.delayed, nth)),
        ("tasks retry (delayed)", |tasks, nth| about("tasks retry", &tasks.delayed, nth)),
        ("tasks cancel (queued)", |tasks, nth| last("tasks cancel", &tasks.queued, nth)),
        ("tasks cancel (delayed)", |tasks, nth| last("tasks cancel", &tasks.delayed, nth)),
        ("tasks cancel (running)", |tasks, nth| about("tasks cancel", &tasks.running, nth)),
        ("dead list", |_, _| words("dead list")),
        ("dead show", |tasks, nth| about("dead show", &tasks.dead, nth)),
        ("dead replay", |tasks, nth| about("dead replay", &tasks.dead, nth)),
        ("queues list", |_, _| words("queues list")),
        ("queues pause", |_, _| words("queues pause chaos.chaos")),
        ("queues resume", |_, _| words("queues resume chaos.chaos")),
        ("workers list", |_, _| words("workers list")),
    ]
}

impl Tasks {
    async fn made(http: &Http, worker: &Cardcage, behind: usize) -> Result<Self> {
        let dead = posted(http, "/chaos/task", &json!({ "mode": "fail_for_good" }), TIMES).await?;
        says(worker, &format!("cardcage_tasks_total{{what=\"failed\"}} {TIMES}")).await?;
        let sleep = json!({ "mode": "sleep", "ms": 600_000 });
        let running = posted(http, "/chaos/task", &sleep, TIMES).await?;
        says(worker, &format!("cardcage_tasks_in_flight {TIMES}")).await?;
        posted(http, "/chaos/task", &sleep, SLOTS).await?;
        let ok = json!({ "mode": "ok" });
        Ok(Self {
            dead,
            running,
            queued: posted(http, "/chaos/task", &ok, behind).await?,
            delayed: posted(http, "/chaos/delayed?delay_ms=3600000", &ok, behind).await?,
        })
    }
}

async fn posted(http: &Http, path: &str, body: &Value, count: usize) -> Result<Vec<String>> {
    let posts = (0..count).map(|_| async {
        let headers = [("content-type", "application/json")];
        let reply = http.send(Method::POST, path, &headers, Bytes::from(body.to_string())).await?;
        if reply.status != 202 {
            return Err(Error::new(format!("POST {path} was answered {}: {}", reply.status, reply.text())));
        }
        reply.task_id()
    });
    // In this order, as far as their answers tell.
    futures_util::stream::iter(posts).buffered(CALLERS).try_collect().await
}

/// Waits for a line of the worker's metrics.
async fn says(worker: &Cardcage, line: &str) -> Result<()> {
    let admin = worker.admin()?;
    eventually(Deadline::seconds(60), &format!("the worker says {line}"), async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await
}
