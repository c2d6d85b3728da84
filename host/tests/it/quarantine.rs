//! A plugin that crashes its workers with one task after the other, and what stays of it for everybody else.

use crate::serving::{Serving, assert_problem, soon, wait_metric};
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Output, eventually};
use cardcage_protocol::{Crash, InstanceId, Name, QuarantinePolicy, TaskId, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

/// Short times: what was on its way to a child as it died comes again when its lease ends.
fn config(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000).set("tasks.quarantine_after", 2)
}

async fn accepted(serving: &Serving, path: &str, order: &Value) -> String {
    let reply = serving.http.post_json(path, order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn verbose(host: &Cardcage) -> Value {
    host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap()
}

/// Waits until a host shows that chaos is quarantined, or that nothing is.
async fn quarantined(host: &Cardcage, wanted: bool) {
    let text = format!("chaos is quarantined: {wanted}");
    eventually(soon(), &text, async || {
        let shown = verbose(host).await["quarantined"].clone();
        let is_it = shown.as_array()?.iter().any(|one| one["plugin"] == "chaos" && one["version"] == "0.1.0");
        (is_it == wanted).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", host.stderr()));
}

async fn run(serving: &Serving, arguments: &[&str]) -> Output {
    Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap()
}

async fn run_json(serving: &Serving, arguments: &[&str]) -> Value {
    let output = run(serving, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// Two tasks whose first attempts crash, one after the other: what is on its way to a dying child is another matter.
async fn crashes(serving: &Serving) {
    let crash = json!({ "mode": "abort", "times": 1 });
    let first = accepted(serving, "/chaos/task", &crash).await;
    assert_eq!(serving.http.final_task(&first, soon()).await.unwrap()["state"], "succeeded");
    accepted(serving, "/chaos/task", &crash).await;
}

async fn why(serving: &Serving, id: &str) -> Value {
    run_json(serving, &["tasks", "why", id]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_crashes_in_different_tasks_is_quarantined_until_it_is_released_and_others_go_on() {
    let (serving, mut worker) = Serving::both(config).await;
    crashes(&serving).await;
    quarantined(&worker, true).await;
    quarantined(&serving.api, true).await;

    // Its tasks wait, its calls are refused at once, and everybody is told why.
    let id = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    assert_problem(&serving.order(json!({ "mode": "ok" })).await, 503, "plugin_quarantined");
    let said = why(&serving, &id).await;
    assert_eq!((&said["state"], &said["code"]), (&json!("queued"), &json!("quarantined")), "{said}");
    assert!(said["why"].as_str().unwrap().contains("cardcage plugin release chaos"), "{said}");
    let listed = run_json(&serving, &["workers", "list"]).await;
    let plugins = listed["workers"][0]["plugins"].as_array().unwrap();
    let marks: Vec<_> = plugins.iter().map(|one| (&one["name"], one["quarantined_at"].is_string())).collect();
    assert_eq!(marks, [(&json!("chaos"), true), (&json!("hello"), false)], "{listed}");
    wait_metric(&worker, "cardcage_plugins_quarantined 1").await;
    let reason = verbose(&worker).await["quarantined"][0]["reason"].clone();
    assert!(reason.as_str().unwrap().contains("in 2 different tasks, the last time in chaos"), "{reason}");

    // The worker is ready, and does what it can for the others.
    assert_eq!(worker.admin().unwrap().get("/readyz").await.unwrap().status, 200);
    let other = accepted(&serving, "/hello/task", &json!({ "n": 1 })).await;
    assert_eq!(serving.http.final_task(&other, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!(serving.http.post_json("/hello/call", &json!({})).await.unwrap().status, 200);

    // It outlives the worker.
    assert_eq!(worker.stop(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());
    let worker = serving.worker().await;
    quarantined(&worker, true).await;
    assert_problem(&serving.order(json!({ "mode": "ok" })).await, 503, "plugin_quarantined");
    assert_eq!(why(&serving, &id).await["code"], "quarantined");
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;

    let waiting = run(&serving, &["plugin", "release", "chaos", "--version", "9.9.9"]).await;
    assert_eq!(waiting.status.code(), Some(1), "{waiting:?}");
    let released = run_json(&serving, &["plugin", "release", "chaos"]).await;
    assert_eq!(released["released"][0]["version"], "0.1.0", "{released}");
    let done = serving.http.final_task(&id, Deadline::seconds(60)).await.unwrap();
    assert_eq!(
        (&done["state"], done["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1),
        "{done}"
    );
    quarantined(&worker, false).await;
    eventually(soon(), "calls are taken again", async || {
        (serving.order(json!({ "mode": "ok" })).await.status == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_holds_for_every_worker_of_that_version_and_for_no_other_version() {
    let (serving, first) = Serving::both(config).await;
    let second = serving.worker().await;
    let broker = serving.broker(Duration::from_secs(120)).await;
    // What a worker with another version would have noted.
    let chaos = Name::new("chaos").unwrap();
    let crash = |n: u64| Crash {
        task_id: TaskId::generate(),
        task: Name::new("chaos").unwrap(),
        at: Timestamp::from_unix_ms(Timestamp::now().unix_ms() + n),
        worker: InstanceId::new("worker-elsewhere").unwrap(),
        how: "died of SIGSEGV".into(),
    };
    let policy = QuarantinePolicy { after: 2, window_ms: 60_000 };
    assert_eq!(broker.note_crash(&chaos, "0.2.0", crash(0), policy).await.unwrap(), None);
    assert!(broker.note_crash(&chaos, "0.2.0", crash(1), policy).await.unwrap().is_some());
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.status, 200);

    assert_eq!(broker.note_crash(&chaos, "0.1.0", crash(0), policy).await.unwrap(), None);
    assert!(broker.note_crash(&chaos, "0.1.0", crash(1), policy).await.unwrap().is_some());
    for worker in [&first, &second] {
        quarantined(worker, true).await;
    }
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(why(&serving, &id).await["code"], "quarantined");
    let released = run_json(&serving, &["plugin", "release", "chaos", "--version", "0.1.0"]).await;
    assert_eq!(released["released"].as_array().unwrap().len(), 1, "{released}");
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_that_crashes_again_and_again_and_crashes_in_calls_quarantine_nothing() {
    let (serving, worker) = Serving::both(config).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "abort" })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("crashed")), "{done}");
    assert_eq!(serving.order(json!({ "mode": "abort" })).await.status, 502);
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!(verbose(&worker).await["quarantined"], json!([]));
}
