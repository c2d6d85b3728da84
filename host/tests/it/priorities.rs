//! Priorities, with real workers: who comes first, and that nobody is left out.

use crate::serving::{Serving, soon};
use bytes::Bytes;
use cardcage_harness::{Config, Deadline, Launch};
use cardcage_protocol::{Name, Priority, TaskAddress, TaskEnvelope, TaskId, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

/// Publishes tasks of chaos' `ranked`, which run one at a time.
async fn publish(serving: &Serving, priority: Priority, count: usize, order: &Value) -> Vec<String> {
    let broker = serving.broker(Duration::from_secs(3)).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let address = TaskAddress {
            plugin: Name::new("chaos").unwrap(),
            major: 0,
            task: Name::new("ranked").unwrap(),
            priority,
            id: TaskId::generate(),
        };
        ids.push(address.id.to_string());
        let body = Bytes::from(order.to_string());
        let envelope = TaskEnvelope::new(address, "0.1.0".into(), Timestamp::now(), body);
        broker.publish_task(&envelope, WAIT).await.unwrap();
    }
    ids
}

fn time(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<Timestamp>().unwrap().unix_ms()
}

/// When the task started, once it has succeeded.
async fn started(serving: &Serving, id: &str) -> u64 {
    let task = serving.http.final_task(id, Deadline::seconds(60)).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
    time(&task["attempts"][0]["started_at"])
}

#[tokio::test(flavor = "multi_thread")]
async fn high_tasks_come_16_to_4_to_1_before_the_others_and_the_low_ones_come_too() {
    let serving = Serving::api(quick).await;
    let order = json!({ "mode": "sleep", "ms": 5 });
    let mut starts = Vec::new();
    let mut ids = Vec::new();
    // The low ones first: they have waited longest.
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        let published = publish(&serving, priority, 70, &order).await;
        ids.extend(published.into_iter().map(|id| (priority, id)));
    }
    let _worker = serving.worker().await;
    for (priority, id) in ids {
        starts.push((started(&serving, &id).await, priority));
    }
    starts.sort_unstable();
    let mut first = BTreeMap::new();
    for (_, priority) in starts.iter().take(63) {
        *first.entry(*priority).or_insert(0) += 1;
    }
    let of = |priority| first.get(&priority).copied().unwrap_or(0);
    // 48, 12 and 3, but for the start, when each lane shows by one delivery that it has something.
    assert!((44..=51).contains(&of(Priority::High)), "{first:?}");
    assert!((9..=15).contains(&of(Priority::Normal)), "{first:?}");
    assert!((2..=6).contains(&of(Priority::Low)), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_task_starts_next_however_many_low_ones_wait() {
    let (serving, _worker) = Serving::both(quick).await;
    let low = publish(&serving, Priority::Low, 100, &json!({ "mode": "sleep", "ms": 50 })).await;
    started(&serving, &low[0]).await;
    let reply = serving.http.post_json("/chaos/ranked/high", &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let high = reply.task_id().unwrap();
    let high_start = started(&serving, &high).await;
    let task = serving.get(&format!("/tasks/{high}")).await.json().unwrap();
    let accepted = time(&task["enqueued_at"]);
    let mut between = 0;
    for id in &low {
        let start = started(&serving, id).await;
        between += usize::from(accepted < start && start < high_start);
    }
    assert!(between <= 2, "{between} low tasks were started before the high one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_is_refused_where_the_task_declares_none() {
    let (serving, _worker) = Serving::both(quick).await;
    let order = json!({ "mode": "ok" });
    let reply = serving.http.post_json("/chaos/ranked/high?plain", &order).await.unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("chaos.chaos declares no priorities"), "{}", reply.text());
    let reply = serving.http.post_json("/chaos/ranked/normal?plain", &order).await.unwrap();
    assert_eq!(reply.status, 202, "normal is what it has: {}", reply.text());

    let enqueue = async |target: &str, priority: &str| {
        let body = order.to_string();
        let arguments = ["tasks", "enqueue", target, "--json", &body, "--priority", priority];
        Launch::new(arguments).config(&serving.config).run(soon()).await.unwrap()
    };
    let refused = enqueue("chaos.chaos", "low").await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("declares no priorities"), "{refused:?}");
    let accepted = enqueue("chaos.ranked", "low").await;
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    let receipt: Value = serde_json::from_str(&accepted.stdout).unwrap();
    started(&serving, receipt["id"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_task_keeps_its_priority_and_a_pause_holds_all_of_them() {
    let (serving, _worker) = Serving::both(quick).await;
    let run = async |arguments: &[&str]| {
        let ended = Launch::new(arguments).config(&serving.config).run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stdout
    };
    let order = json!({ "mode": "retry_after", "ms": 1_000, "times": 1 });
    let id = publish(&serving, Priority::High, 1, &order).await.remove(0);
    cardcage_harness::eventually(soon(), "the first attempt has failed", async || {
        (serving.get(&format!("/tasks/{id}")).await.json().ok()?["state"] == "retrying").then_some(())
    })
    .await
    .unwrap();
    let paused = run(&["queues", "pause", "chaos.ranked", "--json"]).await;
    let paused: Value = serde_json::from_str(&paused).unwrap();
    assert_eq!(paused["queues"].as_array().unwrap().len(), 3, "{paused}");
    let broker = serving.broker(Duration::from_secs(3)).await;
    let at = |priority| TaskAddress {
        plugin: Name::new("chaos").unwrap(),
        major: 0,
        task: Name::new("ranked").unwrap(),
        priority,
        id: id.parse().unwrap(),
    };
    cardcage_harness::eventually(soon(), "it is back in its queue", async || {
        broker.queue_position(&at(Priority::High)).await.unwrap()
    })
    .await
    .unwrap();
    assert!(run(&["tasks", "why", &id]).await.contains("is paused"));
    run(&["queues", "resume", "chaos.ranked"]).await;
    started(&serving, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_over_all_priorities_together() {
    let set = |config: Config| {
        quick(config)
            .set("plugins.chaos.tasks.ranked.rate", "10/s")
            .set("plugins.chaos.tasks.ranked.concurrency", 20)
    };
    let serving = Serving::api(set).await;
    let mut ids = Vec::new();
    for priority in Priority::ALL {
        ids.extend(publish(&serving, priority, 10, &json!({ "mode": "ok" })).await);
    }
    let _worker = serving.worker().await;
    let mut starts = Vec::new();
    for id in &ids {
        starts.push(started(&serving, id).await);
    }
    starts.sort_unstable();
    // 29 intervals of 100 ms, less the two that lanes may be ahead by.
    let took = starts[29] - starts[0];
    assert!(took >= 2_500, "30 starts at 10/s within {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_over_all_workers_is_refused_for_a_task_with_priorities() {
    let serving = Serving::api(quick).await;
    let config = serving.config.clone().set("plugins.chaos.tasks.ranked.max_running", 2);
    for command in ["worker", "check"] {
        let ended = Launch::new([command]).config(&config).run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(78), "{command}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("ranked.max_running` cannot be kept"), "{command}: {said}");
    }
}
