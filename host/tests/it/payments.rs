//! The example plugin `payments`: which of Stripe's requests are taken, which are refused, and what a 2xx is worth.

use cardcage_harness::{Cardcage, Deadline, Reply, eventually, stripe};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::serving::soon;
use crate::webhooks::{OLD_SECRET, SECRET, Shop, accepted, event, runs};

/// The promise is three seconds, and the machine may be busy.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A payment of its own for each case, so that no case finds another's task.
fn payment(case: usize) -> Value {
    let mut event = event("payment_intent.succeeded");
    event["id"] = json!(format!("evt_case_{case}_end"));
    event
}

/// A header with these signatures, in this order.
fn header(unix_s: u64, signatures: &[(&str, String)]) -> String {
    let pairs = signatures.iter().map(|(scheme, value)| format!(",{scheme}={value}"));
    std::iter::once(format!("t={unix_s}")).chain(pairs).collect()
}

fn v1(secret: &str, unix_s: u64, body: &str) -> String {
    stripe::v1(secret, unix_s, body.as_bytes()).unwrap()
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.problem_code().as_deref()), (status, Some(code)), "{}", reply.text());
}

/// A way to sign a body at a time.
type Sign = fn(u64, &str) -> String;

#[tokio::test(flavor = "multi_thread")]
async fn event_is_taken_when_any_of_its_signatures_fits_any_secret() {
    let cases: [Sign; 7] = [
        |now, body| header(now, &[("v1", v1(SECRET, now, body))]),
        |now, body| header(now, &[("v1", v1(OLD_SECRET, now, body))]),
        // While a secret is being replaced, Stripe signs with both; we may know either.
        |now, body| header(now, &[("v1", v1("whsec_unknown", now, body)), ("v1", v1(SECRET, now, body))]),
        |now, body| header(now, &[("v1", v1(OLD_SECRET, now, body)), ("v1", v1("whsec_unknown", now, body))]),
        |now, body| {
            header(now, &[("v0", "00".repeat(32)), ("v1", "no hex".into()), ("v1", v1(SECRET, now, body))])
        },
        |now, body| header(now - 240, &[("v1", v1(SECRET, now - 240, body))]),
        |now, body| header(now + 240, &[("v1", v1(SECRET, now + 240, body))]),
    ];
    let shop = Shop::open().await;
    let mut worker = shop.worker().await;
    for (case, sign) in cases.iter().enumerate() {
        let body = payment(case).to_string();
        let reply = shop.post_stripe(Some(&sign(stripe::now_unix_s().unwrap(), &body)), &body).await;
        assert_eq!(reply.status, 202, "case {case}: {}", reply.text());
        let done = shop.http.final_task(&accepted(&reply), soon()).await.unwrap();
        assert_eq!(done["result"]["event_id"], payment(case)["id"], "case {case}: {done}");
    }
    shop.finish(&mut worker, "payments").await;
    for case in 0..cases.len() {
        assert_eq!(runs(&worker, &payment(case)), 1, "case {case}: {}", worker.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_without_a_signature_that_fits_now_is_refused_by_name_and_stored_nowhere() {
    let cases: [(Sign, &str); 9] = [
        (|now, body| header(now, &[("v1", v1("whsec_unknown", now, body))]), "signature_invalid"),
        (
            |now, body| header(now, &[("v1", v1("whsec_a", now, body)), ("v1", v1("whsec_b", now, body))]),
            "signature_invalid",
        ),
        // The old scheme, of another body, of another time, and no header of Stripe's at all.
        (|now, body| header(now, &[("v0", v1(SECRET, now, body))]), "signature_invalid"),
        (|now, body| header(now, &[("v1", v1(SECRET, now, &format!("{body} ")))]), "signature_invalid"),
        (|now, body| header(now, &[("v1", v1(SECRET, now - 400, body))]), "signature_invalid"),
        (|now, _| header(now, &[]), "signature_invalid"),
        (|_, _| "nonsense".into(), "signature_invalid"),
        // Right, but too long ago or too far ahead.
        (|now, body| header(now - 400, &[("v1", v1(SECRET, now - 400, body))]), "signature_expired"),
        (|now, body| header(now + 400, &[("v1", v1(SECRET, now + 400, body))]), "signature_expired"),
    ];
    let shop = Shop::open().await;
    for (case, (sign, code)) in cases.iter().enumerate() {
        let body = payment(case).to_string();
        let reply = shop.post_stripe(Some(&sign(stripe::now_unix_s().unwrap(), &body)), &body).await;
        let got = (reply.status, reply.problem_code());
        assert_eq!(got, (400, Some((*code).to_owned())), "case {case}: {}", reply.text());
    }
    let unsigned = shop.post_stripe(None, &payment(0).to_string()).await;
    assert_refused(&unsigned, 400, "signature_missing");
    assert_eq!(shop.queued("payments").await, 0);

    // The first of them, now signed rightly: the refusal left nothing behind that stands in its way.
    accepted(&shop.deliver(&payment(0), 0).await);
    assert_eq!(shop.queued("payments").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_event_without_a_task_is_answered_200_and_one_that_cannot_be_read_400() {
    let shop = Shop::open().await;
    let unknown = shop.deliver(&event("customer.deleted"), 0).await;
    assert_eq!((unknown.status, unknown.json().unwrap()), (200, ignored()));
    let unreadable = shop.deliver(&json!({ "id": "evt_1", "type": "invoice.paid" }), 0).await;
    assert_refused(&unreadable, 400, "event_unreadable");
    assert_eq!(shop.queued("payments").await, 0);
}

fn ignored() -> Value {
    json!({ "ignored": true, "type": "customer.deleted" })
}

/// Sends an event again as Stripe does, until it is taken, and looks how often it then ran.
async fn is_done_once_when_sent_again(shop: &Shop, mut worker: Cardcage, event: &Value) {
    let taken = eventually(Deadline::seconds(50), "the event is taken", async || {
        let reply = shop.deliver(event, 0).await;
        if reply.status == 503 {
            return None;
        }
        Some(accepted(&reply))
    });
    let id = taken.await.unwrap();
    let done = shop.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["result"]["event_id"]), (&json!("succeeded"), &event["id"]), "{done}");
    shop.finish(&mut worker, "payments").await;
    assert_eq!(runs(&worker, event), 1, "{}", worker.stderr());
}

/// Delivers an event and sees it refused in time.
async fn is_not_promised(shop: &Shop, event: &Value) {
    let began = Instant::now();
    let reply = shop.deliver(event, 0).await;
    assert_refused(&reply, 503, "broker_unavailable");
    assert!(began.elapsed() < ANSWER_MAX, "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn event_gets_503_from_the_moment_that_the_broker_is_gone_and_runs_once_when_it_is_back() {
    let mut shop = Shop::open().await;
    let worker = shop.worker().await;
    let event = payment(0);
    shop.nats.kill9();
    // Nobody can have stored it from here on: any 2xx would be a lie.
    for _ in 0..5 {
        is_not_promised(&shop, &event).await;
    }
    // What promises nothing needs no broker.
    let unknown = shop.deliver(&self::event("customer.deleted"), 0).await;
    assert_eq!((unknown.status, unknown.json().unwrap()), (200, ignored()));
    let unsigned = shop.post_stripe(None, &event.to_string()).await;
    assert_refused(&unsigned, 400, "signature_missing");

    shop.nats.restart().await.unwrap();
    is_done_once_when_sent_again(&shop, worker, &event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_whose_storing_is_in_doubt_gets_503_and_runs_once_when_it_is_sent_again() {
    let shop = Shop::open().await;
    let worker = shop.worker().await;
    let event = payment(0);
    // It takes what is written to it, and reads that when it goes on: after everybody has been told no.
    shop.nats.pause().await.unwrap();
    for _ in 0..3 {
        is_not_promised(&shop, &event).await;
    }
    shop.nats.resume().unwrap();
    is_done_once_when_sent_again(&shop, worker, &event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_an_event_that_cannot_be_stored_says_when_to_send_it_again() {
    let mut shop = Shop::open().await;
    shop.nats.kill9();
    let reply = shop.deliver(&payment(0), 0).await;
    assert_refused(&reply, 503, "broker_unavailable");
    assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
}
