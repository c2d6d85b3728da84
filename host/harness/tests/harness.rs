//! What the rest of the project's tests trust this crate to do.
#![allow(clippy::unwrap_used, reason = "in tests; clippy.toml allows it in the test functions only")]

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use cardcage_harness::downstream::{Fault, Lms, OrderApi};
use cardcage_harness::{Deadline, Http, Nats, NatsOptions, eventually};
use serde_json::json;

async fn stream_on(nats: &Nats) -> (jetstream::Context, stream::Stream) {
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let config = stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
    let stream = context.get_or_create_stream(config).await.unwrap();
    (context, stream)
}

#[tokio::test]
async fn nats_keeps_its_url_and_its_messages_over_kill_and_restart() {
    let mut nats = Nats::start().await.unwrap();
    let url = nats.url();
    let (context, _) = stream_on(&nats).await;
    for _ in 0..10 {
        context.publish("s.one", "x".into()).await.unwrap().await.unwrap();
    }
    for _ in 0..3 {
        let before = nats.pid();
        nats.kill9();
        assert!(std::net::TcpStream::connect(url.trim_start_matches("nats://")).is_err());
        nats.restart().await.unwrap();
        assert_ne!(nats.pid(), before);
    }
    assert_eq!(nats.url(), url);
    let (_, mut stream) = stream_on(&nats).await;
    assert_eq!(stream.info().await.unwrap().state.messages, 10);
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn paused_nats_keeps_connections_and_answers_after_resume() {
    let nats = Nats::start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    nats.pause().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), client.flush()).await.is_ok());
    let context = jetstream::new(client.clone());
    let account = context.query_account();
    assert!(tokio::time::timeout(Duration::from_millis(300), account).await.is_err());
    nats.resume().unwrap();
    context.query_account().await.unwrap();
}

#[tokio::test]
async fn many_servers_start_at_once_on_ports_of_their_own() {
    let servers = futures_util::future::join_all((0..8).map(|_| Nats::start())).await;
    let servers: Vec<_> = servers.into_iter().map(Result::unwrap).collect();
    let urls: std::collections::BTreeSet<_> = servers.iter().map(Nats::url).collect();
    assert_eq!(urls.len(), servers.len());
}

#[tokio::test]
async fn dropped_nats_leaves_no_process_and_no_folder() {
    let nats = Nats::start().await.unwrap();
    let process = format!("/proc/{}", nats.pid());
    let arguments = std::fs::read(format!("{process}/cmdline")).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    let store = arguments.split('\0').skip_while(|argument| *argument != "--store_dir").nth(1).unwrap();
    let folder = Path::new(store).parent().unwrap().to_owned();
    assert!(folder.is_dir());
    drop(nats);
    assert!(!Path::new(&process).exists() && !folder.exists());
}

#[tokio::test]
async fn refused_configuration_fails_with_what_the_server_said() {
    let options = NatsOptions { config: "no_such_option_at_all: {".into(), ..Default::default() };
    let error = Nats::start_with(options).await.unwrap_err().to_string();
    assert!(error.contains("exited at start") && error.contains("Parse error"), "{error}");
}

#[tokio::test]
async fn condition_that_never_comes_fails_by_name() {
    let error = eventually(Deadline::after(Duration::from_millis(30)), "pigs fly", async || None::<()>).await;
    assert!(error.unwrap_err().to_string().contains("pigs fly"));
}

#[tokio::test]
async fn order_api_serves_orders_and_fails_as_told() {
    let orders = OrderApi::start("shop").await.unwrap();
    orders.serve(json!({"id": "o1", "lineItems": []}));
    orders.serve_as("o2", json!({"id": "other"}));
    let http = Http::new(orders.base_url().trim_start_matches("http://")).unwrap();
    orders.faults().next(1, Fault::Status(503));
    orders.faults().always("o2", Fault::Status(500));
    assert_eq!(http.get("/shop/orders/o1").await.unwrap().status, 503);
    assert_eq!(http.get("/shop/orders/o1").await.unwrap().json().unwrap()["id"], "o1");
    assert_eq!(http.get("/shop/orders/o2").await.unwrap().status, 500);
    orders.faults().clear();
    assert_eq!(http.get("/shop/orders/o2").await.unwrap().json().unwrap()["id"], "o2");
    assert_eq!(http.get("/shop/orders/o3").await.unwrap().status, 404);
    assert_eq!(orders.asked(), ["o1", "o1", "o2", "o2", "o3"]);
}

#[tokio::test]
async fn lms_counts_what_was_enrolled_twice_and_remembers_idempotency_keys() {
    let lms = Lms::start().await.unwrap();
    let http = Http::new(lms.base_url().trim_start_matches("http://")).unwrap();
    let body = json!({"order_id": "o1", "line_item_id": "l1", "course": "c"});
    let keyed = [("idempotency-key", "o1/l1")];
    for expected in [201, 200] {
        let reply = http.send(http::Method::POST, "/enroll", &keyed, body.to_string().into()).await.unwrap();
        assert_eq!(reply.status, expected);
    }
    assert_eq!((lms.enrolments().len(), lms.double_enrolments()), (1, 0));
    lms.faults().next(1, Fault::StatusAfterWork(503));
    assert_eq!(http.post_json("/enroll", &body).await.unwrap().status, 503);
    assert_eq!((lms.enrolments().len(), lms.double_enrolments()), (2, 1));
}

#[tokio::test]
async fn stalled_service_answers_after_the_stall_is_cleared() {
    let lms = Lms::start().await.unwrap();
    lms.faults().next(1, Fault::Stall);
    let http = Http::new(lms.base_url().trim_start_matches("http://")).unwrap();
    let asking = tokio::spawn(async move { http.post_json("/enroll", &json!({"line_item_id": "l1"})).await });
    eventually(Deadline::seconds(5), "the request arrived", async || (lms.requests() == 1).then_some(()))
        .await
        .unwrap();
    assert!(!asking.is_finished() && lms.enrolments().is_empty());
    lms.faults().clear();
    assert_eq!(asking.await.unwrap().unwrap().status, 201);
}
