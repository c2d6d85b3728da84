//! Connections and bodies on which little or nothing comes.

use std::time::Duration;

use cardcage_harness::{Config, eventually};

use super::inline;
use crate::serving::{Raw, Serving, assert_problem, soon};

/// Few places, and little patience.
fn impatient(config: Config) -> Config {
    inline(config).set("api.in_flight_max", 1).set("api.header_read_timeout_ms", 300)
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_and_make_room() {
    let serving = Serving::api(impatient).await;
    let mut silent = Vec::new();
    for greeting in
        ["", "G", "GET / HTTP/1.1\r\nhost:", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(greeting).await;
        silent.push((greeting, raw));
    }
    // All connections are taken, until the silent ones are closed.
    let reply = tokio::time::timeout(soon().length(), serving.get("/hello/inline")).await;
    assert_eq!(reply.expect("there is room").status, 200);
    for (greeting, mut raw) in silent {
        assert!(raw.is_closed().await, "{greeting:?}");
    }
}

#[tokio::test]
async fn connection_is_closed_when_it_has_been_without_a_request_for_long_and_not_before() {
    let serving = Serving::api(|config| {
        inline(config).set("api.header_read_timeout_ms", 2_000).set("plugins.chaos.placement", "inline")
    })
    .await;
    let mut raw = Raw::connect(&serving.address()).await;
    // A request that takes longer than a connection may be without one.
    raw.post("/chaos/call", &crate::serving::sleep(5_000)).await;
    assert_eq!(raw.reply().await.status, 200);
    raw.send("GET /hello/inline HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.reply().await.status, 200);
    assert!(raw.is_closed().await);
}

#[tokio::test]
async fn body_that_trickles_is_refused_when_the_calls_time_is_over() {
    let serving = Serving::api(|config| inline(config).set("api.call_timeout_ms", 2_000)).await;
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n").await;
    let (mut reading, mut writing) = raw.0.into_split();
    let trickle = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // Often enough that no single wait is a long one.
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while writing.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    });
    let mut reply = Vec::new();
    let answered = eventually(soon(), "an answer", async || {
        use tokio::io::AsyncReadExt;
        let mut buffer = [0; 4096];
        let count = reading.try_read(&mut buffer).unwrap_or(0);
        reply.extend_from_slice(&buffer[..count]);
        let _ = reading.read(&mut []).await;
        crate::serving::parse(&reply)
    });
    assert_problem(&answered.await.unwrap(), 400, "malformed_request");
    trickle.abort();
}
