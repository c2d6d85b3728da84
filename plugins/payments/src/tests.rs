//! The webhook from the outside.

use super::*;
use crate::signature::tests::sign;
use plugin_api::axum::body::Body;
use plugin_api::axum::http::Request;
use std::time::UNIX_EPOCH;
use testkit::{TestHost, TestRoutes};

const SECRET: &str = "whsec_test";
const NOW: u64 = 1_761_000_000;

async fn start() -> (TestHost, TestRoutes) {
    let host = TestHost::new();
    host.set_now(UNIX_EPOCH + Duration::from_secs(NOW));
    let routes = host.serve(definition(), &json!({"stripe_webhook_secrets": [SECRET]})).await.unwrap();
    (host, routes)
}

fn signed(body: &str) -> Request<Body> {
    let signature = format!("t={NOW},v1={}", sign(SECRET, NOW, body.as_bytes()));
    Request::post("/stripe/webhook")
        .header("stripe-signature", signature)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn succeeded() -> String {
    let object = json!({"id": "pi_1", "amount_received": 1099, "currency": "usd", "customer": "cus_1"});
    json!({"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": object}}).to_string()
}

#[tokio::test]
async fn signed_event_becomes_one_task_however_often_it_comes() {
    let (host, routes) = start().await;
    let (status, receipt) = routes.send_json(signed(&succeeded())).await;
    assert_eq!((status, &receipt["state"]), (StatusCode::ACCEPTED, &json!("queued")));
    let (status, again) = routes.send_json(signed(&succeeded())).await;
    assert_eq!((status, &again["id"]), (StatusCode::ACCEPTED, &receipt["id"]));
    let [task] = host.enqueued().try_into().unwrap();
    assert_eq!((task.task.as_str(), task.idempotency_key.as_deref()), ("record_payment", Some("evt_1")));

    let (app, payment) =
        (App::start(settings(&host)).await.unwrap(), serde_json::from_value(task.body).unwrap());
    let recorded = host.run_task(record_payment, app, payment).await.unwrap();
    assert_eq!(
        serde_json::to_value(recorded).unwrap(),
        json!({"kind": "payment", "amount": 1099, "currency": "usd", "customer": "cus_1", "event_id": "evt_1"})
    );
}

fn settings(host: &TestHost) -> PluginContext {
    host.plugin_context(&json!({"stripe_webhook_secrets": [SECRET]}))
}

#[tokio::test]
async fn refusals_name_their_reason_and_enqueue_nothing() {
    let (host, routes) = start().await;
    let mut missing = signed(&succeeded());
    missing.headers_mut().clear();
    let mut invalid = signed(&succeeded());
    *invalid.body_mut() = Body::from("{}");
    for (request, code) in
        [(missing, "signature_missing"), (invalid, "signature_invalid"), (signed("{"), "event_unreadable")]
    {
        let (status, problem) = routes.send_json(request).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::BAD_REQUEST, Some(code)));
    }
    host.set_now(UNIX_EPOCH + Duration::from_secs(NOW + 301));
    let (status, problem) = routes.send_json(signed(&succeeded())).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::BAD_REQUEST, Some("signature_expired")));
    assert!(host.enqueued().is_empty());
}

#[tokio::test]
async fn event_is_not_acknowledged_while_it_cannot_be_stored() {
    let (host, routes) = start().await;
    host.refuse_enqueues(true);
    let (status, _) = routes.send_json(signed(&succeeded())).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn event_without_a_task_is_acknowledged_and_ignored() {
    let (host, routes) = start().await;
    let event = json!({"id": "evt_2", "type": "customer.deleted", "data": {"object": {}}});
    let answer = routes.send_json(signed(&event.to_string())).await;
    assert_eq!(answer, (StatusCode::OK, json!({"ignored": true, "type": "customer.deleted"})));
    assert!(host.enqueued().is_empty());
}

#[tokio::test]
async fn start_without_a_usable_secret_is_refused() {
    let refusal =
        async |config: Value| TestHost::new().serve(definition(), &config).await.unwrap_err().to_string();
    assert!(refusal(json!({})).await.contains("stripe_webhook_secrets"));
    assert!(refusal(json!({"stripe_webhook_secrets": []})).await.contains("at least one"));
    assert!(refusal(json!({"stripe_webhook_secrets": ["whsec_a", " "]})).await.contains("[1]"));
    assert!(
        refusal(json!({"stripe_webhook_secrets": ["a"], "signature_tolerance_s": 0})).await.contains("86400")
    );
    assert!(refusal(json!({"stripe_webhook_secrets": ["a"], "tolerance": 1})).await.contains("tolerance"));
}

/// Real shapes: every event in the samples folder, when it is there.
#[tokio::test]
async fn every_sample_event_is_taken_or_ignored_by_its_type() {
    let Ok(folder) =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples/stripe"))
    else {
        return;
    };
    let (_, routes) = start().await;
    for file in folder {
        let path = file.unwrap().path();
        let (status, answer) = routes.send_json(signed(&std::fs::read_to_string(&path).unwrap())).await;
        let ignored = path.ends_with("customer.deleted.json");
        let expected = if ignored { StatusCode::OK } else { StatusCode::ACCEPTED };
        assert_eq!(status, expected, "{}: {answer}", path.display());
    }
}
