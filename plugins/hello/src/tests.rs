//! Single handlers, and the plugin as its callers see it, at three levels: in this process, in hosts with a broker double, and in
//! hosts with a real broker.
//!
//! What needs hosts is left out by `cargo test`. With `cargo build` before it, `cargo test -- --include-ignored` runs everything:
//! it needs `cardcage` and `nats-server`, in the PATH or named by `CARDCAGE_BIN` and `CARDCAGE_NATS_SERVER`.

use super::*;
use plugin_api::axum::body::{Body, to_bytes};
use plugin_api::http::Request;
use testkit::{Bench, Result, TestHost};

/// The text that the plugin, with these settings, answers to a request.
async fn answer(settings: Value, request: Request<Body>) -> String {
    let routes = TestHost::new().serve(definition(), &settings).await.unwrap();
    let body = routes.send(request).await.into_body();
    String::from_utf8(to_bytes(body, 1024).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn whoever_gives_a_name_is_greeted_by_it() {
    let request = |uri: &str| Request::get(uri).body(Body::empty()).unwrap();
    assert_eq!(answer(json!({}), request("/inline")).await, "Hello, world!");
    assert_eq!(answer(json!({}), request("/inline?name=Ada")).await, "Hello, Ada!");
    assert_eq!(answer(json!({ "greeting": "Good day" }), request("/inline")).await, "Good day, world!");
}

#[tokio::test]
async fn call_answers_with_the_body_it_got() {
    let request = Request::post("/call").body(Body::from("abc")).unwrap();
    assert_eq!(answer(json!({}), request).await, "abc");
}

#[tokio::test]
async fn echo_ends_with_its_body() {
    let app = App { greeting: "Hello".into() };
    let body = json!({ "order": 7 });
    assert_eq!(TestHost::new().run_task(echo, app, body.clone()).await.unwrap(), body);
}

#[tokio::test]
async fn misspelt_setting_is_named() {
    let error = TestHost::new().serve(definition(), &json!({ "greting": "Hi" })).await.unwrap_err();
    assert!(error.to_string().contains("greting"), "{error}");
}

/// What callers can rely on: the same at every level.
async fn order_is_accepted_and_comes_to_its_end(bench: Bench) -> Result<()> {
    assert_eq!(bench.get("/inline?name=Ada").await?.text(), "Good day, Ada!");
    let id = bench.post("/task", &json!({ "order": 7 })).await?.task_id()?;
    let outcome = bench.outcome(id).await?;
    assert_eq!((outcome.state.as_str(), outcome.attempts), ("succeeded", 1));
    assert_eq!(outcome.succeeded()?, json!({ "order": 7 }));
    bench.stop().await
}

fn settings() -> Value {
    json!({ "greeting": "Good day" })
}

fn library() -> std::path::PathBuf {
    testkit::library(env!("CARGO_PKG_NAME")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built library, cardcage and nats-server"]
async fn plugin_stands_what_any_plugin_must() {
    let check = testkit::conformance(library()).config(settings()).task("echo", json!({ "order": 7 }));
    let report = check.call(Method::GET, "/inline?name=Ada", Value::Null).run().await.unwrap();
    report.assert_clean();
}

#[tokio::test]
async fn order_comes_to_its_end_in_this_process() {
    let bench = Bench::unit(definition).config(settings()).start().await.unwrap();
    order_is_accepted_and_comes_to_its_end(bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built library and cardcage"]
async fn order_comes_to_its_end_in_hosts_with_a_broker_double() {
    let bench = Bench::plugin(library()).config(settings()).start().await.unwrap();
    order_is_accepted_and_comes_to_its_end(bench).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built library, cardcage and nats-server"]
async fn order_comes_to_its_end_in_hosts_with_a_real_broker() {
    let bench = Bench::system(library()).config(settings()).start().await.unwrap();
    order_is_accepted_and_comes_to_its_end(bench).await.unwrap();
}
