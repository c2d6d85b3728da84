//! What is no HTTP, and what it gets.

use tokio::io::AsyncReadExt;

use super::{inline, post};
use crate::serving::{Raw, Serving, assert_problem, soon};

#[tokio::test]
async fn request_that_is_no_http_gets_a_problem_and_the_connection_ends() {
    let serving = Serving::api(|config| config).await;
    let garbage = [
        "this is no http\r\n\r\n",
        "GET\r\n\r\n",
        "GET /hello/inline HTTP/9.9\r\n\r\n",
        "GET /hello/inline HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /hello/inline HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ];
    for bytes in garbage {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(bytes).await;
        assert_problem(&raw.reply().await, 400, "malformed_request");
        assert!(raw.is_closed().await, "{bytes:?}");
    }
    assert_eq!(serving.get("/hello/inline").await.status, 200);
}

#[tokio::test]
async fn garbage_after_sound_requests_gets_a_problem_and_the_connection_ends() {
    let serving = Serving::api(inline).await;
    for garbage in ["this is no http\r\n\r\n", "GET\r\n\r\n", "GET /hello/inline HTTP/9.9\r\n\r\n"] {
        let mut raw = Raw::connect(&serving.address()).await;
        for request in [
            "GET /hello/inline HTTP/1.1\r\nhost: x\r\n\r\n",
            "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        ] {
            raw.send(request).await;
            assert_eq!(raw.reply().await.status, 200);
        }
        raw.send(garbage).await;
        assert_problem(&raw.reply().await, 400, "malformed_request");
        assert!(raw.is_closed().await);
    }
    // Sent together with the sound one.
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("GET /hello/inline HTTP/1.1\r\nhost: x\r\n\r\nthis is no http\r\n\r\n").await;
    let mut replies = String::new();
    tokio::time::timeout(soon().length(), raw.0.read_to_string(&mut replies)).await.unwrap().unwrap();
    let (first, second) = replies.split_once("Hello, world!").unwrap();
    assert!(first.starts_with("HTTP/1.1 200") && second.starts_with("HTTP/1.1 400"), "{replies}");
    assert!(second.contains("malformed_request"), "{replies}");
}

#[tokio::test]
async fn reply_that_reads_like_the_answer_to_garbage_comes_as_it_is() {
    let serving = Serving::api(|config| inline(config).set("api.body_max_bytes", 4_000_000)).await;
    let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // In one piece, and streamed.
    for body in [answer.to_owned(), answer.repeat(20_000)] {
        assert_eq!(post(&serving, "/hello/call", &body).await.text(), body);
    }
}

#[tokio::test]
async fn body_that_breaks_off_or_stalls_gets_400() {
    let serving = Serving::api(|config| inline(config).set("api.stream_idle_timeout_ms", 200)).await;
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nsome").await;
    assert_problem(&raw.reply().await, 400, "malformed_request");

    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n").await;
    assert_problem(&raw.reply().await, 400, "malformed_request");
}
