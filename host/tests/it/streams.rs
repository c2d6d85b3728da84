//! Bodies that fit into no message.

use bytes::Bytes;
use cardcage_harness::{Cardcage, Config, Nats};
use http::Method;
use serde_json::json;
use std::io::{Read, Write};

async fn host(nats: &Nats) -> (Cardcage, Cardcage) {
    let config = Config::new(nats).plugin("hello").unwrap().plugin("chaos").unwrap();
    let config =
        config.set("api.body_max_bytes", 8 * 1024 * 1024).set("api.reply_max_bytes", 8 * 1024 * 1024);
    (Cardcage::worker(&config).await.unwrap(), Cardcage::api(&config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_request_and_reply_arrive_whole_over_a_worker_call() {
    let nats = Nats::start().await.unwrap();
    let (_worker, api) = host(&nats).await;
    let body: Bytes = (0..5 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let reply = api.http().unwrap().send(Method::POST, "/hello/call", &[], body.clone()).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == body, "{} bytes came back of {}", reply.body.len(), body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_over_the_limit_is_refused_by_name() {
    let nats = Nats::start().await.unwrap();
    let (_worker, api) = host(&nats).await;
    let huge = json!({ "mode": "huge_reply", "ms": 0, "times": 9 });
    let reply = api.http().unwrap().post_json("/chaos/call", &huge).await.unwrap();
    assert_eq!((reply.status, reply.problem_code().as_deref()), (502, Some("reply_too_large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_a_problem_too() {
    let nats = Nats::start().await.unwrap();
    let (_worker, api) = host(&nats).await;
    let address = api.http().unwrap().url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"this is no request\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("malformed_request"), "{answer}");
}
