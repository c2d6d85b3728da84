//! Everything that the broker keeps beside the queues has a bound, and what happens there is said and seen.

use std::time::Duration;

use bytes::Bytes;
use cardcage_harness::{Launch, Output, Reply, eventually};
use cardcage_protocol::{State, TaskId, TaskRecord};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::serving::{Serving, assert_problem, chaos_envelope, soon};

async fn run(serving: &Serving, arguments: &[&str]) -> Output {
    let output = Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    output
}

/// One store, as `queues list` tells of it.
async fn store(serving: &Serving, name: &str) -> Value {
    let output = run(serving, &["queues", "list", "--json"]).await;
    let list: Value = serde_json::from_str(&output.stdout).unwrap();
    let stores = list["stores"].as_array().unwrap();
    stores
        .iter()
        .find(|store| store["store"] == name)
        .unwrap_or_else(|| panic!("{name} is in {list}"))
        .clone()
}

async fn accepted(serving: &Serving, path: &str, order: &Value) -> String {
    let reply = serving.http.post_json(path, order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// A handler has passed the host's problem on.
#[track_caller]
fn assert_full(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.problem_code().as_deref(), Some("schedule_full"), "{}", reply.text());
}

const LATER: &str = "/chaos/delayed?delay_ms=3600000";

#[tokio::test(flavor = "multi_thread")]
async fn full_schedule_refuses_delayed_tasks_and_takes_the_retries_of_running_ones() {
    let bound = 12_u64;
    let (serving, _worker) = Serving::both(|config| {
        config
            .set("stores.delayed_max_messages", i64::try_from(bound).unwrap())
            .set("tasks.backoff", "100ms..1s")
    })
    .await;
    let order = json!({ "mode": "ok" });
    // All at once: a host that is asked often does not let more in than one that is asked seldom.
    let replies = join_all((0..40).map(|_| serving.http.post_json(LATER, &order))).await;
    let mut stored: Vec<String> = Vec::new();
    for reply in replies {
        let reply = reply.unwrap();
        match reply.status {
            202 => stored.push(reply.task_id().unwrap()),
            _ => assert_full(&reply),
        }
    }
    assert!(!stored.is_empty() && stored.len() as u64 <= bound, "{} of {bound}", stored.len());
    // One after the other, up to the bound and no further.
    let refused = loop {
        let reply = serving.http.post_json(LATER, &order).await.unwrap();
        if reply.status == 202 {
            stored.push(reply.task_id().unwrap());
        } else if store(&serving, "delayed").await["messages"] == bound {
            break reply;
        }
    };
    assert_full(&refused);
    assert_eq!(stored.len() as u64, bound);
    let told = run(&serving, &["queues", "list"]).await.stderr;
    assert!(
        told.contains("the store delayed is full (12 of 12 messages), and refuses what is new"),
        "{told}"
    );

    // What needs no room, and what was promised, goes on.
    let retried = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_until", "times": 2 })).await;
    let done = serving.http.final_task(&retried, soon()).await.unwrap();
    assert_eq!(
        (&done["state"], done["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 2),
        "{done}"
    );

    run(&serving, &["tasks", "cancel", &stored[0]]).await;
    let freed = eventually(soon(), "there is room again", async || {
        (serving.http.post_json(LATER, &order).await.ok()?.status == 202).then_some(())
    });
    freed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn oldest_letters_and_records_go_first_at_their_bounds_and_no_task_is_held_up() {
    let (serving, _worker) = Serving::both(|config| {
        config.set("stores.dead_max_messages", 2).set("stores.records_max_messages", 1_000)
    })
    .await;
    let broker = serving.broker(Duration::from_secs(30)).await;
    let mut old = Vec::new();
    for _ in 0..1_000 {
        let envelope = chaos_envelope(TaskId::generate(), "chaos", Bytes::from_static(b"{}"));
        let mut record = TaskRecord::new(&envelope, State::Succeeded);
        broker.write_record(&mut record, 0).await.unwrap();
        old.push(envelope.id);
    }
    let mut failed = Vec::new();
    for _ in 0..4 {
        let id = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
        assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "failed");
        failed.push(id);
    }
    let status = async |id: &str| serving.get(&format!("/tasks/{id}")).await.status;
    assert_eq!(status(&failed[0]).await, 200, "the latest are kept");
    // Four records came, and for a moment a note of what they owe.
    assert_eq!(status(&old[5].to_string()).await, 200, "no more than is needed goes");
    assert_eq!(status(&old[3].to_string()).await, 404, "the oldest are gone");

    let letters = || async {
        let output = run(&serving, &["dead", "list", "--json"]).await;
        let list: Value = serde_json::from_str(&output.stdout).unwrap();
        let ids: Vec<String> = list["letters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        ids
    };
    eventually(soon(), "the last two letters are kept", async || {
        (letters().await == [failed[3].clone(), failed[2].clone()]).then_some(())
    })
    .await
    .unwrap();
    let dead = store(&serving, "dead").await;
    assert_eq!(
        (&dead["messages"], &dead["max_messages"], &dead["when_full"]),
        (&json!(2), &json!(2), &json!("drops_oldest"))
    );
    // The last note's place is taken by one more record, which owes nothing.
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    let told = run(&serving, &["queues", "list"]).await.stderr;
    assert!(told.contains("the store records is full (1000 of 1000 messages), and its oldest"), "{told}");
    assert!(told.contains("the store dead is full"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_key_store_refuses_new_keys_and_still_knows_the_old_ones() {
    let serving = Serving::api(|config| config.set("stores.idempotency_max_messages", 2)).await;
    let body = json!({ "mode": "ok" }).to_string();
    let post = async |key: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        serving
            .http
            .send(http::Method::POST, "/chaos/task", &headers, Bytes::from(body.clone()))
            .await
            .unwrap()
    };
    let first = post("a").await;
    assert_eq!((first.status, post("b").await.status), (202, 202));
    assert_problem(&post("c").await, 503, "keys_full");
    let again = post("a").await;
    assert_eq!(
        (again.status, again.task_id().unwrap()),
        (202, first.task_id().unwrap()),
        "a known key needs no room"
    );
    accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_that_differs_from_the_brokers_refuses_the_start_by_the_options_name() {
    let (serving, worker) = Serving::both(|config| config.set("stores.dead_max_messages", 5)).await;
    drop(worker);
    let other = serving.config.clone().set("stores.dead_max_messages", 6);
    let output = Launch::new(["worker"]).config(&other).run(soon()).await.unwrap();
    let told = "stores.dead_max_messages is 5 on the broker and 6 in the settings";
    assert!(!output.status.success() && output.stderr.contains(told), "{output:?}");
}
