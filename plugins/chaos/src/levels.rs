//! The same stories at every level: what the unit level says happens is what hosts and a broker do.

use super::*;
use plugin_api::http::Request;
use testkit::{Bench, Level, Result};

/// A schedule that does not come to its time while a test runs.
const NIGHTLY: &str =
    r#"{"nightly": {"cron": "0 0 2 * * *", "order": {"mode": "ok", "note": "of the night"}}}"#;

async fn unit() -> Bench {
    let definition = || schedules::declare_as_told(definition(), NIGHTLY);
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
    let unfit = bench.enqueue("chaos", &json!({ "mode": "no such mode" })).await;
    let said = unfit.map_err(|error| error.to_string()).unwrap_err();
    assert!(said.contains("does not fit"), "{said} at {:?}", bench.level());
    let parked = bench.enqueue_unchecked("chaos", &json!({ "mode": "no such mode" })).await?;
    let outcome = bench.outcome(parked).await?;
    assert_eq!((outcome.state.as_str(), outcome.attempts), ("parked", 0), "at {:?}", bench.level());
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

/// What cannot be enqueued together is refused in the same words, and nothing of it is there.
async fn batches(bench: &Bench) -> Result<()> {
    let large = 512 << 10;
    for (batch, status, code, detail) in [
        (
            json!({ "count": 1_001 }),
            422,
            "invalid_batch",
            "At most 1000 tasks are enqueued together; these are 1001.",
        ),
        (
            json!({ "count": 3, "delay_ms": 60_000, "mixed": true }),
            422,
            "invalid_batch",
            "Some of them are delayed and others are not.",
        ),
        (
            json!({ "count": 3, "unique": "a" }),
            422,
            "invalid_batch",
            "chaos.keyed has a unique key, and one that is queued already would not be stored again: enqueue each on its own.",
        ),
        (
            json!({ "count": 17, "bytes": large - 1_000 }),
            413,
            "body_too_large",
            "Tasks enqueued together have at most 8388608 bytes; these have ",
        ),
        (json!({ "count": 2, "bytes": large }), 413, "body_too_large", ""),
        (
            json!({ "count": 1, "delay_ms": 367_u64 * 86_400_000 }),
            400,
            "malformed_request",
            "A task cannot be delayed by more than a year.",
        ),
    ] {
        let reply = bench.post("/batch", &batch).await?;
        let problem = reply.json();
        let seen = (reply.status.as_u16(), problem["code"].as_str().unwrap_or_default());
        assert_eq!(seen, (status, code), "{batch} at {:?}: {}", bench.level(), reply.text());
        let said = problem["detail"].as_str().unwrap_or_default();
        let is_said = if detail.ends_with(' ') { said.starts_with(detail) } else { said == detail };
        assert!(is_said, "{batch} at {:?}: {said}", bench.level());
    }
    let with_key = async |count: u32| {
        let request = Request::post("/batch").header("content-type", "application/json");
        let request =
            request.header("idempotency-key", "k").body(Bytes::from(json!({ "count": count }).to_string()));
        bench.send(request.unwrap()).await
    };
    let (first, again, other) = (with_key(2).await?, with_key(2).await?, with_key(3).await?);
    assert_eq!(first.json()["tasks"][1]["id"], again.json()["tasks"][1]["id"], "{}", again.text());
    assert_eq!(again.json()["tasks"][1]["duplicate"], true);
    let problem = other.json();
    assert_eq!(
        (other.code().as_deref(), problem["title"].as_str(), problem.get("detail")),
        (Some("idempotency_conflict"), Some("The idempotency key was used before with another body."), None),
        "at {:?}",
        bench.level()
    );
    assert_eq!(bench.post("/batch", &json!({ "count": 0 })).await?.json(), json!({ "tasks": [] }));
    for n in 0..2 {
        let id = first.json()["tasks"][n]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(bench.outcome(id).await?.succeeded()?["note"], n.to_string());
    }
    // What an attempt stages has bounds as well.
    for (order, words) in [
        (json!({ "mode": "ok", "children": 1_001 }), "An attempt enqueues at most 1000 tasks."),
        (
            json!({ "mode": "ok", "children": 1_001, "together": true }),
            "At most 1000 tasks are enqueued together; these are 1001.",
        ),
    ] {
        let id = bench.enqueue("chaos", &order).await?;
        let outcome = bench.outcome(id).await?;
        let message = outcome.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        assert_eq!(outcome.state, "failed", "{order} at {:?}", bench.level());
        assert!(message.contains(words), "{order} at {:?}: {message}", bench.level());
    }
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

/// A schedule that is fired by hand makes a task each time.
async fn firing(bench: &Bench) -> Result<()> {
    let (one, two) = (bench.fire("nightly").await?, bench.fire("nightly").await?);
    assert_ne!(one, two, "at {:?}", bench.level());
    for id in [one, two] {
        assert_eq!(bench.outcome(id).await?.succeeded()?["note"], "of the night", "at {:?}", bench.level());
    }
    let error = bench.fire("weekly").await.unwrap_err().to_string();
    assert!(error.contains("no schedule") && error.contains("weekly"), "at {:?}: {error}", bench.level());
    Ok(())
}

/// Of the tasks with one unique key, one is queued or running; whoever enqueues another gets its id.
async fn unique_keys(bench: &Bench) -> Result<()> {
    let body = |key: &str, note: &str| json!({ "mode": "await_cancel", "unique": key, "note": note });
    let first = bench.post("/keyed", &body("a", "first")).await?;
    let (id, level) = (first.task_id()?, bench.level());
    assert_eq!(first.json()["duplicate"], false, "at {level:?}");
    let second = bench.post("/keyed", &body("a", "second")).await?;
    assert_eq!((second.task_id()?, second.json()["duplicate"].as_bool()), (id, Some(true)), "at {level:?}");
    bench.running(id).await?;
    assert_eq!(bench.enqueue("keyed", &body("a", "third")).await?, id, "at {level:?}");
    let other = bench.enqueue("keyed", &body("b", "other")).await?;
    assert_ne!(other, id, "at {level:?}");
    bench.cancel(id).await?;
    assert_eq!(bench.outcome(id).await?.succeeded()?["note"], "first", "at {level:?}");
    let next = bench.enqueue("keyed", &body("a", "next")).await?;
    assert!(next != id && next != other, "at {level:?}");
    for id in [other, next] {
        bench.running(id).await?;
        bench.cancel(id).await?;
        bench.outcome(id).await?.succeeded()?;
    }
    Ok(())
}

async fn all(bench: Bench) -> Result<()> {
    endings(&bench).await?;
    replies(&bench).await?;
    effects(&bench).await?;
    batches(&bench).await?;
    cancellation(&bench).await?;
    firing(&bench).await?;
    unique_keys(&bench).await?;
    assert!(bench.logs().contains("panicked as told") || bench.level() == Level::Unit);
    bench.stop().await
}

#[tokio::test]
async fn stories_of_a_task_are_the_same_in_the_tests_process() {
    all(unit().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stories_of_a_task_are_the_same_in_hosts_with_a_broker_double() {
    let bench = Bench::plugin(library()).env(schedules::SCHEDULES, NIGHTLY);
    all(bench.start().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stories_of_a_task_are_the_same_in_hosts_with_a_real_broker() {
    let bench = Bench::system(library()).env(schedules::SCHEDULES, NIGHTLY);
    all(bench.start().await.unwrap()).await.unwrap();
}
