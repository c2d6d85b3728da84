//! Tasks for a time.

use crate::serving::{Serving, soon};
use cardcage_protocol::Timestamp;
use serde_json::{Value, json};

async fn enqueue_at(serving: &Serving, unix_ms: u64) -> cardcage_harness::Reply {
    let path = format!("/chaos/at?unix_ms={unix_ms}");
    serving.http.post_json(&path, &json!({ "mode": "ok" })).await.unwrap()
}

async fn started(serving: &Serving, id: &str) -> u64 {
    let done: Value = serving.http.final_task(id, soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    let at = done["attempts"][0]["started_at"].as_str().unwrap();
    at.parse::<Timestamp>().unwrap().unix_ms()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_a_time_is_not_started_before_it_and_one_for_the_past_at_once() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let broker = serving.broker(std::time::Duration::from_secs(30)).await;
    broker.measure_clock().await;
    let due = broker.now_unix_ms() + 2_000;
    let reply = enqueue_at(&serving, due).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let later = reply.task_id().unwrap();
    let waiting = serving.get(&format!("/tasks/{later}")).await.json().unwrap();
    assert_eq!(waiting["state"], "scheduled", "{waiting}");
    let past = enqueue_at(&serving, 1).await.task_id().unwrap();
    assert!(started(&serving, &past).await < due, "what is past does not wait");
    // Two clocks were measured, each to some milliseconds.
    assert!(started(&serving, &later).await + 50 >= due);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_a_time_more_than_a_year_ahead_is_refused() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply = enqueue_at(&serving, Timestamp::now().unix_ms() + 400 * 86_400_000).await;
    assert_eq!((reply.status, reply.problem_code().as_deref()), (400, Some("malformed_request")));
    assert!(reply.text().contains("more than a year"), "{}", reply.text());
}
