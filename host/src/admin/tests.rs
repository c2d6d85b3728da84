//! The admin listener against a status that the test sets.

use super::*;
use crate::process::control::{Refusal, Role};
use crate::process::testing::{StatusHandle, handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Admin {
    address: std::net::SocketAddr,
    status: StatusHandle,
    desk: Desk,
}

fn admin() -> Admin {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (status, handle) = handle(Role::Api, |_| Some("child_thing 1\n# EOF\n".to_owned()));
    let desk = Desk::default();
    tokio::spawn(serve(listener, Office { crew: handle.into(), desk: desk.clone(), remote_reload: false }));
    Admin { address, status, desk }
}

impl Admin {
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have refused and closed before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await
    }
}

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn readiness_follows_the_status_and_liveness_does_not() {
    let admin = admin();
    assert!(admin.get("/livez").await.starts_with("HTTP/1.1 200 "));
    let starting = admin.get("/readyz").await;
    assert!(
        starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("not ready: starting\n"),
        "{starting}"
    );
    admin.status.update(|now| now.status = Stage::Serving);
    let ready = admin.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready\n"), "{ready}");
    admin.status.update(|now| now.status = Stage::Draining);
    assert!(admin.get("/readyz").await.ends_with("not ready: draining\n"));
    assert!(admin.get("/livez").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn verbose_readiness_names_what_is_refused_and_degraded() {
    let admin = admin();
    admin.status.update(|now| {
        now.status = Stage::Serving;
        now.lacks = vec!["the broker is away".into()];
        now.refused.push(Refusal {
            plugin: "orders".into(),
            file: "liborders.so".into(),
            code: "hung".into(),
            message: "init hung".into(),
            required: false,
        });
    });
    let answer = admin.get("/readyz?verbose").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("application/json"), "{answer}");
    let json = body(&answer);
    assert_eq!((&json["status"], &json["ready"]), (&"serving".into(), &true.into()));
    let reasons = ["the broker is away", "plugin `orders` is refused: init hung"];
    assert_eq!(json["degraded"], serde_json::json!(reasons));
    let short = admin.get("/readyz").await;
    assert!(short.ends_with("\r\n\r\nready, degraded: 2 reasons, in /readyz?verbose\n"), "{short}");
    assert!(admin.get("/metrics").await.contains("\ncardcage_degraded_reasons 2\n"));
    assert_eq!(
        (&json["refused"][0]["plugin"], &json["refused"][0]["message"]),
        (&"orders".into(), &"init hung".into())
    );
}

#[tokio::test]
async fn metrics_are_the_supervisors_and_the_childs_with_one_end() {
    let admin = admin();
    admin.status.update(|now| now.restarts = 2);
    let answer = admin.get("/metrics").await;
    for line in [
        "cardcage_ready 0",
        "cardcage_child_restarts_total 2",
        "cardcage_child_metrics_answered 1",
        "child_thing 1",
    ] {
        assert!(answer.lines().any(|have| have == line), "{line} is missing in {answer}");
    }
    assert_eq!(answer.matches("# EOF").count(), 1);
    assert!(answer.ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn what_is_not_offered_is_a_problem() {
    let admin = admin();
    let unknown = admin.get("/").await;
    assert!(
        unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("application/problem+json"),
        "{unknown}"
    );
    assert_eq!(body(&unknown)["status"], 404);
    let post = admin.raw("POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    let long = admin.get(&format!("/{}", "x".repeat(64 * 1024))).await;
    assert!(
        ["HTTP/1.1 414 ", "HTTP/1.1 431 "].iter().any(|code| long.starts_with(code)) || long.is_empty(),
        "{long}"
    );
}

#[tokio::test]
async fn reload_is_numbered_and_not_taken_from_a_browser() {
    let admin = admin();
    let from_browser = "POST /reload HTTP/1.1\r\nhost: a\r\norigin: http://a\r\ncontent-length: 0\r\n\r\n";
    assert!(admin.raw(from_browser).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(body(&admin.get("/reload").await), serde_json::json!({ "running": null, "last": null }));
    let accepted = admin.raw("POST /reload HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert!(accepted.starts_with("HTTP/1.1 202 "), "{accepted}");
    assert_eq!(body(&accepted), serde_json::json!({ "number": 1 }));
    assert_eq!(admin.desk.next().await, 1);
    assert_eq!(body(&admin.get("/reload").await)["running"], 1);
    let put = admin.raw("PUT /reload HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert!(put.starts_with("HTTP/1.1 405 ") && put.contains("allow: GET, HEAD, POST"), "{put}");
}
