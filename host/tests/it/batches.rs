//! Tasks that are enqueued together: all are stored, or none.

use crate::killed_between_writes::Killed;
use crate::serving::{Serving, restored, soon};
use cardcage_harness::{Cardcage, Launch, Reply, eventually};
use cardcage_protocol::{TaskId, limits};
use http::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

async fn post(serving: &Serving, batch: &Value) -> Reply {
    serving.http.post_json("/chaos/batch", batch).await.unwrap()
}

async fn post_with_key(serving: &Serving, key: &str, batch: &Value) -> Reply {
    let headers = [("idempotency-key", key), ("content-type", "application/json")];
    serving.http.send(Method::POST, "/chaos/batch", &headers, batch.to_string().into()).await.unwrap()
}

/// The ids of a batch that was accepted.
#[track_caller]
fn ids(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 202, "{}", reply.text());
    let receipts = reply.json().unwrap();
    let receipts = receipts["tasks"].as_array().unwrap().iter();
    receipts.map(|receipt| receipt["id"].as_str().unwrap().to_owned()).collect()
}

/// Asserts that it is refused by this name, and whether a repeat may help.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.problem_code().as_deref()), (status, Some(code)), "{}", reply.text());
    assert_eq!(reply.header("retry-after").is_some(), status == 503, "{}", reply.text());
}

/// How many messages a stream of the installation holds.
async fn stored(serving: &Serving, stream: &str) -> u64 {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let name = format!("{}_{stream}", serving.config.namespace());
    let mut stream = async_nats::jetstream::new(client).get_stream(name).await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_tasks_are_stored_together_and_each_runs_once() {
    let mut killed = Killed::new().await;
    let ids = ids(&post(&killed.serving, &json!({ "count": 1_000 })).await);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1_000);
    assert_eq!(stored(&killed.serving, "TASKS_chaos").await, 1_000);
    let _worker = killed.serving.worker().await;
    let last = killed.end(&ids[999]).await;
    assert_eq!(last["result"]["note"], "999", "in the order in which they were enqueued: {last}");
    let outcomes = killed.outcomes().await;
    assert_eq!((outcomes.len(), outcomes.values().sum::<usize>()), (1_000, 1_000));
    assert_eq!(killed.ran().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_cannot_be_enqueued_together_are_refused_by_name_and_none_is_stored() {
    let serving = Serving::api(|config| {
        config.plugin("payments").unwrap().plugin_set(
            "payments",
            "stripe_webhook_secrets",
            vec!["whsec_test"],
        )
    })
    .await;
    for (batch, why) in [
        (json!({ "count": 1_001 }), "At most 1000 tasks"),
        (json!({ "count": 3, "delay_ms": 60_000, "mixed": true }), "Some of them are delayed"),
        (json!({ "count": 3, "delay_ms": 60_000, "serial": "a" }), "Some of them are delayed"),
        (json!({ "count": 3, "unique": "a" }), "chaos.keyed has a unique key"),
        (json!({ "count": 3, "other_plugin": true }), "of more than one plugin: of chaos and of payments"),
    ] {
        let reply = post(&serving, &batch).await;
        assert_refused(&reply, 422, "invalid_batch");
        assert!(reply.json().unwrap()["detail"].as_str().unwrap().contains(why), "{}", reply.text());
    }
    let one_too_large = json!({ "count": 2, "bytes": limits::TASK_BODY_MAX_BYTES });
    assert_refused(&post(&serving, &one_too_large).await, 413, "body_too_large");
    let all_too_large = json!({ "count": 17, "bytes": limits::TASK_BODY_MAX_BYTES - 1_000 });
    assert_refused(&post(&serving, &all_too_large).await, 413, "body_too_large");
    for stream in ["TASKS_chaos", "TASKS_payments", "SCHEDULE"] {
        assert_eq!(stored(&serving, stream).await, 0, "{stream}");
    }
    assert!(ids(&post(&serving, &json!({ "count": 0 })).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_without_room_for_all_refuses_all() {
    let serving = Serving::api(|config| config.set("broker.queue_max_messages", 10)).await;
    ids(&post(&serving, &json!({ "count": 5 })).await);
    assert_refused(&post(&serving, &json!({ "count": 6 })).await, 503, "queue_full");
    assert_eq!(stored(&serving, "TASKS_chaos").await, 5);
    // What was refused is no repeat of anything, and what has room is taken.
    ids(&post(&serving, &json!({ "count": 5 })).await);
    assert_eq!(stored(&serving, "TASKS_chaos").await, 10);
    assert_refused(&post(&serving, &json!({ "count": 1 })).await, 503, "queue_full");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_without_room_for_all_refuses_all() {
    let serving = Serving::api(|config| config.set("stores.delayed_max_messages", 10)).await;
    let delayed = |count: u32| json!({ "count": count, "delay_ms": 60_000 });
    ids(&post(&serving, &delayed(6)).await);
    assert_refused(&post(&serving, &delayed(5)).await, 503, "schedule_full");
    assert_eq!(stored(&serving, "SCHEDULE").await, 6);
    ids(&post(&serving, &delayed(4)).await);
    assert_eq!(stored(&serving, "SCHEDULE").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_killed_between_the_messages_of_a_batch_has_stored_none_of_them_and_a_repeat_stores_all() {
    for (point, delay_ms, stream) in [
        ("in_batch", 0, "TASKS_chaos"),
        ("in_batch:10", 0, "TASKS_chaos"),
        ("in_batch:5", 60_000, "SCHEDULE"),
    ] {
        let serving = Serving::api(|config| config).await;
        let doomed = Launch::new(["api"]).config(&serving.config).env("CARDCAGE_FAILPOINT", point);
        let mut doomed = doomed.ready().await.unwrap();
        restored(&doomed).await;
        let batch = json!({ "count": 1_000, "delay_ms": delay_ms });
        let headers = [("idempotency-key", "all"), ("content-type", "application/json")];
        let http = doomed.http().unwrap();
        let reply = http.send(Method::POST, "/chaos/batch", &headers, batch.to_string().into()).await;
        assert!(reply.is_err(), "{point}: nobody is told anything");
        assert_eq!(doomed.wait_exit(soon()).await.unwrap().signal(), Some(9), "{point} is reached");
        assert_eq!(stored(&serving, stream).await, 0, "{point}");
        let ids = ids(&post_with_key(&serving, "all", &batch).await);
        assert_eq!((ids.len(), stored(&serving, stream).await), (1_000, 1_000), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_batch_waits_in_the_broker_and_each_of_its_tasks_runs_once() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let batch = json!({ "count": 60, "delay_ms": 4_000 });
    let ids = ids(&post(&killed.serving, &batch).await);
    let schedule = stored(&killed.serving, "SCHEDULE").await;
    assert_eq!((schedule, stored(&killed.serving, "TASKS_chaos").await), (60, 0));
    for id in &ids {
        let done = killed.serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    killed.end(&ids[59]).await;
    assert_eq!(killed.ran().len(), 60);
    assert_eq!(killed.outcomes().await.values().sum::<usize>(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_a_batch_with_its_key_answer_the_same_ids_and_store_nothing_more() {
    let serving = Serving::api(|config| config).await;
    let batch = json!({ "count": 20 });
    let first = post_with_key(&serving, "k", &batch).await;
    let repeats = futures_util::future::join_all((0..16).map(|_| post_with_key(&serving, "k", &batch))).await;
    for repeat in &repeats {
        assert_eq!(ids(repeat), ids(&first));
        assert_eq!(repeat.json().unwrap()["tasks"][0]["duplicate"], true);
    }
    let at_once =
        futures_util::future::join_all((0..16).map(|_| post_with_key(&serving, "new", &batch))).await;
    for reply in &at_once {
        assert_eq!(ids(reply), ids(&at_once[0]), "whoever comes first");
    }
    assert_eq!(stored(&serving, "TASKS_chaos").await, 40);
    let other = post_with_key(&serving, "k", &json!({ "count": 21 })).await;
    assert_refused(&other, 422, "idempotency_conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_refused_while_the_broker_hangs_is_stored_once_by_its_repeat() {
    let serving = Serving::api(|config| config).await;
    let batch = json!({ "count": 300 });
    serving.nats.pause().await.unwrap();
    let refused = post_with_key(&serving, "k", &batch).await;
    assert_refused(&refused, 503, "broker_unavailable");
    serving.nats.resume().unwrap();
    let accepted = eventually(soon(), "the repeat is accepted", async || {
        let reply = post_with_key(&serving, "k", &batch).await;
        (reply.status == 202).then_some(reply)
    });
    let all = ids(&accepted.await.unwrap());
    let distinct: HashSet<TaskId> = all.iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!((distinct.len(), stored(&serving, "TASKS_chaos").await), (300, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_refused_at_once_while_the_broker_is_away() {
    let mut serving = Serving::api(|config| config).await;
    serving.nats.stop().await.unwrap();
    let refused = eventually(soon(), "the API has noticed", async || {
        let started = std::time::Instant::now();
        let reply = post(&serving, &json!({ "count": 3 })).await;
        (started.elapsed() < Duration::from_secs(1)).then_some(reply)
    });
    assert_refused(&refused.await.unwrap(), 503, "broker_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_with_a_serial_key_and_tasks_of_another_kind_go_together() {
    let killed = Killed::new().await;
    let _worker: Cardcage = killed.serving.worker().await;
    let ids = ids(&post(&killed.serving, &json!({ "count": 2, "serial": "a" })).await);
    for id in &ids {
        let done = killed.end(id).await;
        assert_eq!(
            (&done["state"], &done["attempts"][0]["cause"]),
            (&json!("succeeded"), &json!("succeeded"))
        );
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_enqueued_together_in_a_task_are_a_part_of_its_success() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let parent = async |order: Value| {
        let reply = killed.serving.http.post_json("/chaos/task", &order).await.unwrap();
        let id = reply.task_id().unwrap();
        (id.clone(), killed.end(&id).await)
    };
    let all = json!({ "mode": "fail_until", "times": 2, "children": 3, "together": true });
    let (succeeded, done) = parent(all).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let (_, failed) = parent(json!({ "mode": "fail_for_good", "children": 3, "together": true })).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let (_, refused) = parent(json!({ "mode": "ok", "children": 1_001, "together": true })).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("invalid_batch"), "{refused}");
    let children = (0..3).map(|n| TaskId::derive(succeeded.parse().unwrap(), n).to_string());
    for child in children.collect::<Vec<_>>() {
        assert_eq!(killed.end(&child).await["state"], "succeeded");
    }
    assert_eq!(killed.outcomes().await.len(), 6, "three parents, and the children of one");
}
