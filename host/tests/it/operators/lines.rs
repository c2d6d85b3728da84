//! Tasks that wait for their serial key: to an operator they are queued, and are listed, explained, counted, cancelled and
//! purged as any others.

use cardcage_harness::eventually;
use serde_json::{Value, json};

use super::{accepted, json, quick, run};
use crate::keys::{leaves_nothing, lines};
use crate::serving::{Serving, child, signal, soon};

/// Enqueues a task under the one key of these tests.
async fn keyed(serving: &Serving, order: Value) -> String {
    let mut order = order;
    order["serial"] = json!("o-1");
    accepted(serving, "/chaos/keyed", &order).await
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

/// Waits until so many stand in lines.
async fn wait_in_line(serving: &Serving, count: u64) {
    let mut lines = lines(serving).await;
    eventually(soon(), &format!("{count} stand in line"), async || {
        (lines.info().await.ok()?.state.messages == count).then_some(())
    })
    .await
    .unwrap();
}

async fn queue(serving: &Serving) -> Value {
    let list = json(serving, &["queues", "list", "--plugin", "chaos"]).await;
    let found = list["queues"].as_array().unwrap().iter().find(|queue| queue["task"] == "keyed");
    found.unwrap_or_else(|| panic!("chaos.keyed is in {list}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_in_a_line_are_listed_explained_counted_cancelled_and_purged() {
    let (serving, _worker) = Serving::both(quick).await;
    let holder = keyed(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    running(&serving, &holder).await;
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(keyed(&serving, json!({ "mode": "ok" })).await);
        wait_in_line(&serving, n).await;
    }

    let list = json(&serving, &["tasks", "list", "--task", "keyed"]).await;
    let tasks = list["tasks"].as_array().unwrap();
    let states: Vec<_> = tasks.iter().map(|task| (&task["id"], &task["state"])).collect();
    let (queued, is_running) = (json!("queued"), json!("running"));
    let ids: Vec<_> = waiting.iter().chain([&holder]).map(|id| json!(id)).collect();
    assert_eq!(tasks.len(), 4, "{list}");
    for (n, id) in ids.iter().enumerate() {
        let state = if n < 3 { &queued } else { &is_running };
        assert!(states.contains(&(id, state)), "{id}: {list}");
    }
    let list = json(&serving, &["tasks", "list", "--state", "queued"]).await;
    assert_eq!(list["tasks"].as_array().unwrap().len(), 3, "{list}");

    let why = json(&serving, &["tasks", "why", &waiting[1]]).await;
    assert_eq!((&why["state"], &why["code"]), (&json!("queued"), &json!("serial_key")), "{why}");
    let sentence = why["why"].as_str().unwrap();
    let holds = format!("waiting for its serial key: task {holder} has the turn");
    assert!(sentence.starts_with(&holds) && sentence.contains(", and 1 stand before it"), "{sentence}");

    let amounts = |queue: &Value| ["waiting", "leased", "in_line"].map(|name| queue[name].as_u64().unwrap());
    assert_eq!(amounts(&queue(&serving).await), [0, 1, 3]);
    let dry = json(&serving, &["queues", "purge", "chaos.keyed", "--dry-run"]).await;
    assert_eq!((&dry["count"], &dry["held"]), (&json!(3), &json!(1)), "{dry}");

    let cancelled = json(&serving, &["tasks", "cancel", &waiting[0]]).await;
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    wait_in_line(&serving, 2).await;
    let why = json(&serving, &["tasks", "why", &waiting[1]]).await;
    assert!(why["why"].as_str().unwrap().contains(", and 0 stand before it"), "{why}");

    let purged = json(&serving, &["queues", "purge", "chaos.keyed", "--yes"]).await;
    assert_eq!((&purged["cancelled"], &purged["held"]), (&json!(2), &json!(1)), "{purged}");
    wait_in_line(&serving, 0).await;
    for id in &waiting[1..] {
        let done = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
        assert_eq!(
            (&done["state"], &done["error"]["code"]),
            (&json!("cancelled"), &json!("purged")),
            "{done}"
        );
    }
    assert_eq!(json(&serving, &["tasks", "cancel", &holder]).await["cancel_requested"], true);
    assert_eq!(serving.http.final_task(&holder, soon()).await.unwrap()["state"], "cancelled");
    leaves_nothing(&serving).await;
}

/// A lease, and so a sweep, for which nothing in these tests waits.
const LEASE_MS: u32 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn task_that_is_cancelled_or_purged_while_all_workers_are_down_releases_its_keys_at_once() {
    for command in [&["tasks", "cancel"][..], &["queues", "purge", "chaos.keyed", "--yes"]] {
        let (serving, mut worker) = Serving::both(|config| config.set("tasks.lease_ms", LEASE_MS)).await;
        let holder = keyed(&serving, json!({ "mode": "sleep", "ms": 600_000, "unique": "a" })).await;
        running(&serving, &holder).await;
        let next = keyed(&serving, json!({ "mode": "ok" })).await;
        wait_in_line(&serving, 1).await;
        let pid = child(&worker);
        worker.kill9();
        signal(pid, cardcage_harness::Signal::KILL);

        let is_purge = command[0] == "queues";
        let arguments = if is_purge { command.to_vec() } else { [command, &[holder.as_str()]].concat() };
        let output = run(&serving, &arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(serving.get(&format!("/tasks/{holder}")).await.json().unwrap()["state"], "cancelled");
        wait_in_line(&serving, 0).await;
        let next =
            if is_purge { keyed(&serving, json!({ "mode": "ok", "unique": "a" })).await } else { next };
        let _worker = serving.worker().await;
        assert_eq!(serving.http.final_task(&next, soon()).await.unwrap()["state"], "succeeded");
        leaves_nothing(&serving).await;
    }
}
