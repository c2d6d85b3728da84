//! What becomes of tasks whose worker's child is crashed by one of them, with real crashes.

use crate::serving::{Serving, child, signal, soon, wait_metric};
use cardcage_harness::{Config, Signal, eventually};
use serde_json::{Value, json};

/// A lease so long that nothing in these tests waits for its end.
fn config(config: Config) -> Config {
    config.set("tasks.lease_ms", 120_000).set("drain.grace_ms", 5_000)
}

async fn accepted(serving: &Serving, path: &str, body: Value) -> String {
    let reply = serving.http.post_json(path, &body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn shows(serving: &Serving, id: &str, state: &str) {
    eventually(soon(), state, async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == state).then_some(())
    })
    .await
    .unwrap();
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_crashes_its_worker_becomes_a_dead_letter_and_its_neighbours_are_not_counted() {
    let (serving, _worker) = Serving::both(config).await;
    for (mode, said) in [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "exited with code 0")] {
        let neighbour = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 2_000 })).await;
        shows(&serving, &neighbour, "running").await;
        let culprit = accepted(&serving, "/chaos/task", json!({ "mode": mode })).await;
        let done = serving.http.final_task(&culprit, soon()).await.unwrap();
        assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("crashed")), "{done}");
        assert_eq!(causes(&done), ["crashed"; 3], "{mode}: {done}");
        let message = done["error"]["message"].as_str().unwrap();
        assert!(message.contains("3 times") && message.contains(said), "{mode}: {message}");

        let spared = serving.http.final_task(&neighbour, soon()).await.unwrap();
        assert_eq!(spared["state"], "succeeded", "{spared}");
        let (last, before) = causes(&spared).split_last().map(|(l, b)| (*l, b.to_vec())).unwrap();
        assert_eq!(last, "succeeded");
        assert!(!before.is_empty() && before.iter().all(|cause| *cause == "interrupted"), "{mode}: {spared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_crashes_once_is_tried_again_at_once() {
    let (serving, _worker) = Serving::both(config).await;
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "segfault", "times": 1 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(
        (&done["state"], causes(&done)),
        (&json!("succeeded"), vec!["crashed", "succeeded"]),
        "{done}"
    );
    assert!(done["attempts"][0]["error"]["message"].as_str().unwrap().contains("SIGSEGV"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_in_a_call_counts_against_no_task() {
    let (serving, _worker) = Serving::both(|c| config(c).set("tasks.crash_limit", 1)).await;
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 2_000 })).await;
    shows(&serving, &id, "running").await;
    assert_eq!(serving.order(json!({ "mode": "segfault" })).await.status, 502);
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["interrupted", "succeeded"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_from_outside_costs_its_tasks_a_loss_that_is_named() {
    let (serving, worker) = Serving::both(|c| config(c).set("tasks.crash_limit", 1)).await;
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 1_500 })).await;
    shows(&serving, &id, "running").await;
    signal(child(&worker), Signal::KILL);
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["lease_lost", "succeeded"]));
    assert!(done["attempts"][0]["error"]["message"].as_str().unwrap().contains("SIGKILL"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_whose_culprit_nobody_saw_is_found_by_running_the_suspects_one_at_a_time() {
    let (serving, worker) = Serving::both(config).await;
    // They sleep while a thread that no handler is polled on ends the process.
    let mut innocent = Vec::new();
    for _ in 0..3 {
        innocent.push(accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 1_500 })).await);
    }
    for id in &innocent {
        shows(&serving, id, "running").await;
    }
    let culprit = accepted(&serving, "/chaos/task", json!({ "mode": "abort_aside", "ms": 200 })).await;
    let done = serving.http.final_task(&culprit, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("crashed")), "{done}");
    assert_eq!(causes(&done).iter().filter(|cause| **cause == "crashed").count(), 3, "{done}");
    assert_eq!(done["attempts"][0]["error"]["code"], "suspected", "{done}");
    for id in &innocent {
        let spared = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(spared["state"], "succeeded", "{spared}\n{}", worker.stderr());
        assert!(!causes(&spared).contains(&"crashed"), "{spared}");
    }
    wait_metric(&worker, "cardcage_tasks_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_are_not_blamed_for_what_crashes_after_them() {
    // All these crashes are of one version; it must not be quarantined for them here.
    let set = |c| config(c).set("tasks.quarantine_after", 0).set("tasks.crash_limit", 1);
    let (serving, worker) = Serving::both(set).await;
    let mut innocent = Vec::new();
    for _ in 0..2 {
        innocent.push(accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 1_500 })).await);
    }
    for id in &innocent {
        shows(&serving, id, "running").await;
    }
    let crash = json!({ "mode": "abort_aside", "ms": 200 });
    let mut culprits = vec![accepted(&serving, "/chaos/task", crash.clone()).await];
    wait_metric(&worker, "cardcage_child_restarts_total 1").await;
    // They come while the suspects run again.
    for _ in 0..2 {
        culprits.push(accepted(&serving, "/chaos/task", crash.clone()).await);
    }
    for id in &innocent {
        let spared = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(spared["state"], "succeeded", "{spared}\n{}", worker.stderr());
        assert!(!causes(&spared).contains(&"crashed"), "{spared}");
    }
    for id in &culprits {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("crashed")), "{done}");
    }
}
