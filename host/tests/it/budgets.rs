//! Budgets of worker groups and of single plugins, measured: threads, calls and tasks at the same time, in each process and over
//! all of them.

use crate::declarations::{accepted, most_at_once, outcomes};
use crate::groups::grouped;
use crate::serving::{Serving, assert_problem, sleep, soon};
use cardcage_harness::{Cardcage, Config, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Long enough that nobody waits for its end.
const LONG_MS: u64 = 120_000;

/// Process ids of a group's children.
async fn children(worker: &Cardcage, group: &str) -> Vec<u64> {
    let ready = worker.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
    let seats = ready["seats"].as_array().unwrap().iter().filter(|seat| seat["seat"]["group"] == group);
    seats.map(|seat| seat["child_pid"].as_u64().unwrap()).collect()
}

/// How many threads of a process have the plugin's name: its runtime's.
fn threads(pid: u64, plugin: &str) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.trim() == plugin)).count()
}

fn time(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<cardcage_protocol::Timestamp>().unwrap().unix_ms()
}

/// The tasks by the worker that ran them, once each.
fn by_worker(tasks: &[Value]) -> BTreeMap<&str, Vec<Value>> {
    let mut by_worker: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for task in tasks {
        assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task}");
        by_worker.entry(task["attempts"][0]["worker"].as_str().unwrap()).or_default().push(task.clone());
    }
    by_worker
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_of_a_plugin_has_the_threads_of_its_group_or_its_own_and_no_others() {
    let groups = r#"[{ name = "wild", plugins = ["chaos"], processes = 2, plugin_threads = 3 },
        { name = "rest", plugin_threads = 2 }]"#;
    // Threads that the host lends are another budget.
    let change = |config: Config| {
        grouped(config, groups).set("plugins.hello.threads", 1).set("loading.lend_threads", false)
    };
    let (serving, worker) = Serving::both(change).await;
    for child in children(&worker, "wild").await {
        assert_eq!(threads(child, "chaos"), 3);
    }
    assert_eq!(threads(children(&worker, "rest").await[0], "hello"), 1);
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(accepted(&serving, "/chaos/task", &json!({ "mode": "block", "ms": 500 })).await);
    }
    let done = outcomes(&serving, &ids).await;
    let attempts = || done.iter().map(|task| &task["attempts"][0]);
    let first = attempts().map(|attempt| time(&attempt["started_at"])).min().unwrap();
    let mut ends: Vec<u64> = attempts().map(|attempt| time(&attempt["ended_at"])).collect();
    ends.sort_unstable();
    // Six hold a thread each; the seventh waits for one of them, whichever process it is in.
    assert!(ends[6] - first >= 990, "more than six held a thread at once: {first} {ends:?}");
}

/// Holds calls until each process of the group `wild` has so many of them.
async fn held(
    serving: &Serving,
    worker: &Cardcage,
    each: usize,
) -> Vec<tokio::task::JoinHandle<cardcage_harness::Reply>> {
    let mut held = Vec::new();
    let admin = worker.admin().unwrap();
    let full =
        |process: u32| format!("cardcage_calls_in_flight{{group=\"wild\",process=\"{process}\"}} {each}");
    eventually(soon(), "each process has its calls", async || {
        // Whom a call reaches is the broker's dice, and one that met full workers only is refused.
        held.retain(|call: &tokio::task::JoinHandle<_>| !call.is_finished());
        if held.len() < 2 * each {
            held.push(serving.order_later(sleep(LONG_MS)));
        }
        let text = admin.get("/metrics").await.ok()?.text();
        (1..=2).all(|process| text.lines().any(|line| line == full(process))).then_some(())
    })
    .await
    .unwrap();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_of_a_group_takes_the_calls_of_its_budget_or_the_plugins_own_and_refuses_more() {
    let groups =
        r#"[{ name = "wild", plugins = ["chaos"], processes = 2, call_concurrency = 2 }, { name = "rest" }]"#;
    for (own, each) in [(None, 2), (Some(1), 1)] {
        let change = |config: Config| {
            let config = grouped(config, groups);
            own.into_iter().fold(config, |config, own| config.set("plugins.chaos.call_concurrency", own))
        };
        let (serving, worker) = Serving::both(change).await;
        let held = held(&serving, &worker, each).await;
        for _ in 0..5 {
            assert_problem(&serving.order(sleep(0)).await, 503, "worker_busy");
        }
        assert!(held.iter().all(|call| !call.is_finished()));
        assert_eq!(serving.http.post_json("/hello/call", &json!(1)).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_over_all_workers_hold_over_the_processes_of_a_group() {
    let groups = r#"[{ name = "wild", plugins = ["chaos"], processes = 3 }, { name = "rest" }]"#;
    let change = |config: Config| {
        let config = grouped(config, groups).set("plugins.chaos.tasks.short.rate", "10/s");
        config.set("plugins.chaos.tasks.chaos.max_running", 2)
    };
    let (serving, _worker) = Serving::both(change).await;
    let (mut paced, mut few) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        paced.push(accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await);
    }
    for _ in 0..10 {
        few.push(accepted(&serving, "/chaos/task", &sleep(200)).await);
    }
    let (paced, few) = (outcomes(&serving, &paced).await, outcomes(&serving, &few).await);
    let mut starts: Vec<u64> = paced.iter().map(|task| time(&task["attempts"][0]["started_at"])).collect();
    starts.sort_unstable();
    // Each process may have one start in hand when the first task comes, and gets another one at once for the one it uses.
    assert!(starts[59] - starts[0] >= 5_400, "60 tasks at 10/s: {starts:?}");
    assert_eq!(by_worker(&paced).len(), 3, "all processes took their part");
    assert_eq!(most_at_once(&few), 2);
    let workers: BTreeSet<&str> = by_worker(&few).into_keys().collect();
    assert!(workers.len() > 1, "the bound was kept by more than one process: {workers:?}");
}
