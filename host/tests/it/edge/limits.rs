//! What is too large or too much, and what it gets.

use cardcage_harness::{Reply, eventually};
use http_body_util::{BodyExt, Full};
use serde_json::json;

use super::{FakeWorker, inline, post};
use crate::serving::{Raw, Serving, assert_problem, http2, soon};

#[tokio::test]
async fn body_over_its_limit_gets_413_however_its_length_is_told() {
    let serving = Serving::api(|config| inline(config).set("api.body_max_bytes", 4096)).await;
    for path in ["/hello/call", "/hello/task"] {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4097\r\n\r\nsome")).await;
        assert_problem(&raw.reply().await, 413, "body_too_large");

        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")).await;
        raw.send(format!("1001\r\n{}\r\n", "x".repeat(4097))).await;
        assert_problem(&raw.reply().await, 413, "body_too_large");
    }
    let fits = "x".repeat(4096);
    assert_eq!(post(&serving, "/hello/call", &fits).await.text(), fits);
}

#[tokio::test]
async fn head_over_its_limit_gets_431() {
    let serving = Serving::api(|config| config).await;
    // A little over, and over what the HTTP library reads.
    for bytes in [20_000, 100_000] {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("GET /hello/inline HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n", "x".repeat(bytes)))
            .await;
        assert_problem(&raw.reply().await, 431, "headers_too_large");
    }
    let mut raw = Raw::connect(&serving.address()).await;
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    raw.send(format!("GET /hello/inline HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert_problem(&raw.reply().await, 431, "headers_too_large");

    let mut raw = Raw::connect(&serving.address()).await;
    raw.send(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(20_000))).await;
    assert_problem(&raw.reply().await, 431, "headers_too_large");
}

#[tokio::test]
async fn head_over_its_limit_gets_431_over_http2_too() {
    let serving = Serving::api(|config| config).await;
    let client = http2();
    let ask = |bytes: usize| {
        let request = hyper::Request::get(serving.http.url("/hello/inline")).header("big", "x".repeat(bytes));
        client.request(request.body(Full::default()).unwrap())
    };
    let response = ask(20_000).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 431));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_problem(&Reply { status, headers, body }, 431, "headers_too_large");
    // Over what the HTTP library reads, it answers by itself; the connection lives on.
    assert_eq!(ask(100_000).await.unwrap().status(), 431);
    assert_eq!(ask(1_000).await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_request_too_many_is_told_at_once() {
    let serving = Serving::api(|config| config.set("api.in_flight_max", 1)).await;
    let mut worker = FakeWorker::start(&serving).await;
    let http = serving.http.clone();
    let first = tokio::spawn(async move { http.post_json("/hello/call", &json!(1)).await.unwrap() });
    let (_, reply_to) = worker.next().await;
    assert_problem(&serving.get("/hello/inline").await, 503, "overloaded");
    worker.answer(reply_to, "late").await;
    assert_eq!(first.await.unwrap().text(), "late");
    assert_eq!(serving.get("/hello/inline").await.status, 200);
}

#[tokio::test]
async fn task_for_a_full_queue_gets_503_at_once_and_other_plugins_queues_go_on() {
    let serving = Serving::api(|config| config.set("broker.queue_max_messages", 3)).await;
    for _ in 0..3 {
        assert_eq!(post(&serving, "/hello/task", "1").await.status, 202);
    }
    let refused = post(&serving, "/hello/task", "1").await;
    assert_problem(&refused, 503, "queue_full");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(post(&serving, "/chaos/task", r#"{"mode":"ok"}"#).await.status, 202);
    // Nothing of the refused one is left, and there is room when a worker takes what waits.
    let _worker = serving.worker().await;
    eventually(soon(), "there is room", async || {
        (post(&serving, "/hello/task", "1").await.status == 202).then_some(())
    })
    .await
    .unwrap();
}
