//! Delayed tasks wait in the broker: never early, once each whatever was down when they were due, and in nobody's way.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::Broker;
use cardcage_harness::{Cardcage, Deadline, eventually};
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::serving::{Serving, chaos_envelope, restored};

/// Generous: debug builds on a busy machine.
fn soon() -> Deadline {
    Deadline::seconds(90)
}

const WAIT: Duration = Duration::from_secs(30);

/// Hosts read the broker's clock from its answers, and round to milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 10;

async fn delayed(serving: &Serving, delay_ms: u64) -> (String, Timestamp) {
    let due = Timestamp::now().plus_ms(delay_ms);
    let path = format!("/chaos/delayed?delay_ms={delay_ms}");
    let reply = serving.http.post_json(&path, &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    (reply.task_id().unwrap(), due)
}

fn time(task: &Value, what: &str) -> Timestamp {
    task["attempts"][0][what].as_str().unwrap().parse().unwrap()
}

/// How often each task ran, by the plugin's own word.
fn runs(trace: &Path) -> BTreeMap<String, u32> {
    let mut runs = BTreeMap::new();
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        *runs.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_tasks_are_never_early_and_those_due_while_everything_was_down_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let (mut serving, mut worker) = Serving::both(|config| {
        config
            .plugin_set("chaos", "trace", trace.display().to_string())
            .set("tasks.lease_ms", 3_000)
            .set("drain.grace_ms", 2_000)
    })
    .await;
    let mut tasks = Vec::new();
    for n in 0..20 {
        tasks.push(delayed(&serving, 400 * n).await);
    }
    // Some are done, most are not when everything goes away; and it stays away until the last is due.
    serving.http.final_task(&tasks[1].0, soon()).await.unwrap();
    worker.kill9();
    serving.nats.kill9();
    let last = tasks.iter().map(|(_, due)| *due).max().unwrap();
    eventually(soon(), "all are due", async || (Timestamp::now() > last).then_some(())).await.unwrap();
    serving.nats.restart().await.unwrap();
    restored(&serving.api).await;
    let _worker = serving.worker().await;

    for (id, due) in &tasks {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(done["state"], "succeeded", "{done}");
        let earliest = due.unix_ms() - CLOCK_TOLERANCE_MS;
        assert!(time(&done, "started_at").unix_ms() >= earliest, "due at {due}: {done}");
    }
    // What ran when the worker was killed may have run again; what was only due then ran once.
    let runs = runs(&trace);
    let late: Vec<_> = tasks.iter().skip(10).map(|(id, _)| runs.get(id).copied()).collect();
    assert_eq!(late, vec![Some(1); 10]);
}

fn envelope() -> TaskEnvelope {
    let body = Bytes::from_static(b"{\"mode\":\"ok\"}");
    chaos_envelope(TaskId::generate(), "chaos", body)
}

async fn schedule(
    broker: &Broker,
    count: usize,
    at: impl Fn(usize) -> Timestamp,
) -> Vec<(TaskId, Timestamp)> {
    let publishes = (0..count).map(|n| (envelope(), at(n))).map(|(envelope, at)| async move {
        broker.schedule_task(&envelope, at, WAIT).await.unwrap();
        (envelope.id, at)
    });
    futures_util::stream::iter(publishes).buffer_unordered(256).collect().await
}

/// Resident memory of all of a host's processes, in KiB.
fn resident(host: &Cardcage) -> u64 {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).map(str::to_owned);
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0u64)
    };
    host.child_pids().into_iter().chain([host.pid()]).map(of).sum()
}

/// How long a task takes that is enqueued now.
async fn round_trip(serving: &Serving) -> Duration {
    let begun = Instant::now();
    let reply = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_delayed_tasks_cost_a_worker_nothing_and_hold_up_nobody() {
    let (serving, worker) = Serving::both(|config| config).await;
    round_trip(&serving).await;
    let broker = serving.broker(Duration::from_secs(30)).await;
    let before = resident(&worker);
    let hour = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(3_600_000);
    schedule(&broker, 50_000, |_| hour).await;
    let slowest = {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            slowest = slowest.max(round_trip(&serving).await);
        }
        slowest
    };
    assert!(slowest < Duration::from_secs(5), "{slowest:?} behind tasks that are not due");
    let grown = resident(&worker).saturating_sub(before);
    assert!(grown < 16 * 1024, "50,000 delayed tasks cost the worker {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_due_within_a_second_are_none_early_nor_late_and_let_others_through() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let broker = serving.broker(Duration::from_secs(30)).await;
    // Far enough ahead that all are stored before the first is due.
    let begins = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(10_000);
    let tasks = schedule(&broker, 1_000, |n| begins.plus_ms(n as u64)).await;
    assert!(broker.now_unix_ms() < begins.unix_ms(), "this machine took 10 s to store 1,000 messages");
    eventually(soon(), "the flood has begun", async || {
        (broker.now_unix_ms() > begins.unix_ms()).then_some(())
    })
    .await
    .unwrap();
    let through = round_trip(&serving).await;
    let mut latest = 0;
    for (id, due) in tasks {
        let record = eventually(soon(), "a delayed task has ended", async || {
            let (record, _) = broker.read_record(id).await.ok()??;
            record.state.is_final().then_some(record)
        })
        .await
        .unwrap();
        let started = record.attempts[0].started_at.unix_ms();
        assert!(started >= due.unix_ms() - CLOCK_TOLERANCE_MS, "due at {due}: {record:?}");
        assert_eq!(record.attempts.len(), 1, "{record:?}");
        latest = latest.max(started.saturating_sub(due.unix_ms()));
    }
    // Half a second is promised, at twice the rate (`./justw bench --path due`); a debug build on a busy machine may take five
    // times as long.
    assert!(latest < 2_500, "the latest started {latest} ms after its time");
    assert!(through < Duration::from_millis(2_500), "another task took {through:?} while the flood was due");
}
