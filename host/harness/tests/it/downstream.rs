//! The fake services that the example plugins call.

use cardcage_harness::downstream::{Fault, Lms, OrderApi};
use cardcage_harness::{Deadline, Http, eventually};
use serde_json::json;

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
    lms.forget_keys();
    let reply = http.send(http::Method::POST, "/enroll", &keyed, body.to_string().into()).await.unwrap();
    assert_eq!((reply.status, lms.double_enrolments()), (201, 2));
}

#[tokio::test]
async fn lms_tells_which_lines_of_an_order_have_an_enrolment() {
    let lms = Lms::start().await.unwrap();
    let http = Http::new(lms.base_url().trim_start_matches("http://")).unwrap();
    for (order, line) in [("o1", "l1"), ("o2", "l2"), ("o1", "l3")] {
        http.post_json("/enroll", &json!({"order_id": order, "line_id": line})).await.unwrap();
    }
    for (order, lines) in [("o1", json!(["l1", "l3"])), ("o3", json!([]))] {
        let told = http.get(&format!("/enrolments?order_id={order}")).await.unwrap();
        assert_eq!(told.json().unwrap()["line_ids"], lines);
    }
    assert_eq!(http.get("/enrolments").await.unwrap().status, 400);
    assert_eq!(lms.requests(), 3, "only those to enrol count");
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
