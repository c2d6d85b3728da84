//! What no redelivery will bring up is found and ended: by the sweeper, once.

use std::collections::HashMap;
use std::time::Duration;

use cardcage::broker::UniqueClaim;
use cardcage::terms::unique_hash;
use cardcage_harness::{Cardcage, Config, Launch, Signal, eventually};
use cardcage_protocol::exhausted::Exhausted;
use cardcage_protocol::{Name, State, TaskId, TaskRecord};
use serde_json::{Value, json};

use crate::killed_between_writes::Killed;
use crate::serving::{Serving, chaos_envelope, signal, soon, wait_metric};

const WAIT: Duration = Duration::from_secs(10);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 2_000).set("drain.grace_ms", 1_000)
}

async fn jetstream(serving: &Serving) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(serving.nats.url()).await.unwrap())
}

async fn stream(serving: &Serving, name: &str) -> async_nats::jetstream::stream::Stream {
    jetstream(serving).await.get_stream(name).await.unwrap()
}

/// How many messages of a stream have a subject that begins so.
async fn count(serving: &Serving, name: &str, filter: &str) -> usize {
    use futures_util::TryStreamExt as _;
    let subjects = stream(serving, name).await.info_with_subjects(filter).await.unwrap();
    subjects.try_collect::<Vec<_>>().await.unwrap().len()
}

fn state_of(serving: &Serving) -> String {
    format!("{}_STATE", serving.config.namespace())
}

async fn notes(serving: &Serving) -> usize {
    count(serving, &state_of(serving), &format!("{}.owed.*", serving.config.namespace())).await
}

/// Kills a worker at `point` and then removes the message that would have brought the task to another one.
async fn killed_and_purged(killed: &Killed, point: &str, path: &str, order: &Value) -> (String, Cardcage) {
    let id = killed.kill_at(point, path, order).await;
    let serving = &killed.serving;
    let queue = format!("{}_TASKS_chaos", serving.config.namespace());
    stream(serving, &queue).await.purge().filter(format!("*.task.*.*.*.*.{id}")).await.unwrap();
    assert_eq!(notes(serving).await, 1, "{point}: it is noted that something is owed");
    (id, serving.worker().await)
}

async fn settled(killed: &Killed, worker: &Cardcage) {
    wait_metric(worker, r#"cardcage_swept_total{what="owed"} 1"#).await;
    eventually(soon(), "nothing is owed", async || (notes(&killed.serving).await == 0).then_some(()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn children_of_a_success_whose_message_is_gone_are_published_once() {
    for point in ["after_record", "after_child:2"] {
        let mut killed = Killed::with(quick).await;
        let order = json!({ "mode": "ok", "ms": 1_000, "children": 3 });
        let (id, worker) = killed_and_purged(&killed, point, "/chaos/task", &order).await;
        let children: Vec<_> = (0..3).map(|n| TaskId::derive(id.parse().unwrap(), n).to_string()).collect();
        for child in &children {
            assert_eq!(killed.end(child).await["state"], "succeeded", "{point}");
        }
        settled(&killed, &worker).await;
        let all: HashMap<_, _> = children.into_iter().chain([id]).map(|id| (id, 1)).collect();
        assert_eq!(killed.outcomes().await, all, "{point}");
        assert_eq!(killed.ran().len(), 4, "{point}: {:?}", killed.ran());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_and_hook_of_a_failure_whose_message_is_gone_are_published_once() {
    let killed = Killed::with(quick).await;
    let order = json!({ "note": "stubborn", "mode": "fail_for_good" });
    let (id, worker) = killed_and_purged(&killed, "after_record", "/chaos/doomed", &order).await;
    let hook = Exhausted::id_of(id.parse().unwrap()).to_string();
    let done = killed.end(&hook).await;
    let told = &done["result"];
    assert_eq!((&told["id"], &told["code"]), (&json!(id), &json!("failed")), "{done}");
    assert_eq!(told["body"], Value::Null, "the body was in the message alone");
    settled(&killed, &worker).await;
    let list =
        Launch::new(["dead", "list", "--json"]).config(&killed.serving.config).run(soon()).await.unwrap();
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(
        (list["letters"].as_array().unwrap().len(), &list["letters"][0]["id"]),
        (1, &json!(id)),
        "{list}"
    );
    // A task without its body would only be parked.
    let replay =
        Launch::new(["dead", "replay", &id]).config(&killed.serving.config).run(soon()).await.unwrap();
    assert_eq!(replay.status.code(), Some(1), "{replay:?}");
    assert!(replay.stderr.contains("its body is not in the letter"), "{replay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn happy_path_writes_one_record_and_no_note_and_whoever_owes_settles_it_at_once() {
    let (serving, worker) = Serving::both(quick).await;
    let post = async |order: Value| {
        let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
        let id = reply.task_id().unwrap();
        serving.http.final_task(&id, soon()).await.unwrap()
    };
    for _ in 0..10 {
        assert_eq!(post(json!({ "mode": "ok" })).await["state"], "succeeded");
    }
    let records =
        || async { stream(&serving, &state_of(&serving)).await.info().await.unwrap().state.clone() };
    assert_eq!((records().await.last_sequence, records().await.messages), (10, 10));
    assert_eq!(post(json!({ "mode": "fail_for_good" })).await["state"], "failed");
    eventually(soon(), "its letter is paid", async || (notes(&serving).await == 0).then_some(()))
        .await
        .unwrap();
    assert_eq!(
        (records().await.last_sequence, records().await.messages),
        (12, 11),
        "its record and its note"
    );
    // Some rounds later there was still nothing to find.
    eventually(soon(), "three sweeps", async || {
        let text = worker.admin().unwrap().get("/metrics").await.ok()?.text();
        let sweeps = text.lines().find_map(|line| line.strip_prefix("cardcage_sweeps_total "))?;
        (sweeps.parse::<u64>().ok()? >= 3).then_some(())
    })
    .await
    .unwrap();
    let text = worker.admin().unwrap().get("/metrics").await.unwrap().text();
    for what in ["owed", "stray", "turn", "unique_key"] {
        assert!(text.contains(&format!("cardcage_swept_total{{what=\"{what}\"}} 0\n")), "{text}");
    }
    assert!(text.contains("cardcage_store_messages{store=\"records\"} 11\n"), "{text}");
    assert!(text.contains("cardcage_store_max_messages{store=\"dead\"} 1000000\n"), "{text}");
}

/// Sets the limit of deliveries of chaos' consumer, as somebody with another tool does.
async fn limit_deliveries(serving: &Serving, most: i64) {
    let queue = stream(serving, &format!("{}_TASKS_chaos", serving.config.namespace())).await;
    let mut consumer: async_nats::jetstream::consumer::PullConsumer =
        queue.get_consumer("chaos_v0_chaos").await.unwrap();
    let mut config = consumer.info().await.unwrap().config.clone();
    config.max_deliver = most;
    let pull = async_nats::jetstream::consumer::FromConsumer::try_from_consumer_config(config).unwrap();
    let pull: async_nats::jetstream::consumer::pull::Config = pull;
    queue.update_consumer(pull).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_a_limit_of_deliveries_took_from_its_consumer_is_found_and_run() {
    let serving = Serving::api(quick).await;
    let mut doomed = serving.worker().await;
    limit_deliveries(&serving, 1).await;
    let order = json!({ "mode": "sleep", "ms": 60_000 });
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    let id = reply.task_id().unwrap();
    serving.wait_seen("started", 1).await;
    let children = doomed.child_pids();
    doomed.kill9();
    children.into_iter().for_each(|child| signal(child, Signal::KILL));
    drop(doomed);
    // Pulled for by the test itself, so that the broker meets its limit while it stands.
    let queue = stream(&serving, &format!("{}_TASKS_chaos", serving.config.namespace())).await;
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        queue.get_consumer("chaos_v0_chaos").await.unwrap();
    eventually(soon(), "the consumer has given it up", async || {
        use futures_util::StreamExt as _;
        let mut batch = consumer.fetch().max_messages(1).messages().await.ok()?;
        assert!(batch.next().await.is_none(), "it is not delivered again");
        let mut consumer = consumer.clone();
        (consumer.info().await.ok()?.num_ack_pending == 0).then_some(())
    })
    .await
    .unwrap();
    limit_deliveries(&serving, -1).await;

    let worker = serving.worker().await;
    wait_metric(&worker, r#"cardcage_swept_total{what="stray"} 1"#).await;
    eventually(soon(), "it runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(
        serving.http.post_json(&format!("/tasks/{id}/cancel"), &json!({})).await.unwrap().status / 100,
        2
    );
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_key_of_a_task_that_has_ended_is_released_though_nobody_asks_for_it() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(Duration::from_secs(2)).await;
    let (plugin, task) = (Name::new("chaos").unwrap(), Name::new("keyed").unwrap());
    let claim = async |key: &str| {
        let id = TaskId::generate();
        let hash = unique_hash(&plugin, &task, key);
        assert_eq!(broker.claim_unique(&hash, id, Duration::ZERO, WAIT).await.unwrap(), UniqueClaim::Fresh);
        chaos_envelope(id, "keyed", bytes::Bytes::from_static(b"{}"))
    };
    // Whoever ended this one died before it released the key; that one runs.
    let (ended, running) = (claim("ended").await, claim("running").await);
    broker.write_record(&mut TaskRecord::new(&ended, State::Succeeded), 0).await.unwrap();
    broker.write_record(&mut TaskRecord::new(&running, State::Running), 0).await.unwrap();
    let namespace = serving.config.namespace();
    let (bucket, keys) = (format!("KV_{namespace}_LIMITS"), format!("$KV.{namespace}_LIMITS.unique.*"));
    assert_eq!(count(&serving, &bucket, &keys).await, 2);

    let worker = serving.worker().await;
    wait_metric(&worker, r#"cardcage_swept_total{what="unique_key"} 1"#).await;
    assert_eq!(count(&serving, &bucket, &keys).await, 1);
}
