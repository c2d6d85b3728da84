//! Calls: what a caller hears when workers are full, slow, dead or mad, and what becomes of the handler.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Signal, eventually};
use cardcage_protocol::{CallReply, Namespace, ReplyKind};
use http::Method;
use serde_json::json;

use crate::serving::{Raw, Serving, assert_problem, child, pause, signal, sleep, soon, wait_metric};

/// Long enough that nobody waits for its end.
const LONG_MS: u64 = 120_000;

#[tokio::test]
async fn hundreds_of_calls_at_once_are_all_answered() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let call = |n: usize| {
        let http = serving.http.clone();
        async move {
            let body = format!("call {n}");
            let reply = http.send(Method::POST, "/hello/call", &[], body.clone().into()).await.unwrap();
            assert_eq!((reply.status, reply.text()), (200, body));
        }
    };
    futures_util::future::join_all((0..256).map(call)).await;
}

#[tokio::test]
async fn saturated_worker_is_told_as_busy() {
    let (serving, worker) = Serving::both(|config| config.set("worker.call_concurrency", 1)).await;
    let _held = serving.order_later(sleep(LONG_MS));
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    assert_problem(&serving.order(sleep(0)).await, 503, "worker_busy");
    // Places are counted per plugin.
    assert_eq!(serving.http.post_json("/hello/call", &json!(1)).await.unwrap().status, 200);
}

#[tokio::test]
async fn call_that_meets_a_saturated_worker_goes_to_one_with_room() {
    let (serving, full) = Serving::both(|config| config.set("worker.call_concurrency", 1)).await;
    let _held = serving.order_later(sleep(LONG_MS));
    wait_metric(&full, "cardcage_calls_in_flight 1").await;
    let free = serving.worker().await;
    // Which worker a call reaches is the broker's dice: about ten throws a call, so that a few calls in a thousand may
    // lose all of theirs. A host that never tried again would lose half of these.
    let mut answered = 0;
    for _ in 0..20 {
        let reply = serving.order(json!({ "mode": "ok" })).await;
        match reply.status {
            200 => assert_eq!(reply.json().unwrap()["pid"], child(&free)),
            _ => assert_problem(&reply, 503, "worker_busy"),
        }
        answered += usize::from(reply.status == 200);
    }
    assert!(answered >= 18, "{answered} of 20");
}

#[tokio::test]
async fn passed_deadline_gets_504_and_cancels_the_handler() {
    let (serving, _worker) = Serving::both(|config| config.set("api.call_timeout_ms", 1000)).await;
    let began = Instant::now();
    assert_problem(&serving.order(sleep(LONG_MS)).await, 504, "deadline_exceeded");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    serving.wait_seen("cancelled", 1).await;
    assert_eq!(serving.seen().await["finished"], 0);
}

#[tokio::test]
async fn passed_deadline_cancels_an_inline_handler() {
    let inline = Serving::api(|config| {
        config.set("api.call_timeout_ms", 1000).set("plugins.chaos.placement", "inline")
    });
    let serving = inline.await;
    assert_problem(&serving.order(sleep(LONG_MS)).await, 504, "deadline_exceeded");
    serving.wait_seen("cancelled", 1).await;
}

#[tokio::test]
async fn caller_that_hangs_up_cancels_the_handler() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let mut caller = Raw::connect(&serving.address()).await;
    caller.post("/chaos/call", &sleep(LONG_MS)).await;
    serving.wait_seen("started", 1).await;
    drop(caller);
    serving.wait_seen("cancelled", 1).await;
}

#[tokio::test]
async fn caller_that_hangs_up_cancels_an_inline_handler() {
    let serving = Serving::api(|config| config.set("plugins.chaos.placement", "inline")).await;
    let mut caller = Raw::connect(&serving.address()).await;
    caller.post("/chaos/call", &sleep(LONG_MS)).await;
    serving.wait_seen("started", 1).await;
    drop(caller);
    serving.wait_seen("cancelled", 1).await;
}

#[tokio::test]
async fn panic_in_a_worker_gets_500_without_its_text_and_the_process_lives() {
    let (serving, worker) = Serving::both(|config| config).await;
    let before = child(&worker);
    for mode in ["panic", "panic_in_drop"] {
        let reply = serving.order(json!({ "mode": mode })).await;
        assert_problem(&reply, 500, "handler_panicked");
        assert!(!reply.text().contains("as told"), "{}", reply.text());
    }
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.json().unwrap()["pid"], before);
    assert!(worker.stderr().contains("panicked as told"), "the log has the text");
}

#[tokio::test]
async fn panic_in_an_inline_handler_gets_500_without_its_text_and_the_process_lives() {
    let serving = Serving::api(|config| config.set("plugins.chaos.placement", "inline")).await;
    let before = child(&serving.api);
    for mode in ["panic", "panic_in_drop"] {
        let reply = serving.order(json!({ "mode": mode })).await;
        assert_problem(&reply, 500, "handler_panicked");
        assert!(!reply.text().contains("as told"), "{}", reply.text());
    }
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.json().unwrap()["pid"], before);
}

#[tokio::test]
async fn panic_in_the_destructor_of_a_cancelled_handler_ends_no_process() {
    let (serving, worker) = Serving::both(|config| config.set("api.call_timeout_ms", 1000)).await;
    let before = child(&worker);
    let reply = serving.order(json!({ "mode": "panic_in_drop", "ms": LONG_MS })).await;
    assert_problem(&reply, 504, "deadline_exceeded");
    eventually(soon(), "the panic is in the worker's log", async || {
        worker.stderr().contains("panicked in a destructor as told").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.json().unwrap()["pid"], before);
}

#[tokio::test]
async fn worker_that_dies_in_a_call_gets_502_at_once_and_comes_back() {
    let (serving, worker) = Serving::both(|config| config).await;
    for mode in ["abort", "segfault", "exit"] {
        let before = child(&worker);
        let began = Instant::now();
        let reply = serving.order(json!({ "mode": mode })).await;
        assert_problem(&reply, 502, "worker_crashed");
        // The deadline, which is what a caller without a supervisor's word would wait for, is 30 s.
        assert!(began.elapsed() < Duration::from_secs(10), "{mode}: {:?}", began.elapsed());
        let after = eventually(soon(), "the worker is back", async || {
            let reply = serving.order(json!({ "mode": "ok" })).await;
            (reply.status == 200).then(|| reply.json().unwrap()["pid"].clone())
        })
        .await
        .unwrap();
        assert_ne!(after, before, "{mode}");
    }
}

#[tokio::test]
async fn calls_beside_one_that_kills_the_worker_get_502_too() {
    let (serving, worker) = Serving::both(|config| config).await;
    let bystander = serving.order_later(sleep(LONG_MS));
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    assert_problem(&serving.order(json!({ "mode": "abort" })).await, 502, "worker_crashed");
    assert_problem(&bystander.await.unwrap(), 502, "worker_crashed");
}

#[tokio::test]
async fn blocked_plugin_leaves_other_plugins_routes_answering() {
    let (serving, worker) = Serving::both(|config| config).await;
    let mut blocked = Vec::new();
    for _ in 0..8 {
        let mut caller = Raw::connect(&serving.address()).await;
        caller.post("/chaos/call", &json!({ "mode": "block", "ms": LONG_MS })).await;
        blocked.push(caller);
        let mut caller = Raw::connect(&serving.address()).await;
        caller.send(format!("GET /chaos/inline_block?ms={LONG_MS} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        blocked.push(caller);
    }
    wait_metric(&worker, "cardcage_calls_in_flight 8").await;
    wait_metric(&serving.api, "cardcage_http_requests_in_flight 16").await;
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(serving.get("/hello/inline").await.status, 200);
        assert_eq!(serving.http.post_json("/hello/call", &json!(1)).await.unwrap().status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn call_that_reaches_a_worker_after_its_deadline_is_not_started() {
    let (serving, worker) = Serving::both(|config| config.set("api.call_timeout_ms", 500)).await;
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.status, 200);
    pause(child(&worker)).await;
    assert_problem(&serving.order(json!({ "mode": "ok" })).await, 504, "deadline_exceeded");
    signal(child(&worker), Signal::CONT);
    wait_metric(&worker, "cardcage_calls_total{what=\"expired\"} 1").await;
    let seen = serving.seen().await;
    assert_eq!((&seen["started"], &seen["finished"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn nonsense_on_the_call_subjects_hurts_nobody() {
    let (serving, worker) = Serving::both(|config| config).await;
    let before = child(&worker);
    let namespace = serving.config.namespace();
    let options = Options {
        url: serving.nats.url(),
        namespace: Namespace::new(namespace).unwrap(),
        ..Options::default()
    };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(Duration::from_secs(10)).await.unwrap();
    let subjects = [
        "call.hello.v0.post-call",
        "call.hello.v0.no-such-route",
        "callctl.nonsense",
        "callctl.00000000000000000000000000000000",
        "callio.nobody.nonsense",
    ];
    let large = vec![0xff; 900 * 1024];
    for subject in subjects.map(|subject| format!("{namespace}.{subject}")) {
        for payload in [&b""[..], b"nonsense", &[0; 64], &[1; 64], &large] {
            let payload = Bytes::copy_from_slice(payload);
            broker.publish(subject.clone(), payload.clone()).await.unwrap();
            broker.publish_with_reply(subject.clone(), broker.new_inbox(), payload).await.unwrap();
        }
    }
    // A question that cannot be read is answered, so that its asker does not wait in vain.
    let call = format!("{namespace}.call.hello.v0.post-call");
    let answer = broker.call(call, Bytes::from_static(b"nonsense"), Duration::from_secs(10)).await.unwrap();
    let answer = CallReply::decode(answer).unwrap();
    assert!(matches!(answer.kind, ReplyKind::Refused(_)), "{:?}", answer.kind);
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.json().unwrap()["pid"], before);
    assert_eq!(serving.http.post_json("/hello/call", &json!(1)).await.unwrap().status, 200);
}

#[tokio::test]
async fn plugins_own_answer_reaches_the_caller_as_it_is() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply = serving.order(json!({ "mode": "fail_for_good" })).await;
    assert_eq!((reply.status, reply.problem_code().as_deref()), (422, Some("failed_for_good")));
    let reply = serving.order(json!({ "mode": "retry_after", "ms": 7000 })).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("7")));
    let reply = serving.order(json!({ "mode": "non_utf8" })).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &[0xff, 0xfe, 0x00][..]));
    assert_eq!(reply.headers["x-chaos"].as_bytes(), [0xff, 0xfe]);
}
