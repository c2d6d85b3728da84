//! Limits that an operator sets while everything runs.

use cardcage_harness::{Cardcage, Launch, Output, eventually};
use serde_json::{Value, json};

use crate::declarations::{accepted, cap_of_short, most_at_once, outcomes, quick};
use crate::serving::{Serving, restored, soon};

async fn limit(serving: &Serving, arguments: &[&str]) -> Output {
    let command = [&["queues", "limit"], arguments].concat();
    Launch::new(command).config(&serving.config).run(soon()).await.unwrap()
}

async fn set(serving: &Serving, arguments: &[&str]) -> Value {
    let done = limit(serving, &[arguments, &["--json"]].concat()).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

/// Waits until the worker has taken up so many settings.
async fn taken_up(worker: &Cardcage, times: usize) {
    eventually(soon(), "the worker takes up what was set", async || {
        let told = worker.stderr().matches("an operator has set a task's limits").count();
        (told == times).then_some(())
    })
    .await
    .unwrap();
}

async fn posted(serving: &Serving, count: usize, order: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(accepted(serving, "/chaos/short", order).await);
    }
    ids
}

/// When they were started for the first time, the earliest first: Unix time in ms.
fn starts(tasks: &[Value]) -> Vec<u64> {
    let text = |task: &Value| task["attempts"][0]["started_at"].as_str().unwrap().to_owned();
    let unix_ms = |task: &Value| text(task).parse::<cardcage_protocol::Timestamp>().unwrap().unix_ms();
    let mut starts: Vec<u64> = tasks.iter().map(unix_ms).collect();
    starts.sort_unstable();
    starts
}

#[tokio::test(flavor = "multi_thread")]
async fn cap_that_is_set_holds_over_all_workers_at_once_and_until_it_is_lifted() {
    let (serving, first) = Serving::both(quick).await;
    let second = serving.worker().await;
    let told = set(&serving, &["chaos.short", "--max-running", "2"]).await;
    assert_eq!((&told["set_max_running"], &told["set_rate"]), (&json!(2), &Value::Null), "{told}");
    taken_up(&first, 1).await;
    taken_up(&second, 1).await;
    eventually(soon(), "the consumer is capped", async || (cap_of_short(&serving).await == 2).then_some(()))
        .await
        .unwrap();
    let order = json!({ "mode": "sleep", "ms": 200 });
    assert_eq!(most_at_once(&outcomes(&serving, &posted(&serving, 8, &order).await).await), 2);

    // Whoever starts now declares nothing of the kind, and does not undo it.
    drop((first, second));
    let third = serving.worker().await;
    taken_up(&third, 1).await;
    assert_eq!(cap_of_short(&serving).await, 2);
    let list = Launch::new(["queues", "list", "--json"]).config(&serving.config).run(soon()).await.unwrap();
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let queues = list["queues"].as_array().unwrap();
    let short = queues.iter().find(|queue| queue["task"] == "short").unwrap();
    assert_eq!(short["set_max_running"], 2, "{short}");

    set(&serving, &["chaos.short", "--max-running", "declared"]).await;
    eventually(soon(), "the cap is as declared", async || (cap_of_short(&serving).await > 2).then_some(()))
        .await
        .unwrap();
    assert!(most_at_once(&outcomes(&serving, &posted(&serving, 8, &order).await).await) > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_that_is_set_holds_for_a_task_that_declares_none_also_after_a_restart() {
    let (serving, worker) = Serving::both(quick).await;
    set(&serving, &["chaos.short", "--rate", "5/s"]).await;
    taken_up(&worker, 1).await;
    drop(worker);
    let worker = serving.worker().await;
    taken_up(&worker, 1).await;
    let done = outcomes(&serving, &posted(&serving, 16, &json!({ "mode": "ok" })).await).await;
    let limited = starts(&done);
    let took = limited[15] - limited[0];
    assert!((2_800..15_000).contains(&took), "16 starts at 5/s took {took} ms");

    // What was reserved hours ahead at a slow rate does not hold up a faster one, and no task is forgotten with it.
    set(&serving, &["chaos.short", "--rate", "1/h"]).await;
    taken_up(&worker, 2).await;
    let ids = posted(&serving, 4, &json!({ "mode": "ok" })).await;
    serving.http.final_task(&ids[0], soon()).await.unwrap();
    set(&serving, &["chaos.short", "--rate", "20/s"]).await;
    outcomes(&serving, &ids).await;
    set(&serving, &["chaos.short", "--rate", "declared"]).await;
    outcomes(&serving, &posted(&serving, 4, &json!({ "mode": "ok" })).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_and_cap_that_are_set_outlive_a_broker_that_is_killed() {
    let (mut serving, worker) = Serving::both(quick).await;
    set(&serving, &["chaos.short", "--rate", "4/s", "--max-running", "2"]).await;
    taken_up(&worker, 1).await;
    serving.nats.kill9();
    serving.nats.restart().await.unwrap();
    restored(&serving.api).await;
    // Whoever was there before still keeps to them, and so does who has only the broker's word for them.
    let _newcomer = serving.worker().await;
    drop(worker);
    assert_eq!(cap_of_short(&serving).await, 2);
    let ids = posted(&serving, 8, &json!({ "mode": "sleep", "ms": 800 })).await;
    let done = outcomes(&serving, &ids).await;
    assert_eq!(most_at_once(&done), 2);
    set(&serving, &["chaos.short", "--max-running", "declared"]).await;
    let starts = starts(&outcomes(&serving, &posted(&serving, 12, &json!({ "mode": "ok" })).await).await);
    let took = starts[11] - starts[0];
    assert!((2_500..15_000).contains(&took), "12 starts at 4/s took {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_the_start_that_a_rate_leaves_a_waiting_task_and_blames_no_lifted_one() {
    let (serving, worker) = Serving::both(quick).await;
    set(&serving, &["chaos.short", "--rate", "30/m"]).await;
    taken_up(&worker, 1).await;
    let ids = posted(&serving, 8, &json!({ "mode": "ok" })).await;
    let last = ids.last().unwrap();
    let why = async || -> Value {
        let told = Launch::new(["tasks", "why", last, "--json"]).config(&serving.config).run(soon()).await;
        serde_json::from_str(&told.unwrap().stdout).unwrap()
    };
    let limited = eventually(soon(), "the rate is what it waits for", async || {
        let told = why().await;
        (told["code"] == "rate_limited").then_some(told)
    })
    .await
    .unwrap();
    let sentence = limited["why"].as_str().unwrap();
    assert!(sentence.contains("chaos.short may start 30/m over all workers"), "{sentence}");
    let until = sentence.split("until about ").nth(1).unwrap().split(": ").next().unwrap();
    let until = until.parse::<cardcage_protocol::Timestamp>().unwrap().unix_ms();

    // It was true: it starts no sooner than said, less the starts that the worker had in hand.
    let starts = |task: &Value| task["attempts"][0]["started_at"].as_str().unwrap().to_owned();
    let done = serving.http.final_task(last, cardcage_harness::Deadline::seconds(90)).await.unwrap();
    let started = starts(&done).parse::<cardcage_protocol::Timestamp>().unwrap().unix_ms();
    assert!(started.abs_diff(until) < 6_000, "said {until}, started {started}: {sentence}");

    // The record of the rate outlives it: who waits now waits for a slot.
    set(&serving, &["chaos.short", "--rate", "declared"]).await;
    set(&serving, &["chaos.short", "--max-running", "1"]).await;
    eventually(soon(), "the consumer is capped", async || (cap_of_short(&serving).await == 1).then_some(()))
        .await
        .unwrap();
    let ids = posted(&serving, 4, &json!({ "mode": "sleep", "ms": 3_000 })).await;
    let told = eventually(soon(), "the first one runs, and the last is held up by the cap", async || {
        let why = Launch::new(["tasks", "why", &ids[3], "--json"]).config(&serving.config);
        let told: Value = serde_json::from_str(&why.run(soon()).await.unwrap().stdout).unwrap();
        assert_ne!(told["code"], "rate_limited", "{told}");
        (told["code"] == "capped").then_some(told)
    });
    let told = told.await.unwrap();
    let sentence = told["why"].as_str().unwrap_or_default();
    assert!(sentence.contains("1 of chaos.short are at workers, and 1 may be at the same time"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_is_refused_by_name() {
    let (serving, _worker) = Serving::both(quick).await;
    for (arguments, code, says) in [
        (&["chaos.ranked", "--max-running", "2"][..], 1, "has priorities"),
        (&["chaos.nothing", "--rate", "2/s"][..], 1, "there is no queue chaos.nothing yet"),
        (&["chaos.short", "--rate", "often"][..], 2, "such as 10/s, 100/m or 5/h, or `declared`"),
        (&["chaos.short", "--max-running", "0"][..], 2, "zero"),
        (&["chaos.short"][..], 2, "--rate"),
    ] {
        let refused = limit(&serving, arguments).await;
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(says), "{arguments:?}: {}", refused.stderr);
    }
}
