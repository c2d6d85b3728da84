//! Bodies that do not fit into one message: whole or broken, never short, and never more memory than a window.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage_harness::{Reply, Signal, eventually};
use http::Method;
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::serving::{
    Raw, Serving, assert_problem, child, next_piece, pause, post_pieces, signal, soon, wait_metric,
};

const MIB: usize = 1 << 20;
const LIMIT_BYTES: i64 = 16 << 20;

/// Bytes that no shifted or repeated frame leaves as they are.
fn body(length: usize) -> Bytes {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn post(serving: &Serving, path: &str, body: Bytes) -> Reply {
    serving.http.send(Method::POST, path, &[], body).await.unwrap()
}

/// A million bytes of a body of two million, by a caller who then does nothing.
async fn begin_upload(serving: &Serving) -> Raw {
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n").await;
    raw.send("x".repeat(1_000_000)).await;
    raw
}

/// The largest that a process' memory ever was, in MiB.
fn peak_mib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// Reads to the end, which must be a broken one, and come soon.
async fn assert_breaks(response: &mut hyper::Response<Incoming>, within: Duration) {
    let began = Instant::now();
    loop {
        match next_piece(response.body_mut()).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
            None => panic!("the response ended as if it were complete"),
        }
    }
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let (serving, _worker) = Serving::both(|config| config.set("api.body_max_bytes", LIMIT_BYTES)).await;
    // Around the bounds of a message and a window; and much larger.
    let lengths = [0, 1, MIB / 2 - 1, MIB / 2, MIB / 2 + 1, MIB, MIB + 1, 5 * MIB, 5 * MIB + 12_345];
    // One reads everything and then answers; the other answers while it reads.
    for path in ["/hello/call", "/chaos/echo_stream"] {
        for length in lengths {
            let body = body(length);
            let reply = post(&serving, path, body.clone()).await;
            assert_eq!((reply.status, reply.body.len()), (200, length), "{path}");
            assert_eq!(Sha256::digest(&reply.body), Sha256::digest(&body), "{path} {length}");
        }
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_an_inline_route() {
    let inline = Serving::api(|config| {
        let config = config.set("plugins.hello.placement", "inline").set("plugins.chaos.placement", "inline");
        config.set("api.body_max_bytes", LIMIT_BYTES)
    });
    let serving = inline.await;
    for path in ["/hello/call", "/chaos/echo_stream"] {
        let body = body(5 * MIB);
        let reply = post(&serving, path, body.clone()).await;
        assert_eq!(Sha256::digest(&reply.body), Sha256::digest(&body), "{path}");
    }
}

#[tokio::test]
async fn many_streams_at_once_keep_apart() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let one = |n: usize| {
        let serving = &serving;
        async move {
            let body = body(MIB + n * 1000);
            assert!(post(serving, "/chaos/echo_stream", body.clone()).await.body == body, "{n}");
        }
    };
    futures_util::future::join_all((0..16).map(one)).await;
}

#[tokio::test]
async fn piece_reaches_the_caller_before_the_last_is_made() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let order = json!({ "mode": "slow_stream", "times": 100_000, "ms": 100 });
    let mut response = post_pieces(&serving, "/chaos/call", order).await;
    assert_eq!(response.status(), 200);
    for _ in 0..3 {
        assert!(!next_piece(response.body_mut()).await.unwrap().unwrap().is_empty());
    }
    let seen = serving.seen().await;
    assert_eq!((&seen["started"], &seen["finished"]), (&json!(1), &json!(0)), "{seen}");
    // And a caller who goes away in mid stream ends it.
    drop(response);
    serving.wait_seen("cancelled", 1).await;
}

#[tokio::test]
async fn stream_that_pauses_longer_than_the_limit_on_silence_arrives_whole() {
    let (serving, _worker) = Serving::both(|config| config.set("api.stream_idle_timeout_ms", 300)).await;
    let reply = serving.order(json!({ "mode": "slow_stream", "times": 3, "ms": 1000 })).await;
    assert_eq!((reply.status, reply.text().lines().count()), (200, 3), "{}", reply.text());
}

#[tokio::test]
async fn handler_that_breaks_its_stream_breaks_the_response() {
    for placement in ["worker", "inline"] {
        let (serving, _worker) =
            Serving::both(|config| config.set("plugins.chaos.placement", placement)).await;
        // The first piece is out before the stream breaks: a response that breaks earlier has no head.
        let order = json!({ "mode": "broken_stream", "ms": 2000 });
        let mut response = post_pieces(&serving, "/chaos/call", order).await;
        next_piece(response.body_mut()).await.unwrap().unwrap();
        assert_breaks(&mut response, Duration::from_secs(25)).await;
    }
}

#[tokio::test]
async fn worker_killed_in_mid_stream_breaks_the_response() {
    let (serving, worker) = Serving::both(|config| config).await;
    let order = json!({ "mode": "slow_stream", "times": 100_000, "ms": 50 });
    let mut response = post_pieces(&serving, "/chaos/call", order).await;
    next_piece(response.body_mut()).await.unwrap().unwrap();
    signal(child(&worker), Signal::KILL);
    assert_breaks(&mut response, Duration::from_secs(25)).await;
}

#[tokio::test]
async fn silent_worker_breaks_the_response_after_the_limit() {
    let (serving, worker) = Serving::both(|config| config.set("api.stream_idle_timeout_ms", 1000)).await;
    let order = json!({ "mode": "slow_stream", "times": 100_000, "ms": 50 });
    let mut response = post_pieces(&serving, "/chaos/call", order).await;
    next_piece(response.body_mut()).await.unwrap().unwrap();
    pause(child(&worker)).await;
    assert_breaks(&mut response, Duration::from_secs(10)).await;
    signal(child(&worker), Signal::CONT);
}

#[tokio::test]
async fn caller_that_stops_reading_holds_up_the_sender_and_fills_no_memory() {
    let hosts = Serving::both(|config| {
        let config = config.set("api.reply_max_bytes", 512 << 20).set("api.stream_idle_timeout_ms", 2000);
        config.set("api.write_timeout_ms", 4000)
    });
    let (serving, worker) = hosts.await;
    // Warmed up, so that what comes later is this stream's.
    assert_eq!(serving.order(json!({ "mode": "huge_reply", "times": 4 })).await.body.len(), 4 * MIB);
    let api = child(&serving.api);
    let before = peak_mib(api);
    let mut caller = Raw::connect(&serving.address()).await;
    caller.post("/chaos/call", &json!({ "mode": "huge_reply", "times": 200 })).await;
    eventually(soon(), "the worker gives the stream up", async || {
        worker.stderr().contains("a streamed reply broke").then_some(())
    })
    .await
    .unwrap();
    let grown = peak_mib(api) - before;
    assert!(grown < 48, "the API grew by {grown} MiB of 200");
    // Its place is free again, and so is the worker's, while it is still there.
    wait_metric(&serving.api, "cardcage_http_requests_in_flight 0").await;
    wait_metric(&worker, "cardcage_calls_in_flight 0").await;
    drop(caller);
}

#[tokio::test]
async fn request_body_that_outgrows_the_limit_in_mid_stream_gets_413() {
    for placement in ["worker", "inline"] {
        let (serving, _worker) =
            Serving::both(|config| config.set("plugins.hello.placement", placement)).await;
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = format!("{:x}\r\n{}\r\n", MIB / 4, "x".repeat(MIB / 4));
        // The limit is 2 MiB, and what fits into one message is half a MiB.
        for _ in 0..9 {
            raw.send(&chunk).await;
        }
        assert_problem(&raw.reply().await, 413, "body_too_large");
    }
}

#[tokio::test]
async fn caller_that_hangs_up_in_mid_upload_frees_its_places() {
    let (serving, worker) = Serving::both(|config| config).await;
    let caller = begin_upload(&serving).await;
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    drop(caller);
    wait_metric(&worker, "cardcage_calls_in_flight 0").await;
    wait_metric(&serving.api, "cardcage_http_requests_in_flight 0").await;
}

#[tokio::test]
async fn request_body_that_stalls_in_mid_stream_gets_400() {
    for placement in ["worker", "inline"] {
        let hosts = Serving::both(|config| {
            config.set("api.stream_idle_timeout_ms", 500).set("plugins.hello.placement", placement)
        });
        let (serving, _worker) = hosts.await;
        assert_problem(&begin_upload(&serving).await.reply().await, 400, "malformed_request");
    }
}

#[tokio::test]
async fn worker_that_dies_while_a_request_streams_in_gets_502() {
    let (serving, worker) = Serving::both(|config| config).await;
    let mut caller = begin_upload(&serving).await;
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    signal(child(&worker), Signal::KILL);
    assert_problem(&caller.reply().await, 502, "worker_crashed");
}

#[tokio::test]
async fn reply_over_its_limit_gets_502() {
    for placement in ["worker", "inline"] {
        let (serving, worker) =
            Serving::both(|config| config.set("plugins.chaos.placement", placement)).await;
        let reply = serving.order(json!({ "mode": "huge_reply", "times": 9 })).await;
        assert_problem(&reply, 502, "reply_too_large");
        wait_metric(&worker, "cardcage_calls_in_flight 0").await;
        assert_eq!(serving.order(json!({ "mode": "huge_reply", "times": 7 })).await.body.len(), 7 * MIB);
    }
}
