//! What a host does about a part of it that does no good: it says so, and keeps work away from it.

use crate::serving::{Serving, child, pause, signal, soon};
use cardcage_harness::{Cardcage, Signal, eventually};
use serde_json::json;
use std::convert::identity;

/// Waits until `/readyz` answers this status with this in its text.
async fn readiness(host: &Cardcage, status: u16, text: &str) {
    let admin = host.admin().unwrap();
    let mut last = String::new();
    let found = eventually(soon(), text, async || {
        let reply = admin.get("/readyz").await.ok()?;
        last = reply.text();
        (reply.status == status && last.contains(text)).then_some(())
    })
    .await;
    assert!(found.is_ok(), "{status} {text} never came, the last one: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_whose_child_is_stopped_is_not_ready_until_it_goes_on() {
    let (serving, worker) = Serving::both(identity).await;
    for host in [&worker, &serving.api] {
        pause(child(host)).await;
        readiness(host, 503, "no sign of life").await;
        signal(child(host), Signal::CONT);
        readiness(host, 200, "ready").await;
    }
    let reply = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(worker.stderr().matches("shows signs of life again").count(), 1);
}
