//! Plugins whose runtime is held up by one of their handlers: named, and counted, before any limit passes.

use crate::serving::{Serving, soon};
use cardcage_harness::{Cardcage, Config, eventually};
use serde_json::{Value, json};

/// Long limits, so that nobody ends the handler.
fn config(config: Config) -> Config {
    config.set("api.call_timeout_ms", 60_000).set("loading.lend_threads", false)
}

async fn blocked(host: &Cardcage, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let admin = host.admin().unwrap();
    eventually(soon(), "the blocked plugins are shown", async || {
        let ready = admin.get("/readyz?verbose").await.ok()?;
        assert_eq!(ready.status, 200, "the host stays ready: {}", ready.text());
        let shown = ready.json().ok()?["blocked"].as_array()?.clone();
        wanted(&shown).then_some(shown)
    })
    .await
    .unwrap()
}

async fn assert_metric(host: &Cardcage, line: &str) {
    let metrics = host.admin().unwrap().get("/metrics").await.unwrap().text();
    assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_that_a_task_blocks_is_named_with_the_task_until_it_runs_again() {
    let (serving, worker) = Serving::both(config).await;
    assert_eq!(blocked(&worker, |_| true).await, [] as [Value; 0]);
    let body = json!({ "mode": "block", "ms": 6_000 });
    let reply = serving.http.post_json("/chaos/task", &body).await.unwrap();
    let id = reply.task_id().unwrap();
    let shown = blocked(&worker, |shown| !shown.is_empty()).await;
    assert_eq!((shown.len(), &shown[0]["plugin"]), (1, &json!("chaos")), "hello runs: {shown:?}");
    assert_eq!(shown[0]["held_by"], json!([format!("chaos {id}")]), "{shown:?}");
    assert_metric(&worker, "cardcage_plugins_blocked 1").await;
    // The other one is not held up.
    assert_eq!(serving.http.post_json("/hello/call", &json!({})).await.unwrap().status, 200);
    blocked(&worker, <[Value]>::is_empty).await;
    assert_metric(&worker, "cardcage_plugin_blocked_total{plugin=\"chaos\"} 1").await;
    assert_metric(&worker, "cardcage_plugin_blocked_total{plugin=\"hello\"} 0").await;
    let log = worker.stderr();
    assert!(log.contains("a plugin's runtime is blocked") && log.contains("runs again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_that_an_inline_handler_blocks_is_named_in_the_api() {
    let serving = Serving::api(config).await;
    let (http, api) = (serving.http.clone(), &serving.api);
    let blocking = tokio::spawn(async move { http.get("/chaos/inline_block?ms=5000").await.unwrap().status });
    let shown = blocked(api, |shown| !shown.is_empty()).await;
    assert!(shown[0]["held_by"][0].as_str().unwrap().starts_with("inline_block "), "{shown:?}");
    assert_eq!(blocking.await.unwrap(), 200);
    blocked(api, <[Value]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_that_waits_blocks_nothing() {
    let (serving, worker) = Serving::both(config).await;
    assert_eq!(serving.order(json!({ "mode": "sleep", "ms": 4_000 })).await.status, 200);
    assert_metric(&worker, "cardcage_plugin_blocked_total{plugin=\"chaos\"} 0").await;
}
