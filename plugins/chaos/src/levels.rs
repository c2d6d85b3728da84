//! The same stories at every level: what the unit level says happens is what hosts and a broker do.

use super::*;
use testkit::{Bench, Level, Result};

async fn unit() -> Bench {
    Bench::unit(definition).name("chaos").start().await.unwrap()
}

fn library() -> std::path::PathBuf {
    testkit::library(env!("CARGO_PKG_NAME")).unwrap()
}

/// Every ending that a handler can choose, with its attempts.
async fn endings(bench: &Bench) -> Result<()> {
    let told = [
        (json!({ "mode": "ok" }), "succeeded", 1, ""),
        (json!({ "mode": "fail_until", "times": 3 }), "succeeded", 3, ""),
        (json!({ "mode": "fail_for_good" }), "failed", 1, "failed"),
        (json!({ "mode": "fail" }), "failed", 6, "error"),
        (json!({ "mode": "discard" }), "cancelled", 1, "discarded"),
        (json!({ "mode": "panic", "times": 1 }), "succeeded", 2, ""),
        (json!({ "mode": "panic" }), "failed", 6, "panicked"),
        (json!({ "mode": "retry_after", "ms": 20_000, "times": 1 }), "succeeded", 2, ""),
        (json!({ "mode": "huge_reply" }), "failed", 1, "result_too_large"),
    ];
    // All at once, as callers do; nobody waits for a backoff of somebody else's.
    let mut ids = Vec::new();
    for (order, ..) in &told {
        ids.push(bench.enqueue("chaos", order).await?);
    }
    for ((order, state, attempts, code), id) in told.iter().zip(ids) {
        let outcome = bench.outcome(id).await?;
        let seen = (outcome.state.as_str(), outcome.attempts, outcome.code());
        assert_eq!(seen, (*state, *attempts, *code), "{order} at {:?}", bench.level());
    }
    Ok(())
}

/// What a route answers, whatever becomes of its handler.
async fn replies(bench: &Bench) -> Result<()> {
    for (mode, status, code) in [
        ("ok", 200, None),
        ("fail_for_good", 422, Some("failed_for_good")),
        ("panic", 500, Some("handler_panicked")),
    ] {
        let reply = bench.post("/call", &json!({ "mode": mode })).await?;
        let seen = (reply.status.as_u16(), reply.code());
        assert_eq!(seen, (status, code.map(str::to_owned)), "{mode} at {:?}", bench.level());
    }
    let reply = bench.post("/task", &json!({ "mode": "no such mode" })).await?;
    assert_eq!((reply.status.as_u16(), reply.code().as_deref()), (422, Some("invalid_body")));
    let id = bench.post("/task", &json!({ "mode": "ok", "note": "mine" })).await?.task_id()?;
    assert_eq!(bench.outcome(id).await?.succeeded()?["note"], "mine");
    let waited = bench.post("/wait?ms=60000", &json!({ "mode": "fail_until", "times": 2 })).await?;
    assert_eq!(waited.json()["ended"]["succeeded"]["attempt"], 2, "{}", waited.text());
    Ok(())
}

/// What an attempt did once, the next one finds.
async fn effects(bench: &Bench) -> Result<()> {
    let effects = bench.enqueue("effects", &json!({ "keys": 2, "fail_until": 3 })).await?;
    let outcome = bench.outcome(effects).await?;
    assert_eq!(outcome.attempts, 3);
    assert_eq!(outcome.succeeded()?, json!({ "by_attempt": [1, 1], "by_the_last": 0 }));
    Ok(())
}

/// A handler that is told of its cancellation decides how it ends.
async fn cancellation(bench: &Bench) -> Result<()> {
    for (mode, state) in [("await_cancel", "succeeded"), ("fail_when_cancelled", "cancelled")] {
        let id = bench.enqueue("chaos", &json!({ "mode": mode })).await?;
        bench.running(id).await?;
        // What it answers says how soon the handler ended; how it ended is in the outcome.
        bench.cancel(id).await?;
        assert_eq!(bench.outcome(id).await?.state, state, "{mode} at {:?}", bench.level());
        assert_eq!(bench.cancel(id).await?.status.as_u16(), 409);
    }
    Ok(())
}

async fn all(bench: Bench) -> Result<()> {
    endings(&bench).await?;
    replies(&bench).await?;
    effects(&bench).await?;
    cancellation(&bench).await?;
    assert!(bench.logs().contains("panicked as told") || bench.level() == Level::Unit);
    bench.stop().await
}

#[tokio::test]
async fn stories_of_a_task_are_the_same_in_the_tests_process() {
    all(unit().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stories_of_a_task_are_the_same_in_hosts_with_a_broker_double() {
    all(Bench::plugin(library()).start().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stories_of_a_task_are_the_same_in_hosts_with_a_real_broker() {
    all(Bench::system(library()).start().await.unwrap()).await.unwrap();
}
