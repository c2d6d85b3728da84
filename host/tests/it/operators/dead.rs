//! Dead letters: what they keep, and what becomes of them.

use bytes::Bytes;
use cardcage::broker::{DeadLetter, replay_id};
use cardcage_harness::{Launch, eventually};
use cardcage_protocol::{TaskEnvelope, TaskId};
use serde_json::{Value, json};

use super::{WAIT, accepted, broker, envelope, json, quick, run, wait_messages};
use crate::serving::{Serving, soon, wait_metric};

/// Stores letters as a worker would.
async fn letters(serving: &Serving, tasks: &[TaskEnvelope], code: &str) {
    let broker = broker(serving).await;
    for task in tasks {
        let letter = DeadLetter {
            envelope: task,
            reason: "gave up",
            code,
            error: None,
            attempts: &[],
            attempts_omitted: 0,
        };
        broker.publish_dead(letter, WAIT).await.unwrap();
    }
}

fn many(count: usize) -> Vec<TaskEnvelope> {
    (0..count).map(|_| envelope("chaos", &json!({ "mode": "ok" }))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_keeps_envelope_reason_and_every_attempt() {
    let (serving, _worker) = Serving::both(quick).await;
    let (root, parent) = (TaskId::generate(), TaskId::generate());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({ "mode": "fail", "ms": 7 });
    let task = TaskEnvelope {
        root_id: root,
        parent_id: Some(parent),
        traceparent: Some(trace.into()),
        idempotency_key: Some("order-7".into()),
        ..envelope("short", &body)
    };
    broker(&serving).await.publish_task(&task, WAIT).await.unwrap();
    let id = task.id.to_string();
    serving.http.final_task(&id, soon()).await.unwrap();
    wait_messages(&serving, "DEAD", 1).await;

    let letter = json(&serving, &["dead", "show", &id]).await;
    assert_eq!(
        (&letter["plugin"], &letter["task"], &letter["code"]),
        (&json!("chaos"), &json!("short"), &json!("error"))
    );
    assert_eq!(letter["body"], body);
    assert_eq!(letter["headers"]["traceparent"], trace);
    assert_eq!(letter["headers"]["Cardcage-Idempotency-Key"], "order-7");
    assert_eq!((&letter["root_id"], &letter["parent_id"]), (&json!(root), &json!(parent)));
    assert_eq!(letter["enqueued_at"], json!(task.enqueued_at), "retries keep it");
    let attempts = letter["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3, "{letter}");
    for (n, attempt) in (1..).zip(attempts) {
        assert_eq!((&attempt["n"], &attempt["cause"]), (&json!(n), &json!("error")));
        assert_eq!(attempt["error"]["details"]["attempt"], n, "details stay: {attempt}");
    }

    let text = run(&serving, &["dead", "show", &id]).await.stdout;
    for word in ["chaos", "short", "all 3 attempts are used up", "failed as told", "\"mode\": \"fail\""] {
        assert!(text.contains(word), "{word} is in {text}");
    }
    let list = json(&serving, &["dead", "list"]).await;
    assert_eq!(
        (&list["letters"][0]["id"], &list["letters"][0]["attempts"], &list["complete"]),
        (&json!(id), &json!(3), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_makes_a_new_task_whose_parent_is_the_old_one_and_removes_the_letter() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    serving.http.final_task(&id, soon()).await.unwrap();
    wait_messages(&serving, "DEAD", 1).await;

    let replayed = json(&serving, &["dead", "replay", &id]).await;
    assert_eq!((&replayed["count"], &replayed["replayed"][0]["id"]), (&json!(1), &json!(id)));
    let new = replayed["replayed"][0]["task"].as_str().unwrap().to_owned();
    assert_ne!(new, id);
    let done = serving.http.final_task(&new, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["parent_id"]), (&json!("failed"), &json!(id)), "{done}");
    wait_messages(&serving, "DEAD", 1).await;
    let letter = json(&serving, &["dead", "show", &new]).await;
    assert_eq!(
        (&letter["root_id"], &letter["parent_id"]),
        (&json!(id), &json!(id)),
        "the chain stays visible"
    );

    let gone = run(&serving, &["dead", "replay", &id]).await;
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(gone.stderr.contains("there is no dead letter"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_that_was_killed_and_is_made_again_runs_nothing_twice() {
    const COUNT: usize = 600;
    let serving = Serving::api(quick).await;
    let tasks = many(COUNT);
    letters(&serving, &tasks, "failed").await;
    let mut first =
        Launch::new(["dead", "replay", "--all", "--yes"]).config(&serving.config).start().unwrap();
    let left = eventually(soon(), "some are replayed", async || {
        let list = json(&serving, &["dead", "replay", "--all", "--dry-run"]).await;
        let left = list["count"].as_u64().unwrap();
        (left < COUNT as u64).then_some(left)
    })
    .await
    .unwrap();
    first.kill9();
    // The kill may have come too late; then there is nothing to be done, which must be right as well.
    let second = json(&serving, &["dead", "replay", "--all", "--yes"]).await;
    assert!(second["count"].as_u64().unwrap() <= left, "{second}");
    wait_messages(&serving, "DEAD", 0).await;
    wait_messages(&serving, "TASKS_chaos", COUNT as u64).await;

    let worker = serving.worker().await;
    wait_messages(&serving, "TASKS_chaos", 0).await;
    let started = format!("cardcage_tasks_total{{what=\"started\"}} {COUNT}");
    wait_metric(&worker, &started).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_whose_letter_was_left_behind_is_known_by_its_task_and_not_by_the_brokers_window_alone() {
    let (serving, worker) = Serving::both(quick).await;
    let dead = envelope("chaos", &json!({ "mode": "ok" }));
    letters(&serving, std::slice::from_ref(&dead), "failed").await;
    // As a replay leaves it that was killed between its two writes long ago: without a message id that is remembered.
    let made =
        TaskEnvelope { id: replay_id(dead.id), parent_id: Some(dead.id), root_id: dead.id, ..dead.clone() };
    let mut headers = async_nats::HeaderMap::new();
    made.for_each_header(|name, value| headers.insert(name, value.as_str()));
    let subject = broker(&serving).await.subjects().task(&made.address());
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    context.publish_with_headers(subject, headers, made.body.clone()).await.unwrap().await.unwrap();
    serving.http.final_task(&made.id.to_string(), soon()).await.unwrap();

    let replayed = json(&serving, &["dead", "replay", &dead.id.to_string()]).await;
    assert_eq!(replayed["replayed"][0]["task"], json!(made.id));
    wait_messages(&serving, "DEAD", 0).await;
    wait_messages(&serving, "TASKS_chaos", 0).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_are_counted_first_and_only_those_that_were_meant_are_touched() {
    let serving = Serving::api(quick).await;
    letters(&serving, &many(3), "lms_down").await;
    letters(&serving, &[envelope("short", &json!({ "mode": "ok" }))], "lms_down").await;
    letters(&serving, &many(2), "timeout").await;
    let count = |value: Value| value["count"].as_u64().unwrap();
    let dry = ["dead", "purge", "--code", "lms_down", "--task", "chaos", "--dry-run"];
    assert_eq!(count(json(&serving, &dry).await), 3);
    assert_eq!(count(json(&serving, &["dead", "replay", "--all", "--limit", "4", "--dry-run"]).await), 4);
    assert_eq!(count(json(&serving, &["dead", "purge", "--plugin", "hello", "--dry-run"]).await), 0);
    assert_eq!(count(json(&serving, &["dead", "purge", "--since", "1h", "--dry-run"]).await), 6);
    assert_eq!(count(json(&serving, &["dead", "purge", "--since", "0s", "--dry-run"]).await), 0);

    let unsure = run(&serving, &["dead", "purge", "--code", "lms_down"]).await;
    assert_eq!(unsure.status.code(), Some(2), "{unsure:?}");
    assert!(
        unsure.stdout.contains("4 dead letters would be purged") && unsure.stderr.contains("--yes"),
        "{unsure:?}"
    );
    let nothing_said = run(&serving, &["dead", "purge", "--yes"]).await;
    assert_eq!(nothing_said.status.code(), Some(2), "{nothing_said:?}");
    assert!(nothing_said.stderr.contains("--all"), "{nothing_said:?}");
    wait_messages(&serving, "DEAD", 6).await;

    assert_eq!(
        count(json(&serving, &["dead", "purge", "--code", "lms_down", "--task", "chaos", "--yes"]).await),
        3
    );
    wait_messages(&serving, "DEAD", 3).await;
    assert_eq!(count(json(&serving, &["dead", "replay", "--code", "timeout", "--yes"]).await), 2);
    wait_messages(&serving, "DEAD", 1).await;
    wait_messages(&serving, "TASKS_chaos", 2).await;
    let cut = run(&serving, &["dead", "list", "--limit", "0"]).await;
    assert!(cut.stderr.contains("there are more"), "a cut list says so: {cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_cannot_be_replayed_are_passed_over_and_take_no_others_place() {
    let serving = Serving::api(quick).await;
    // As they are where a task's message was gone before its letter was written.
    let bodiless: Vec<_> =
        many(3).into_iter().map(|task| TaskEnvelope { body: Bytes::new(), ..task }).collect();
    letters(&serving, &bodiless, "failed").await;
    letters(&serving, &many(4), "failed").await;
    let replay = async |more: &[&str]| {
        let output = run(&serving, &[&["dead", "replay", "--all", "--yes", "--json"], more].concat()).await;
        let told = serde_json::from_str::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code(), told)
    };
    let skipped = |told: &Value| {
        let mut ids: Vec<_> = told["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let mut expected: Vec<_> = bodiless.iter().map(|task| task.id.to_string()).collect();
    expected.sort();
    // The oldest first, and two that can be.
    let (code, told) = replay(&["--limit", "2"]).await;
    assert_eq!((code, &told["count"], skipped(&told)), (Some(1), &json!(2), expected.clone()), "{told}");
    let error = told["skipped"][0]["error"].as_str().unwrap();
    assert!(error.contains("its body is not in the letter"), "{told}");
    wait_messages(&serving, "TASKS_chaos", 2).await;
    let (code, told) = replay(&[]).await;
    assert_eq!((code, &told["count"], skipped(&told)), (Some(1), &json!(2), expected), "{told}");
    wait_messages(&serving, "TASKS_chaos", 4).await;
    wait_messages(&serving, "DEAD", 3).await;
}
