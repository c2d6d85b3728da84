//! Queues: what is told of them, that a pause holds, and that a purge leaves an outcome for everything it removes.

use cardcage_harness::{Launch, eventually};
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp};
use serde_json::{Value, json};

use super::{WAIT, accepted, broker, envelope, json, quick, run, wait_messages};
use crate::serving::{Serving, restored, soon, wait_metric};

/// The line of one queue.
async fn queue(serving: &Serving, task: &str, major: u64) -> Value {
    let list = json(serving, &["queues", "list"]).await;
    let found = list["queues"].as_array().unwrap().iter().find(|queue| {
        (&queue["plugin"], &queue["task"], &queue["major"]) == (&json!("chaos"), &json!(task), &json!(major))
    });
    found.unwrap_or_else(|| panic!("chaos.{task} v{major} is in {list}")).clone()
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

async fn publish(serving: &Serving, task: &str, count: usize) -> Vec<TaskId> {
    let broker = broker(serving).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let envelope = envelope(task, &json!({ "mode": "ok" }));
        broker.publish_task(&envelope, WAIT).await.unwrap();
        ids.push(envelope.id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn list_counts_what_waits_what_is_leased_delayed_and_dead() {
    let (serving, worker) = Serving::both(quick).await;
    let failed = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    serving.http.final_task(&failed, soon()).await.unwrap();
    wait_messages(&serving, "DEAD", 1).await;
    let held = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 60_000 })).await;
    running(&serving, &held).await;
    let body = r#"{"mode":"ok"}"#;
    let delayed = run(&serving, &["tasks", "enqueue", "chaos.chaos", "--json", body, "--delay", "1h"]).await;
    assert_eq!(delayed.status.code(), Some(0), "{delayed:?}");
    for _ in 0..3 {
        // A major that no worker has ever had: it has no consumer.
        let newer = TaskEnvelope { major: 7, version: "7.0.0".into(), ..envelope("chaos", &json!({})) };
        broker(&serving).await.publish_task(&newer, WAIT).await.unwrap();
    }
    let now = queue(&serving, "chaos", 0).await;
    let amounts = |queue: &Value| {
        ["waiting", "leased", "delayed", "dead", "workers"].map(|member| queue[member].as_u64().unwrap())
    };
    assert_eq!(amounts(&now), [0, 1, 1, 1, 1], "{now}");
    assert!(now["oldest_at"].is_string() && now["paused_until"].is_null(), "{now}");
    let newer = queue(&serving, "chaos", 7).await;
    assert_eq!((amounts(&newer), &newer["consumed"]), ([3, 0, 0, 1, 0], &json!(false)), "{newer}");
    assert_eq!(amounts(&queue(&serving, "short", 0).await), [0, 0, 0, 0, 1]);

    drop(worker);
    assert_eq!(queue(&serving, "chaos", 0).await["workers"], 0, "a worker that is gone is not counted");
    let text = run(&serving, &["queues", "list", "--plugin", "chaos"]).await.stdout;
    assert!(text.contains("chaos.short") && !text.contains("hello"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_outlives_workers_and_broker_and_only_a_resume_lifts_it() {
    let (mut serving, mut worker) = Serving::both(quick).await;
    json(&serving, &["queues", "pause", "chaos.chaos"]).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    let other = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    serving.http.final_task(&other, soon()).await.unwrap();

    worker.stop(soon()).await.unwrap();
    drop(worker);
    serving.nats.kill9();
    serving.nats.restart().await.unwrap();
    restored(&serving.api).await;
    // A starting host compares and creates; it changes nothing.
    let worker = serving.worker().await;
    let other = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    serving.http.final_task(&other, soon()).await.unwrap();
    let why = json(&serving, &["tasks", "why", &id]).await;
    assert_eq!(why["code"], "paused");
    let why = why["why"].as_str().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (paused, by) =
        ("waiting: chaos.chaos is paused until it is resumed, by ", format!("@{} since 2", host.trim()));
    assert!(why.starts_with(paused) && why.contains(&by), "{why}");
    assert!(why.ends_with("; `cardcage queues resume chaos.chaos` lifts it"), "{why}");
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
    let paused = queue(&serving, "chaos", 0).await;
    assert_eq!((&paused["waiting"], paused["paused_until"].is_string()), (&json!(1), true), "{paused}");
    assert!(paused["paused_by"]["by"].as_str().unwrap().ends_with(host.trim()), "{paused}");
    let list = run(&serving, &["queues", "list"]).await.stdout;
    assert!(list.contains("until it is resumed, by "), "{list}");
    let short = queue(&serving, "short", 0).await;
    assert!(short["paused_until"].is_null() && short["paused_by"].is_null(), "{short}");

    json(&serving, &["queues", "resume", "chaos.chaos"]).await;
    // Whoever pauses it past cardcage has left no name.
    let consumers = broker(&serving).await.task_consumers(&"chaos".parse().unwrap()).await.unwrap();
    let own = consumers.iter().find(|one| one.task.as_str() == "chaos").unwrap();
    broker(&serving).await.pause_consumer(own, Timestamp::now().plus_ms(600_000)).await.unwrap();
    let nobodys = queue(&serving, "chaos", 0).await;
    assert!(nobodys["paused_until"].is_string() && nobodys["paused_by"].is_null(), "{nobodys}");
    json(&serving, &["queues", "resume", "chaos.chaos"]).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    // One with an end lifts itself.
    json(&serving, &["queues", "pause", "chaos", "--for", "1s"]).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    let unknown = run(&serving, &["queues", "pause", "chaos.nothing"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_tasks_end_cancelled_and_what_a_worker_holds_goes_on() {
    let (serving, _worker) = Serving::both(quick).await;
    let held = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 20_000 })).await;
    running(&serving, &held).await;
    let retrying =
        accepted(&serving, "/chaos/task", &json!({ "mode": "retry_after", "ms": 3_600_000 })).await;
    wait_messages(&serving, "SCHEDULE", 1).await;
    json(&serving, &["queues", "pause", "chaos.chaos"]).await;
    let waiting = publish(&serving, "chaos", 3).await;
    let untouched = publish(&serving, "short", 1).await;
    serving.http.final_task(&untouched[0].to_string(), soon()).await.unwrap();

    let dry = json(&serving, &["queues", "purge", "chaos.chaos", "--delayed", "--dry-run"]).await;
    assert_eq!((&dry["count"], &dry["held"]), (&json!(4), &json!(1)), "{dry}");
    let unsure = run(&serving, &["queues", "purge", "chaos.chaos"]).await;
    assert_eq!(unsure.status.code(), Some(2), "{unsure:?}");
    assert!(unsure.stdout.contains("3 tasks would be cancelled"), "{unsure:?}");
    let purged = json(&serving, &["queues", "purge", "chaos.chaos", "--delayed", "--yes"]).await;
    assert_eq!((&purged["cancelled"], &purged["held"]), (&json!(4), &json!(1)), "{purged}");

    for id in waiting.iter().map(TaskId::to_string).chain([retrying.clone()]) {
        let done = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
        assert_eq!(
            (&done["state"], &done["error"]["code"]),
            (&json!("cancelled"), &json!("purged")),
            "{done}"
        );
    }
    let done = serving.get(&format!("/tasks/{retrying}")).await.json().unwrap();
    assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "its history stays: {done}");
    wait_messages(&serving, "SCHEDULE", 0).await;
    assert_eq!(serving.http.final_task(&held, soon()).await.unwrap()["state"], "succeeded");
    wait_messages(&serving, "TASKS_chaos", 0).await;
    let unknown = run(&serving, &["queues", "purge", "nobody", "--yes"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_that_was_killed_and_is_made_again_leaves_one_outcome_for_every_task() {
    const COUNT: usize = 600;
    let serving = Serving::api(quick).await;
    let ids = publish(&serving, "chaos", COUNT).await;
    let mut first =
        Launch::new(["queues", "purge", "chaos", "--yes"]).config(&serving.config).start().unwrap();
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut records = context.get_stream(format!("{}_STATE", serving.config.namespace())).await.unwrap();
    eventually(soon(), "some are recorded", async || {
        (records.info().await.ok()?.state.messages > 0).then_some(())
    })
    .await
    .unwrap();
    first.kill9();

    json(&serving, &["queues", "purge", "chaos", "--yes"]).await;
    wait_messages(&serving, "TASKS_chaos", 0).await;
    assert_eq!(records.info().await.unwrap().state.messages, COUNT as u64, "one record for each");
    let broker = broker(&serving).await;
    for id in ids {
        let (record, _) = broker.read_record(id).await.unwrap().unwrap();
        assert_eq!((record.state.as_str(), record.error.unwrap().code.as_str()), ("cancelled", "purged"));
    }
    let worker = serving.worker().await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
}
