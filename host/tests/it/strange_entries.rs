//! What somebody else wrote among the entries that hosts share, or has deleted there, costs only itself, and is told.

use std::time::Duration;

use async_nats::jetstream;
use cardcage::terms::{serial_hash, unique_hash};
use cardcage_harness::{Config, Launch, eventually};
use cardcage_protocol::{FollowUp, Name, State, TaskError, TaskId, TaskRecord, Timestamp};
use serde_json::json;

use crate::declarations::{accepted, cap_of_short};
use crate::serving::{Serving, chaos_envelope, soon, wait_metric};

const WAIT: Duration = Duration::from_secs(10);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 2_000).set("drain.grace_ms", 1_000)
}

async fn jetstream(serving: &Serving) -> jetstream::Context {
    jetstream::new(async_nats::connect(serving.nats.url()).await.unwrap())
}

/// Writes this text as the entry of the bucket of limits with this name.
async fn write(serving: &Serving, name: &str, text: &'static str) {
    let subject = format!("$KV.{}_LIMITS.{name}", serving.config.namespace());
    jetstream(serving).await.publish(subject, text.into()).await.unwrap().await.unwrap();
}

fn names(task: &str) -> (Name, Name) {
    (Name::new("chaos").unwrap(), Name::new(task).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_cannot_be_read_keep_no_worker_from_starting_nor_an_operator_from_setting_limits() {
    let serving = Serving::api(quick).await;
    for (name, text) in [
        ("crashes.orders.1_0_0", "rubbish"),
        ("crashes.hello.1_0_0", ""),
        ("set.chaos.short", "{}"),
        ("set.hello.task", "rubbish"),
        ("deployed.orders.1_0_0", "[]"),
    ] {
        write(&serving, name, text).await;
    }
    let worker = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    let told = |worker: &cardcage_harness::Cardcage, name: &str| {
        let lines = worker.stderr();
        lines.lines().filter(|line| line.contains("cannot be read") && line.contains(name)).count()
    };
    eventually(soon(), "each is told", async || {
        let all = ["crashes.orders.1_0_0", "set.chaos.short", "set.hello.task"];
        all.iter().all(|name| told(&worker, name) > 0).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(told(&worker, "crashes.hello"), 0, "a deleted key is nothing to tell of");

    // Over one of them an operator sets what is wanted, and the others are no hindrance.
    let set = ["queues", "limit", "chaos.short", "--max-running", "2"];
    let set = Launch::new(set).config(&serving.config).run(soon()).await.unwrap();
    assert_eq!(set.status.code(), Some(0), "{set:?}");
    eventually(soon(), "the consumer is capped", async || (cap_of_short(&serving).await == 2).then_some(()))
        .await
        .unwrap();
    for command in [&["queues", "list"][..], &["tasks", "why", &id], &["plugin", "release", "orders"]] {
        let asked = Launch::new(command.iter().copied()).config(&serving.config).run(soon()).await.unwrap();
        assert!(!asked.stderr.contains("cannot be read"), "{command:?}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_rates_whose_entries_cannot_be_read_hold_up_no_task() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.rate", "20/s");
    let serving = Serving::api(set).await;
    let (plugin, keyed) = names("keyed");
    for text in ["rubbish", ""] {
        write(&serving, &format!("serial.{}", serial_hash(&plugin, &keyed, "o-1")), text).await;
        write(&serving, &format!("unique.{}", unique_hash(&plugin, &keyed, "u-1")), text).await;
        write(&serving, "rate.chaos.short", text).await;
        let _worker = serving.worker().await;
        let order = json!({ "mode": "ok", "serial": "o-1", "unique": "u-1" });
        for (path, order) in [("/chaos/keyed", &order), ("/chaos/short", &json!({ "mode": "ok" }))] {
            let id = accepted(&serving, path, order).await;
            assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded", "{path}");
        }
    }
    let broker = serving.broker(Duration::from_secs(2)).await;
    let subject = broker.subjects().last_firing(&plugin, &Name::new("tick").unwrap());
    jetstream(&serving).await.publish(subject, "rubbish".into()).await.unwrap().await.unwrap();
    assert_eq!(broker.last_firing(&plugin, &Name::new("tick").unwrap()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_cannot_be_read_holds_up_neither_other_tasks_nor_the_sweeper() {
    let serving = Serving::api(|config| quick(config).set("worker.task_concurrency", 1)).await;
    let broker = serving.broker(Duration::from_secs(2)).await;
    let context = jetstream(&serving).await;
    let envelope = || chaos_envelope(TaskId::generate(), "chaos", "{\"mode\":\"ok\"}");
    // Of a task in the queue, and of one that owed something.
    let (strange, strange_owing, owing) = (envelope(), envelope(), envelope());
    for envelope in [&strange, &strange_owing] {
        let subject = broker.subjects().state(envelope.id);
        context.publish(subject, "rubbish".into()).await.unwrap().await.unwrap();
    }
    broker.publish_task(&strange, WAIT).await.unwrap();
    let owed = broker.subjects().owed(strange_owing.id);
    context.publish(owed, "".into()).await.unwrap().await.unwrap();
    let mut record = TaskRecord::new(&owing, State::Failed);
    record.finished_at = Some(Timestamp::now());
    record.error = Some(TaskError::new("failed", "no", None));
    record.follow_up.push(FollowUp::DeadLetter { reason: "no".into() });
    broker.write_record(&mut record, 0).await.unwrap();

    let worker = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    wait_metric(&worker, r#"cardcage_swept_total{what="owed"} 1"#).await;
    assert_eq!(broker.find_letter(owing.id).await.unwrap().unwrap().reason, "no");
    assert!(worker.stderr().contains("what the broker holds of it cannot be read"), "{}", worker.stderr());
}
