//! What becomes of tasks whose worker's child is crashed by one of them, with real crashes.

use crate::serving::{Serving, child, signal, soon, wait_metric};
use cardcage_harness::{Cardcage, Config, Launch, Signal, eventually};
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
async fn task_that_is_about_to_start_when_its_child_dies_comes_back_at_once() {
    let serving = Serving::api(|c| config(c).set("retry.time_scale", 0.1)).await;
    // The second time is the second attempt, whose record has to be read first: it waits on the board.
    let doomed = Launch::new(["worker"]).config(&serving.config);
    let worker = doomed.env("CARDCAGE_FAILPOINT", "before_start:2@child").ready().await.unwrap();
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "fail_until", "times": 2 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["error", "succeeded"]));
    wait_metric(&worker, "cardcage_child_restarts_total 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_waits_for_the_turn_of_its_key_when_its_child_dies_comes_back_at_once() {
    let serving = Serving::api(config).await;
    let doomed = Launch::new(["worker"]).config(&serving.config);
    let worker = doomed.env("CARDCAGE_FAILPOINT", "before_turn:2@child").ready().await.unwrap();
    for (key, restarts) in [("one", 0), ("two", 1)] {
        let id = accepted(&serving, "/chaos/keyed", json!({ "mode": "ok", "serial": key })).await;
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
        wait_metric(&worker, &format!("cardcage_child_restarts_total {restarts}")).await;
    }
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
async fn task_whose_workers_are_lost_without_a_word_becomes_a_dead_letter_at_its_own_limit() {
    // One crash would be too many; losses are not crashes.
    let set = |config: Config| {
        let limits = config.set("tasks.crash_limit", 1).set("tasks.lost_limit", 3);
        limits.set("tasks.lease_ms", 2_000).set("drain.grace_ms", 1_000)
    };
    let serving = Serving::api(set).await;
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 600_000 })).await;
    for _ in 0..3 {
        let mut worker = serving.worker().await;
        wait_metric(&worker, "cardcage_tasks_in_flight 1").await;
        // Supervisor and child: nobody is left to say what happened.
        let pid = child(&worker);
        worker.kill9();
        signal(pid, Signal::KILL);
    }
    let _worker = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("lease_lost")), "{done}");
    assert_eq!(causes(&done), ["lease_lost"; 3], "{done}");
    assert!(done["error"]["message"].as_str().unwrap().contains("3 times"), "{done}");
}

/// Two tasks that take so long, each of which may have ended their worker's first child.
async fn two_suspects(serving: &Serving, worker: &Cardcage, ms: u64) -> Vec<String> {
    let mut suspects = Vec::new();
    for _ in 0..2 {
        suspects.push(accepted(serving, "/chaos/task", json!({ "mode": "sleep", "ms": ms })).await);
    }
    for id in &suspects {
        shows(serving, id, "running").await;
    }
    // A thread that a call has started: of the tasks of its plugin each may have done it.
    assert_eq!(serving.order(json!({ "mode": "abort_aside", "ms": 100 })).await.status, 502);
    wait_metric(worker, "cardcage_child_restarts_total 1").await;
    suspects
}

#[tokio::test(flavor = "multi_thread")]
async fn suspect_that_waits_for_another_one_is_said_to_wait_in_its_worker() {
    let (serving, worker) = Serving::both(config).await;
    let suspects = two_suspects(&serving, &worker, 8_000).await;
    let command = async |arguments: &[&str]| {
        let output =
            Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap();
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let told = async || {
        let mut codes = Vec::new();
        for id in &suspects {
            codes.push(command(&["tasks", "why", id, "--json"]).await["code"].as_str()?.to_owned());
        }
        codes.sort();
        (codes == ["at_worker", "leased"]).then_some(())
    };
    eventually(soon(), "one suspect runs, and one waits in the worker", told).await.unwrap();
    let list = command(&["workers", "list", "--json"]).await;
    assert_eq!(list["workers"][0]["busy"], 1, "a suspect that runs is work: {list}");
    for id in &suspects {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(causes(&done), ["interrupted", "succeeded"], "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspect_that_waits_for_its_turn_is_cancelled_while_the_one_before_it_runs() {
    let (serving, worker) = Serving::both(config).await;
    let suspects = two_suspects(&serving, &worker, 30_000).await;
    let shown = async |id: &str| serving.get(&format!("/tasks/{id}")).await.json().unwrap();
    let first = eventually(soon(), "one of them runs again", async || {
        for (at, id) in suspects.iter().enumerate() {
            // Whoever waits is in the worker's hands, too.
            if shown(id).await["attempts"].as_array().unwrap().len() == 2 {
                return Some(at);
            }
        }
        None
    });
    let first = first.await.unwrap();
    let (runs, waits) = (&suspects[first], &suspects[1 - first]);
    let cancel = serving.http.post_json(&format!("/tasks/{waits}/cancel"), &json!({})).await.unwrap();
    assert!((200..300).contains(&cancel.status), "{}", cancel.text());
    let done = serving.http.final_task(waits, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("cancelled"), vec!["interrupted"]), "{done}");
    assert_eq!(shown(runs).await["state"], "running", "the other one is still at it");
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
