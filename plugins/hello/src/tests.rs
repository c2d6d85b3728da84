//! The plugin without a host and without a broker.

use super::*;
use plugin_api::axum::body::{Body, to_bytes};
use plugin_api::http::Request;
use testkit::TestHost;

fn plugin() -> Plugin<App> {
    Plugin::new(App::start).inline(routes!(inline)).routes(routes!(call)).task(echo)
}

/// The text that the plugin, with these settings, answers to a request.
async fn answer(settings: Value, request: Request<Body>) -> String {
    let routes = TestHost::new().serve(plugin(), &settings).await.unwrap();
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
    let error = TestHost::new().serve(plugin(), &json!({ "greting": "Hi" })).await.unwrap_err();
    assert!(error.to_string().contains("greting"), "{error}");
}
