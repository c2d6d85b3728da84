//! Waiting for another task's end, from a route's handler.

use crate::serving::{Serving, soon};
use cardcage_harness::{Config, eventually};
use cardcage_protocol::TaskId;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

async fn wait(serving: &Serving, query: &str, order: &Value) -> Value {
    let reply = serving.http.post_json(&format!("/chaos/wait?{query}"), order).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_the_result_or_the_failure_of_the_task_that_it_waits_for() {
    let (serving, _worker) = Serving::both(quick).await;
    let done = wait(&serving, "ms=20000", &json!({ "mode": "fail_until", "times": 2 })).await;
    assert_eq!(done["ended"]["succeeded"]["attempt"], 2, "{done}");
    // What has ended before is told at once.
    let id = done["id"].as_str().unwrap();
    let again = wait(&serving, &format!("ms=20000&id={id}"), &json!({ "mode": "ok" })).await;
    assert_eq!(again["ended"], done["ended"]);
    let failed = wait(&serving, "ms=20000", &json!({ "mode": "fail_for_good" })).await;
    assert_eq!(failed["ended"]["failed"], "failed for good as told", "{failed}");
    let discarded = wait(&serving, "ms=20000", &json!({ "mode": "discard" })).await;
    assert_eq!(discarded["ended"]["cancelled"], "discarded as told", "{discarded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_its_time_and_the_task_goes_on() {
    let (serving, _worker) = Serving::both(quick).await;
    let begun = Instant::now();
    let done = wait(&serving, "ms=500", &json!({ "mode": "sleep", "ms": 3_000 })).await;
    assert_eq!(done["ended"]["waited"], "in vain", "{done}");
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let id = done["id"].as_str().unwrap();
    assert_eq!(serving.http.final_task(id, soon()).await.unwrap()["state"], "succeeded");
    let unknown = format!("/chaos/wait?ms=5000&id={}", TaskId::generate());
    let reply = serving.http.post_json(&unknown, &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(reply.status, 404, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_outlives_kill_9_of_the_broker() {
    let (mut serving, _worker) = Serving::both(quick).await;
    let order = json!({ "mode": "sleep", "ms": 2_000 });
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    let id = reply.task_id().unwrap();
    eventually(soon(), "it runs", async || {
        (serving.get(&format!("/tasks/{id}")).await.json().ok()?["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    // Inline: a call over the broker would end with it.
    let announced = format!("{}.done.{id}", serving.config.namespace());
    let http = serving.http.clone();
    let waiting = tokio::spawn(async move {
        http.post_json(&format!("/chaos/inline_wait?ms=25000&id={id}"), &order).await.unwrap()
    });
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    eventually(soon(), "somebody follows the task", async || {
        let asked = client.request(announced.clone(), "".into());
        match tokio::time::timeout(Duration::from_millis(200), asked).await {
            // Somebody listens, who answers nothing.
            Err(_) => Some(()),
            Ok(_) => None,
        }
    })
    .await
    .unwrap();
    serving.nats.kill9();
    serving.nats.restart().await.unwrap();
    let reply = waiting.await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json().unwrap()["ended"]["succeeded"]["mode"], "sleep");
}
