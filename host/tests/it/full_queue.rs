//! A queue that is full of nothing but tasks that wait for room in it makes room all the same.

use crate::declarations::{accepted, most_at_once, outcomes, quick};
use crate::keys::running;
use crate::killed_between_writes::Killed;
use crate::serving::{Serving, assert_problem, soon};
use cardcage_harness::{Launch, eventually};
use cardcage_protocol::TaskId;
use cardcage_protocol::exhausted::Exhausted;
use serde_json::{Value, json};
use std::collections::HashMap;

async fn messages(serving: &Serving, stream: &str) -> u64 {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let name = format!("{}_{stream}", serving.config.namespace());
    let stream = async_nats::jetstream::new(client).get_stream(name).await.unwrap();
    stream.get_info().await.unwrap().state.messages
}

async fn run(serving: &Serving, arguments: &[&str]) {
    let done = Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap();
    assert_eq!(done.status.code(), Some(0), "{arguments:?}: {done:?}");
}

/// Fills the queue with this order, and waits for a worker to do all that it has; answers the tasks.
async fn filled(killed: &Killed, path: &str, order: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(accepted(&killed.serving, path, order).await);
    }
    let refused = killed.serving.http.post_json(path, order).await.unwrap();
    assert_problem(&refused, 503, "queue_full");
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_full_of_tasks_whose_children_need_room_in_it_is_worked_off_and_each_child_runs_once() {
    let mut killed = Killed::with(|config| config.set("broker.queue_max_messages", 6)).await;
    let parents = filled(&killed, "/chaos/task", &json!({ "mode": "ok", "children": 2 })).await;
    let _worker = killed.serving.worker().await;
    let children_of = |parent: &String| {
        let parent: TaskId = parent.parse().unwrap();
        [TaskId::derive(parent, 0).to_string(), TaskId::derive(parent, 1).to_string()]
    };
    let all: Vec<String> = parents.iter().flat_map(children_of).chain(parents.iter().cloned()).collect();
    for id in &all {
        assert_eq!(killed.end(id).await["state"], "succeeded");
    }
    let once: HashMap<String, usize> = all.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(killed.outcomes().await, once);
    assert_eq!(killed.ran().len(), once.len(), "{:?}", killed.ran());
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_full_of_dying_tasks_whose_hooks_need_room_in_it_is_worked_off_and_each_hook_runs_once() {
    let mut killed = Killed::with(|config| config.set("broker.queue_max_messages", 6)).await;
    let doomed = filled(&killed, "/chaos/doomed", &json!({ "mode": "fail_for_good" })).await;
    let _worker = killed.serving.worker().await;
    let mut once = HashMap::new();
    for id in doomed {
        let hook = Exhausted::id_of(id.parse().unwrap()).to_string();
        assert_eq!(killed.end(&hook).await["state"], "succeeded");
        assert_eq!(killed.end(&id).await["state"], "failed");
        once.extend([(id, 1), (hook, 1)]);
    }
    assert_eq!(messages(&killed.serving, "DEAD").await, 6);
    assert_eq!(killed.outcomes().await, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn line_of_a_serial_key_goes_on_though_the_queue_is_full_of_tasks_of_that_key() {
    let (serving, _worker) = Serving::both(|config| quick(config).set("broker.queue_max_messages", 3)).await;
    let short = json!({ "mode": "sleep", "ms": 100, "serial": "o-1" });
    let first = json!({ "mode": "sleep", "ms": 6_000, "serial": "o-1" });
    let first = accepted(&serving, "/chaos/keyed", &first).await;
    running(&serving, &first).await;
    let mut ids = vec![first.clone(), accepted(&serving, "/chaos/keyed", &short).await];
    eventually(soon(), "the second one waits in the line", async || {
        (messages(&serving, "LINES").await == 1).then_some(())
    })
    .await
    .unwrap();
    // The first one's message, and two that nobody gets: then no place is left for the second one to come back to.
    run(&serving, &["queues", "pause", "chaos.keyed"]).await;
    for _ in 0..2 {
        ids.push(accepted(&serving, "/chaos/keyed", &short).await);
    }
    let refused = serving.http.post_json("/chaos/keyed", &short).await.unwrap();
    assert_problem(&refused, 503, "queue_full");
    assert_eq!(serving.http.final_task(&first, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!((messages(&serving, "LINES").await, messages(&serving, "TASKS_chaos").await), (1, 3));
    run(&serving, &["queues", "resume", "chaos.keyed"]).await;
    let done = outcomes(&serving, &ids).await;
    assert!(done.iter().all(|task| task["state"] == "succeeded"), "{done:?}");
    assert_eq!(most_at_once(&done), 1);
    crate::keys::leaves_nothing(&serving).await;
}
