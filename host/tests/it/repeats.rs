//! Requests that are sent again with their idempotency key, after an answer that was no yes.

use crate::serving::{Serving, chaos_envelope, child, pause, signal, soon, wait_metric};
use bytes::Bytes;
use cardcage::broker::{Broker, key_hash};
use cardcage_harness::{Deadline, Reply, Signal, eventually};
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp};
use http::Method;
use serde_json::json;
use std::convert::identity;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(30);
const KEY: &str = "order-7";
const BODY: &str = r#"{"mode":"ok"}"#;

async fn send(serving: &Serving) -> Reply {
    let headers = [("idempotency-key", KEY), ("content-type", "application/json")];
    serving.http.send(Method::POST, "/chaos/task", &headers, BODY.into()).await.unwrap()
}

/// What a first request leaves behind whose publish was stored after its caller had been told no.
async fn refused_and_stored_all_the_same(broker: &Broker) -> TaskId {
    let id = TaskId::generate();
    let hash = key_hash(&["chaos", "enqueue_chaos", "chaos", KEY]);
    broker.claim_key(&hash, id, BODY.as_bytes(), WAIT).await.unwrap();
    let mut envelope = envelope(id, BODY);
    envelope.accept_by = Some(Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 1));
    assert!(!broker.publish_task(&envelope, WAIT).await.unwrap().duplicate);
    id
}

fn envelope(id: TaskId, body: &'static str) -> TaskEnvelope {
    chaos_envelope(id, "chaos", Bytes::from_static(body.as_bytes()))
}

async fn assert_runs_once(serving: &Serving, id: TaskId) {
    let done = serving.http.final_task(&id.to_string(), soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded");
    assert_eq!(serving.seen().await["started"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeat_of_a_request_whose_publish_came_too_late_is_accepted_and_runs_once() {
    let serving = Serving::api(identity).await;
    let broker = serving.broker(LEASE).await;
    let id = refused_and_stored_all_the_same(&broker).await;
    for _ in 0..3 {
        let reply = send(&serving).await;
        assert_eq!((reply.status, reply.task_id().unwrap()), (202, id.to_string()), "{}", reply.text());
    }
    let worker = serving.worker().await;
    assert_runs_once(&serving, id).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"unpromised\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeat_is_accepted_and_runs_once_also_after_a_worker_has_dropped_what_came_too_late() {
    let (serving, worker) = Serving::both(identity).await;
    let broker = serving.broker(LEASE).await;
    let id = refused_and_stored_all_the_same(&broker).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"unpromised\"} 1").await;
    let reply = send(&serving).await;
    assert_eq!((reply.status, reply.task_id().unwrap()), (202, id.to_string()), "{}", reply.text());
    assert_runs_once(&serving, id).await;
    assert_eq!(send(&serving).await.status, 202);
    assert_runs_once(&serving, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_at_the_same_time_are_all_accepted_and_run_once() {
    let (serving, worker) = Serving::both(identity).await;
    let broker = serving.broker(LEASE).await;
    let id = refused_and_stored_all_the_same(&broker).await;
    let replies = futures_util::future::join_all((0..16).map(|_| send(&serving))).await;
    for reply in replies {
        assert_eq!((reply.status, reply.task_id().unwrap()), (202, id.to_string()), "{}", reply.text());
    }
    assert_runs_once(&serving, id).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeat_runs_at_once_also_if_its_worker_receives_it_together_with_what_came_too_late() {
    let (serving, worker) = Serving::both(identity).await;
    let broker = serving.broker(LEASE).await;
    pause(child(&worker)).await;
    let id = refused_and_stored_all_the_same(&broker).await;
    let reply = send(&serving).await;
    assert_eq!((reply.status, reply.task_id().unwrap()), (202, id.to_string()), "{}", reply.text());
    signal(child(&worker), Signal::CONT);
    let done = serving.http.final_task(&id.to_string(), Deadline::after(LEASE / 2)).await.unwrap();
    assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn further_messages_of_a_task_that_runs_cost_neither_a_start_nor_a_lease() {
    let (serving, worker) = Serving::both(identity).await;
    let broker = serving.broker(LEASE).await;
    let mut envelope = envelope(TaskId::generate(), r#"{"mode":"sleep","ms":3000}"#);
    broker.publish_task_in_round(&envelope, 0, WAIT).await.unwrap();
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
    broker.publish_task_in_round(&envelope, 1, WAIT).await.unwrap();
    envelope.attempt = 2;
    broker.publish_task_in_round(&envelope, 0, WAIT).await.unwrap();
    eventually(Deadline::after(LEASE / 2), "the queue is empty", async || {
        let queues = broker.queues(None).await.ok()?.queues;
        let empty = queues.iter().all(|queue| queue.waiting == 0 && queue.leased == 0);
        empty.then_some(())
    })
    .await
    .unwrap();
    let done = serving.http.final_task(&envelope.id.to_string(), soon()).await.unwrap();
    assert_eq!(
        (&done["state"], done["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1),
        "{done}"
    );
    assert!(worker.stderr().contains("a second message of a task that is held here was dropped"));
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}
