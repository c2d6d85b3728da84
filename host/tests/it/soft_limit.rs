//! The soft time limit: a handler is told that its attempt should end, and what it returns decides.

use crate::serving::{Serving, soon};
use cardcage_harness::Config;
use serde_json::{Value, json};

async fn outcome(serving: &Serving, order: Value) -> Value {
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_is_told_at_its_soft_limit_and_the_attempt_says_so() {
    let limited = |config: Config| config.set("plugins.chaos.tasks.chaos.soft_timeout_ms", 300);
    let (serving, _worker) = Serving::both(limited).await;
    let done = outcome(&serving, json!({ "mode": "until_near", "times": 1 })).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{done}");
    assert_eq!(
        (&attempts[0]["cause"], &attempts[0]["error"]["code"], &attempts[0]["error"]["message"]),
        (&json!("error"), &json!("soft_timeout"), &json!("half done as told")),
        "{done}"
    );
    // Who does not listen goes on: it is no hard limit.
    let done = outcome(&serving, json!({ "mode": "sleep", "ms": 800 })).await;
    assert_eq!(
        (&done["state"], done["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_soft_limit_no_deadline_is_near_and_a_cancellation_has_its_own_reason() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply = serving.http.post_json("/chaos/task", &json!({ "mode": "until_near" })).await.unwrap();
    let id = reply.task_id().unwrap();
    cardcage_harness::eventually(soon(), "it runs", async || {
        (serving.get(&format!("/tasks/{id}")).await.json().ok()?["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    serving.http.post_json(&format!("/tasks/{id}/cancel"), &json!({})).await.unwrap();
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(
        (&done["state"], &done["error"]["message"]),
        (&json!("cancelled"), &json!("stopped: Cancelled")),
        "{done}"
    );
}
