//! Draining a worker: what it holds is finished or handed back, long before a lease would end.

use crate::serving::{Serving, child, signal, sleep, soon, wait_metric};
use cardcage_harness::{Cardcage, Config, Signal, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A lease that nothing in these tests can wait for.
const LEASE: Duration = Duration::from_secs(600);

fn config(config: Config) -> Config {
    config.set("tasks.lease_ms", 600_000).set("worker.task_concurrency", 1)
}

async fn accepted(serving: &Serving, path: &str, order: &Value) -> String {
    let reply = serving.http.post_json(path, order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn started(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

async fn draining(host: &Cardcage) {
    let admin = host.admin().unwrap();
    eventually(soon(), "it drains", async || {
        let reply = admin.get("/readyz").await.ok()?;
        reply.text().contains("draining").then_some(())
    })
    .await
    .unwrap();
}

async fn done(serving: &Serving, id: &str) -> Value {
    let done = serving.http.final_task(id, soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    done
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_worker_finishes_what_runs_and_leaves_all_else_to_others_at_once() {
    let serving = Serving::api(|c| config(c).set("drain.grace_ms", 60_000)).await;
    let mut first = serving.worker().await;
    let running = accepted(&serving, "/chaos/task", &sleep(8_000)).await;
    started(&serving, &running).await;
    let mut waiting = Vec::new();
    // Of each task one is with the worker already, and waits there for the only slot.
    for path in ["/chaos/task", "/chaos/short"].repeat(10) {
        waiting.push(accepted(&serving, path, &json!({ "mode": "ok" })).await);
    }
    first.signal(Signal::TERM).unwrap();
    draining(&first).await;
    let late = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    let _second = serving.worker().await;
    for id in waiting.iter().chain([&late]) {
        let task = done(&serving, id).await;
        assert_eq!(causes(&task), ["succeeded"], "it was never started before, and no loss: {task}");
    }
    let status = first.wait_exit(soon()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", first.stderr());
    let finished = done(&serving, &running).await;
    assert_eq!(causes(&finished), ["succeeded"], "{finished}");
    let workers = |task: &Value| task["attempts"][0]["worker"].clone();
    assert_ne!(workers(&finished), workers(&done(&serving, &late).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_that_blocks_its_thread_over_the_grace_is_recorded_and_handed_back_and_the_exit_is_75() {
    let serving = Serving::api(|c| config(c).set("drain.grace_ms", 1_000)).await;
    let mut first = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "block", "ms": 600_000, "times": 1 })).await;
    started(&serving, &id).await;
    let began = Instant::now();
    let status = first.stop(soon()).await.unwrap();
    assert_eq!(status.code(), Some(75), "{}", first.stderr());
    let _second = serving.worker().await;
    let task = done(&serving, &id).await;
    assert_eq!(causes(&task), ["interrupted", "succeeded"], "{task}");
    assert!(began.elapsed() < LEASE / 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_ends_a_worker_now_and_what_it_held_is_answered_and_handed_back() {
    let serving = Serving::api(|c| config(c).set("drain.grace_ms", 300_000)).await;
    let mut first = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 600_000, "times": 1 })).await;
    started(&serving, &id).await;
    let call = serving.order_later(sleep(600_000));
    wait_metric(&first, "cardcage_calls_in_flight 1").await;
    let began = Instant::now();
    first.signal(Signal::TERM).unwrap();
    draining(&first).await;
    first.signal(Signal::TERM).unwrap();
    assert_eq!(first.wait_exit(soon()).await.unwrap().code(), Some(75), "{}", first.stderr());
    assert_eq!(call.await.unwrap().problem_code().as_deref(), Some("worker_crashed"));
    let _second = serving.worker().await;
    let task = done(&serving, &id).await;
    assert_eq!(causes(&task), ["interrupted", "succeeded"], "{task}");
    assert!(began.elapsed() < Duration::from_secs(60), "neither the grace nor the lease was waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_whose_child_is_stopped_drains_all_the_same() {
    let serving = Serving::api(|c| config(c).set("drain.grace_ms", 1_000)).await;
    let mut first = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 600_000, "times": 1 })).await;
    started(&serving, &id).await;
    signal(child(&first), Signal::STOP);
    assert_eq!(first.stop(soon()).await.unwrap().code(), Some(75), "{}", first.stderr());
    let _second = serving.worker().await;
    let task = done(&serving, &id).await;
    assert_eq!(causes(&task), ["interrupted", "succeeded"], "{task}");
}
