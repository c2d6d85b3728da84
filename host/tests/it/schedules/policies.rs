//! Overlap and missed slots.

use super::*;
use serde_json::json;

fn spans(tasks: &[&TaskRecord]) -> Vec<(Timestamp, Timestamp)> {
    let attempts = tasks.iter().flat_map(|task| &task.attempts);
    let mut spans: Vec<_> = attempts.map(|attempt| (attempt.started_at, attempt.ended_at.unwrap())).collect();
    spans.sort();
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_overlap_are_left_out_or_queued_as_declared() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let slow = |note: &str| json!({ "mode": "sleep", "ms": 2_500, "note": note });
    let schedules = json!({
        "one": { "every": "1s", "overlap": "skip", "order": slow("one-at-a-time") },
        "all": { "every": "1s", "overlap": "queue", "order": slow("all-of-them") },
    });
    let worker = worker(&serving.config, &schedules).await;
    wait_tasks(&broker, 10).await;
    still(&broker, "one").await;
    still(&broker, "all").await;
    none_waits(&serving, &["one", "all"]).await;
    let tasks = wait_tasks(&broker, 10).await;
    let (one, all) = (spans(&noted(&tasks, "one-at-a-time")), spans(&noted(&tasks, "all-of-them")));
    assert!(one.len() >= 2, "it goes on once the earlier one has ended");
    assert!(one.is_sorted_by(|a, b| a.1 <= b.0), "they overlap: {one:?}");
    assert!(!all.is_sorted_by(|a, b| a.1 <= b.0), "none waited for another: {all:?}");
    assert!(one.len() < all.len());
    assert!(worker.stderr().contains("the task of an earlier one has not ended"), "{}", worker.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_without_a_worker_are_made_up_for_once_or_left_out_and_do_not_pile_up() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let schedules = json!({
        "once": { "every": "1s", "missed": "run_once", "order": { "mode": "ok", "note": "made-up-for" } },
        "never": { "every": "1s", "missed": "skip", "order": { "mode": "ok", "note": "left-out" } },
    });
    let mut first = worker(&serving.config, &schedules).await;
    wait_held(&broker, "once", "is declared", |record| record.is_some()).await;
    first.stop(soon()).await.unwrap();
    eventually(soon(), "slots pass", async || (waiting(&serving, "never").await >= 5).then_some(()))
        .await
        .unwrap();
    still(&broker, "once").await;
    still(&broker, "never").await;
    let since = std::time::Instant::now();
    let before = tasks(&broker).await;
    eventually(soon(), "all of them are missed", async || (since.elapsed() > 2 * LEASE).then_some(()))
        .await
        .unwrap();
    let _second = worker(&serving.config, &schedules).await;
    none_waits(&serving, &["once", "never"]).await;
    let after = wait_tasks(&broker, before.len() + 1).await;
    let new = |note| noted(&after, note).len() - noted(&before, note).len();
    assert_eq!((new("made-up-for"), new("left-out")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn firings_that_nobody_takes_up_are_bounded() {
    let serving = Serving::api(quick).await;
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let subject = format!("{}.slot.chaos.tick", serving.config.namespace());
    for nth in 0..300 {
        context.publish(subject.clone(), format!("{nth}").into()).await.unwrap().await.unwrap();
    }
    assert_eq!(waiting(&serving, "tick").await, 128);
    let last = stream(&serving).await.get_last_raw_message_by_subject(&subject).await.unwrap();
    assert_eq!(&last.payload[..], b"299", "the latest stay");
}
