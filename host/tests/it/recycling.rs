//! Handlers that hold a thread past their limit: only a fresh child ends them, and nobody else may notice.

use crate::serving::{Serving, child, soon, wait_metric};
use cardcage_harness::{Cardcage, Config, Deadline, eventually};
use serde_json::{Value, json};

/// A lease so long that nothing in these tests waits for its end.
fn config(config: Config) -> Config {
    config
        .set("tasks.lease_ms", 120_000)
        .set("drain.grace_ms", 2_000)
        .set("tasks.backoff", "50ms..100ms")
        .set("api.call_timeout_ms", 2_000)
}

async fn accepted(serving: &Serving, path: &str, body: Value) -> String {
    let reply = serving.http.post_json(path, &body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

/// Calls another plugin until the worker has one child, and another one than `old`; every call must be answered.
async fn replaced_unnoticed(serving: &Serving, worker: &Cardcage, old: u32) {
    eventually(soon(), "the child is replaced", async || {
        let reply = serving.http.post_json("/hello/call", &json!({})).await.unwrap();
        assert_eq!(reply.status, 200, "{}\n{}", reply.text(), worker.stderr());
        let ready = worker.admin().unwrap().get("/readyz").await.unwrap();
        assert_eq!(ready.status, 200, "it is ready all the time: {}", ready.text());
        let children = worker.child_pids();
        (children.len() == 1 && children[0] != old).then_some(())
    })
    .await
    .unwrap();
}

/// The first attempt timed out, later ones may have been cut off with the child, the last one succeeded.
fn timed_out_once(task: &Value) {
    let causes = causes(task);
    assert_eq!((causes.first(), causes.last()), (Some(&"timeout"), Some(&"succeeded")), "{task}");
    assert_eq!(causes.iter().filter(|cause| **cause == "timeout").count(), 1, "{task}");
    assert!(causes.iter().all(|cause| *cause != "lease_lost" && *cause != "crashed"), "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_blocks_its_thread_past_its_limit_is_ended_with_its_child_and_nobody_else_notices() {
    let (serving, worker) = Serving::both(config).await;
    for mode in ["block", "spin"] {
        let old = child(&worker);
        // Its plugin's own thread: this is the first start of the handler.
        let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 1 })).await;
        serving.http.final_task(&id, soon()).await.unwrap();
        let stuck = json!({ "mode": mode, "ms": 600_000, "times": 1 });
        let id = accepted(&serving, "/chaos/short", stuck).await;
        replaced_unnoticed(&serving, &worker, old).await;
        timed_out_once(&serving.http.final_task(&id, soon()).await.unwrap());
    }
    assert!(worker.stderr().contains("holds its thread past its time limit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_blocks_a_lent_thread_for_ever_is_ended_with_its_child() {
    let (serving, worker) = Serving::both(config).await;
    let admin = worker.admin().unwrap();
    let ended = async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        let line = metrics.lines().find_map(|l| l.strip_prefix("cardcage_handlers_ended_in_place_total "))?;
        line.parse::<u64>().ok()
    };
    // Most of a round: then the handler has earned its place.
    eventually(Deadline::seconds(90), "short tasks end in place", async || {
        let before = ended().await?;
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(accepted(&serving, "/chaos/short", json!({ "mode": "ok" })).await);
        }
        for id in &ids {
            serving.http.final_task(id, soon()).await.ok()?;
        }
        (ended().await? >= before + 40).then_some(())
    })
    .await
    .unwrap();
    let old = child(&worker);
    let id = accepted(&serving, "/chaos/short", json!({ "mode": "block", "ms": 600_000, "times": 1 })).await;
    replaced_unnoticed(&serving, &worker, old).await;
    timed_out_once(&serving.http.final_task(&id, soon()).await.unwrap());
    assert!(worker.stderr().contains("holds up a thread of the host"), "it was polled in place");
    wait_metric(&worker, "cardcage_tasks_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_blocks_its_plugin_for_ever_is_ended_with_its_child_and_the_plugin_answers_again() {
    let (serving, worker) = Serving::both(config).await;
    let old = child(&worker);
    assert_eq!(serving.order(json!({ "mode": "block", "ms": 600_000 })).await.status, 504);
    replaced_unnoticed(&serving, &worker, old).await;
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_task_that_blocks_end_within_the_grace_and_what_is_cut_off_counts_for_nothing() {
    let (serving, worker) = Serving::both(|shared| {
        config(shared)
            .set("drain.grace_ms", 10_000)
            // One thread is blocked; the neighbours have the other.
            .set("plugins.chaos.threads", 2)
            .set("plugins.chaos.tasks.chaos.max_attempts", 1)
            .set("loading.lend_threads", false)
    })
    .await;
    let old = child(&worker);
    let ends = accepted(&serving, "/chaos/task", json!({ "mode": "await_cancel" })).await;
    let lasts =
        accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 600_000, "times": 1 })).await;
    for id in [&ends, &lasts] {
        eventually(soon(), "it runs", async || {
            let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
            (task["state"] == "running").then_some(())
        })
        .await
        .unwrap();
    }
    let stuck = json!({ "mode": "block", "ms": 600_000, "times": 1 });
    let stuck = accepted(&serving, "/chaos/short", stuck).await;
    // A fresh child serves while the old one still runs what it has.
    eventually(soon(), "another child answers", async || {
        let reply = serving.http.post_json("/chaos/call", &json!({ "mode": "ok" })).await.ok()?;
        (reply.json().ok()?["pid"] != old && worker.child_pids().len() == 2).then_some(())
    })
    .await
    .unwrap();
    serving.http.post_json(&format!("/tasks/{ends}/cancel"), &json!({})).await.unwrap();
    let ended = serving.http.final_task(&ends, soon()).await.unwrap();
    assert_eq!((causes(&ended), &ended["result"]["pid"]), (vec!["succeeded"], &json!(old)), "{ended}");

    // It has one attempt, and being cut off is none.
    let cut_off = serving.http.final_task(&lasts, Deadline::seconds(60)).await.unwrap();
    assert_eq!(causes(&cut_off), ["interrupted", "succeeded"], "{cut_off}\n{}", worker.stderr());
    assert_ne!(cut_off["result"]["pid"], json!(old));
    timed_out_once(&serving.http.final_task(&stuck, soon()).await.unwrap());
    eventually(soon(), "the old child is gone", async || {
        let children = worker.child_pids();
        (children.len() == 1 && children[0] != old).then_some(())
    })
    .await
    .unwrap();
}
