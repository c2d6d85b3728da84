//! What a task's handler enqueues: with its success, or at once.

use crate::killed_between_writes::Killed;
use crate::serving::{chaos_envelope, child as child_of, pause, signal, soon, wait_metric};
use bytes::Bytes;
use cardcage_harness::{Deadline, Signal, eventually};
use cardcage_protocol::{FollowUp, State, TaskId, TaskRecord, Timestamp};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

async fn accepted(killed: &Killed, order: &Value) -> String {
    let reply = killed.serving.http.post_json("/chaos/task", order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

fn child(parent: &str, n: u32) -> String {
    TaskId::derive(parent.parse().unwrap(), n).to_string()
}

fn tasks_that_ran(killed: &Killed) -> HashSet<String> {
    killed.ran().iter().map(|line| line.split_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_attempt_that_succeeds_has_its_children_published_and_they_know_their_tree() {
    let killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let id = accepted(&killed, &json!({ "mode": "fail_until", "times": 3, "children": 2 })).await;
    killed.end(&id).await;
    let ids = [child(&id, 0), child(&id, 1)];
    for child in &ids {
        let done = killed.serving.http.final_task(child, soon()).await.unwrap();
        assert_eq!(done["state"], "succeeded", "{done}");
        let broker = killed.serving.broker(Duration::from_secs(3)).await;
        let (record, _) = broker.read_record(child.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(
            (record.root_id.to_string(), record.parent_id.unwrap().to_string()),
            (id.clone(), id.clone())
        );
    }
    let all = HashSet::from([id.clone(), ids[0].clone(), ids[1].clone()]);
    assert_eq!(tasks_that_ran(&killed), all, "two earlier attempts staged too");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_fails_or_discards_itself_enqueues_nothing() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    for mode in ["fail_for_good", "discard"] {
        let id = accepted(&killed, &json!({ "mode": mode, "children": 2 })).await;
        killed.end(&id).await;
    }
    assert_eq!(killed.outcomes().await.len(), 2);
    assert!(killed.ran().is_empty(), "{:?}", killed.ran());
}

#[tokio::test(flavor = "multi_thread")]
async fn children_published_at_once_stay_whatever_becomes_of_their_parent() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let id = accepted(&killed, &json!({ "mode": "fail_for_good", "children": 2, "now": true })).await;
    killed.end(&id).await;
    assert_eq!(tasks_that_ran(&killed).len(), 2);
    assert_eq!(killed.outcomes().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_that_stages_too_many_is_told_by_name_and_publishes_none() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let id = accepted(&killed, &json!({ "mode": "ok", "children": 1_001 })).await;
    let done = killed.end(&id).await;
    assert_eq!(done["state"], "failed");
    assert!(done["error"]["message"].as_str().unwrap().contains("too_many_children"), "{done}");
    assert_eq!(killed.outcomes().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_completion_of_a_lost_lease_is_refused_with_its_children() {
    let mut killed = Killed::new().await;
    let paused = killed.serving.worker().await;
    let id = accepted(&killed, &json!({ "mode": "sleep", "ms": 1_500, "times": 1, "children": 2 })).await;
    eventually(soon(), "the task runs", async || {
        let task = killed.serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    let stalled = child_of(&paused);
    // The supervisor as well: it renews the lease for as long as the child's heartbeat is fresh.
    paused.pause().await.unwrap();
    pause(stalled).await;
    let _other = killed.serving.worker().await;
    killed.serving.http.final_task(&id, Deadline::seconds(60)).await.unwrap();
    signal(stalled, Signal::CONT);
    paused.signal(Signal::CONT).unwrap();
    wait_metric(&paused, "cardcage_tasks_total{what=\"refused\"} 1").await;
    for task in [child(&id, 0), child(&id, 1), id.clone()] {
        killed.end(&task).await;
    }
    let outcomes = killed.outcomes().await;
    assert_eq!(outcomes.len(), 3, "the parent and two children: {outcomes:?}");
    assert!(outcomes.values().all(|count| *count == 1), "{outcomes:?}");
    let ran = killed.ran();
    let of = |id: &str| ran.iter().filter(|line| line.starts_with(id)).count();
    assert_eq!((of(&child(&id, 0)), of(&child(&id, 1))), (1, 1), "{ran:?}");
    assert!(of(&id) > 1, "the late one came to its end as well: {ran:?}");
}

/// The number of the last message in chaos' queue.
async fn last_queued(killed: &Killed) -> u64 {
    let client = async_nats::connect(killed.serving.nats.url()).await.unwrap();
    let name = format!("{}_TASKS_chaos", killed.serving.config.namespace());
    let mut stream = async_nats::jetstream::new(client).get_stream(name).await.unwrap();
    stream.info().await.unwrap().state.last_sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn children_owed_for_longer_than_the_broker_remembers_publishes_are_looked_for_first() {
    let killed = Killed::new().await;
    let broker = killed.serving.broker(Duration::from_secs(3)).await;
    // What a worker leaves that dies between its last publish and the acknowledgement, ten minutes ago.
    let envelope = |id: TaskId| chaos_envelope(id, "chaos", Bytes::from_static(b"{\"mode\":\"ok\"}"));
    let parent = envelope(TaskId::generate());
    let long_ago = Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 600_000);
    let mut record = TaskRecord::new(&parent, State::Succeeded);
    record.finished_at = Some(long_ago);
    let staged = json!({ "plugin": "chaos", "version": "0.1.0", "major": 0, "task": "chaos", "body": { "mode": "ok" } });
    for _ in 0..2 {
        record.children.push(serde_json::from_value(staged.clone()).unwrap());
    }
    record.follow_up.push(FollowUp::Children);
    broker.write_record(&mut record, 0).await.unwrap();
    let first = TaskId::derive(parent.id, 0);
    let mut ended = TaskRecord::new(&envelope(first), State::Succeeded);
    ended.finished_at = Some(long_ago);
    broker.write_record(&mut ended, 0).await.unwrap();
    broker.publish_task(&parent, Duration::from_secs(10)).await.unwrap();
    let _worker = killed.serving.worker().await;
    let second = killed.serving.http.final_task(&child(&parent.id.to_string(), 1), soon()).await.unwrap();
    assert_eq!(second["state"], "succeeded");
    killed.end(&parent.id.to_string()).await;
    assert_eq!(last_queued(&killed).await, 2, "the parent and the second child");
}
