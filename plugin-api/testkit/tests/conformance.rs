//! The conformance check, run on the examples, which stand it, and on `chaos`, which does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use plugin_api::http::Method;
use serde_json::json;
use testkit::{Rule, conformance, library};

fn of(plugin: &str) -> testkit::Conformance {
    conformance(library(&format!("cardcage-plugin-{plugin}")).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_stands_what_any_plugin_must() {
    let hello = of("hello")
        .call(Method::GET, "/inline?name=Ada", json!(null))
        .call(Method::POST, "/call", json!({ "any": "thing" }))
        .task("echo", json!({ "any": "thing" }));
    let report = hello.run().await.unwrap();
    report.assert_clean();
    for rule in [Rule::Describes, Rule::Starts, Rule::Garbage, Rule::Samples, Rule::Stops, Rule::Panics] {
        assert!(report.findings.iter().any(|finding| finding.rule == rule), "{rule:?} was looked at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_stands_it_with_a_broker_double_as_well() {
    let hello = of("hello").with_double().task("echo", json!({ "any": "thing" }));
    hello.run().await.unwrap().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_stands_what_any_plugin_must() {
    // Nobody listens there: what its downstream services do is not what is looked at.
    let nowhere = "http://127.0.0.1:9/";
    let orders = of("orders")
        .config(json!({ "order_api_base_url": nowhere, "lms_base_url": nowhere, "project_key": "shop" }))
        .call(Method::GET, "/o1", json!(null))
        .task("fulfil", json!({ "order_id": "o1" }));
    orders.run().await.unwrap().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_stands_what_any_plugin_must() {
    let payments = of("payments").config(json!({ "stripe_webhook_secrets": ["whsec_test"] }));
    payments.run().await.unwrap().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_is_found_out_in_each_way_that_it_is_told_to_misbehave() {
    let chaos = of("chaos")
        .call(Method::POST, "/call", json!({ "mode": "panic" }))
        .call(Method::POST, "/call", json!({ "mode": "huge_reply", "times": 9 }))
        .task("chaos", json!({ "mode": "huge_reply", "times": 1 }))
        .task("chaos", json!({ "mode": "abort" }));
    let report = chaos.run().await.unwrap();
    assert!(!report.breaks(Rule::Describes) && !report.breaks(Rule::Starts), "{report}");
    assert!(!report.breaks(Rule::Garbage), "{report}");
    for (rule, words) in [
        (Rule::Samples, "handler_panicked"),
        (Rule::Samples, "crashed"),
        (Rule::Size, "reply_too_large"),
        (Rule::Size, "result_too_large"),
        (Rule::Panics, "plugin code panicked"),
    ] {
        let found = |finding: &testkit::Finding| {
            finding.rule == rule && finding.fault.as_deref().is_some_and(|fault| fault.contains(words))
        };
        assert!(report.faults().any(found), "{rule:?} with {words}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_cannot_stop_in_time_is_found_out() {
    let chaos = of("chaos").task("chaos", json!({ "mode": "block", "ms": 12_000 }));
    let report = chaos.run().await.unwrap();
    assert!(report.breaks(Rule::Stops), "{report}");
    let words = report.to_string();
    assert!(words.contains("the worker"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_refuses_its_settings_is_reported_and_nothing_more_is_looked_at() {
    let report = of("payments").run().await.unwrap();
    assert!(report.breaks(Rule::Starts), "{report}");
    assert!(!report.findings.iter().any(|finding| finding.rule == Rule::Garbage), "{report}");
}
