//! Unique and serial keys, with real workers, some of which die with a key in hand.

use crate::declarations::ran;
use crate::serving::{Serving, signal, soon};
use cardcage::broker::{Broker, Options, Turn, TurnClaim, UniqueClaim};
use cardcage::terms::{serial_hash, unique_hash};
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Signal, eventually};
use cardcage_protocol::{
    Name, Namespace, Priority, State, TaskAddress, TaskEnvelope, TaskId, TaskRecord, Timestamp,
};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

/// The task's id, and whether an earlier enqueue made it.
pub(crate) async fn post(serving: &Serving, body: &Value) -> (String, bool) {
    let reply = serving.http.post_json("/chaos/keyed", body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    (reply.task_id().unwrap(), reply.json().unwrap()["duplicate"].as_bool().unwrap())
}

pub(crate) async fn ended(serving: &Serving, id: &str) -> Value {
    serving.http.final_task(id, Deadline::seconds(60)).await.unwrap()
}

pub(crate) async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

pub(crate) async fn broker(serving: &Serving) -> Broker {
    let namespace = Namespace::new(serving.config.namespace()).unwrap();
    let options = Options { url: serving.nats.url(), namespace, ..Options::default() };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    broker
}

pub(crate) fn names() -> (Name, Name) {
    (Name::new("chaos").unwrap(), Name::new("keyed").unwrap())
}

/// Kills the supervisor and its child at once: nobody is left to hand anything back.
fn kill(worker: &mut Cardcage) {
    let children = worker.child_pids();
    worker.kill9();
    children.into_iter().for_each(|child| signal(child, Signal::KILL));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_enqueue_under_a_unique_key_is_the_first_one_until_that_has_its_outcome() {
    let serving = Serving::api(quick).await;
    let order = json!({ "mode": "fail_until", "times": 2, "unique": "a" });
    let (first, duplicate) = post(&serving, &order).await;
    assert!(!duplicate);
    assert_eq!(post(&serving, &order).await, (first.clone(), true), "while it is queued");
    let (other, duplicate) = post(&serving, &json!({ "mode": "ok", "unique": "b" })).await;
    assert!(other != first && !duplicate, "another value is another key");
    let without = json!({ "mode": "ok" });
    assert_ne!(
        post(&serving, &without).await.0,
        post(&serving, &without).await.0,
        "without the field, no key"
    );

    let _worker = serving.worker().await;
    let done = ended(&serving, &first).await;
    assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 2));
    // The outcome is recorded just before the key is released, which nobody need wait for.
    let (second, duplicate) = post(&serving, &json!({ "mode": "ok", "unique": "a" })).await;
    assert!(second != first && !duplicate);
    assert_eq!(ended(&serving, &second).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_any_number_who_enqueue_under_one_unique_key_at_once_one_makes_the_task() {
    let serving = Serving::api(quick).await;
    let other = Cardcage::api(&serving.config).await.unwrap();
    for round in 0..5 {
        let order = json!({ "mode": "ok", "unique": format!("race-{round}") });
        let posts = (0..16).map(|nth| {
            let http = if nth % 2 == 0 { serving.http.clone() } else { other.http().unwrap() };
            let order = &order;
            async move {
                let reply = http.post_json("/chaos/keyed", order).await.unwrap();
                assert_eq!(reply.status, 202, "{}", reply.text());
                (reply.task_id().unwrap(), reply.json().unwrap()["duplicate"].as_bool().unwrap())
            }
        });
        let told = futures_util::future::join_all(posts).await;
        assert!(told.iter().all(|(id, _)| *id == told[0].0), "{told:?}");
        assert_eq!(told.iter().filter(|(_, duplicate)| !duplicate).count(), 1, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_is_refused_while_another_task_has_its_unique_key_and_has_that_key_afterwards() {
    let (serving, _worker) = Serving::both(quick).await;
    let (failed, _) = post(&serving, &json!({ "mode": "fail_for_good", "unique": "a" })).await;
    assert_eq!(ended(&serving, &failed).await["state"], "failed");
    let command = async |arguments: &[&str]| {
        Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap()
    };
    let letter = eventually(soon(), "its letter is written", async || {
        (command(&["dead", "show", &failed]).await.status.code() == Some(0)).then_some(())
    });
    letter.await.unwrap();
    let (holder, duplicate) = post(&serving, &json!({ "mode": "sleep", "ms": 600_000, "unique": "a" })).await;
    assert!(!duplicate);
    for by in ["dead replay", "tasks retry"] {
        let arguments: Vec<&str> = by.split(' ').chain([failed.as_str()]).collect();
        let refused = command(&arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{by}: {refused:?}");
        let words = format!("the task {holder} has its unique key, and has not ended");
        assert!(refused.stderr.contains(&words), "{by}: {refused:?}");
    }
    command(&["tasks", "cancel", &holder]).await;
    ended(&serving, &holder).await;
    // What nobody runs keeps the key.
    command(&["queues", "pause", "chaos.keyed"]).await;
    let replayed = command(&["dead", "replay", &failed, "--json"]).await;
    let told: Value = serde_json::from_str(&replayed.stdout).unwrap_or_else(|_| panic!("{replayed:?}"));
    let (again, duplicate) = post(&serving, &json!({ "mode": "ok", "unique": "a" })).await;
    assert!(duplicate && told.to_string().contains(&again), "{told}, and {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_key_whose_task_is_gone_is_free_and_one_whose_task_was_never_stored_is_made_good_for() {
    let (serving, _worker) = Serving::both(quick).await;
    let (broker, (plugin, task)) = (broker(&serving).await, names());
    // An enqueuer died between claiming the key and publishing.
    let unstored = TaskId::generate();
    let hash = unique_hash(&plugin, &task, "unstored");
    let claim = broker.claim_unique(&hash, unstored, Duration::ZERO, WAIT).await.unwrap();
    assert_eq!(claim, UniqueClaim::Fresh);
    let (id, duplicate) = post(&serving, &json!({ "mode": "ok", "unique": "unstored" })).await;
    assert_eq!((id.as_str(), duplicate), (unstored.to_string().as_str(), true));
    assert_eq!(ended(&serving, &id).await["state"], "succeeded");

    // A worker died between the outcome and the release, and its redelivery is yet to come.
    let over = TaskId::generate();
    let hash = unique_hash(&plugin, &task, "over");
    broker.claim_unique(&hash, over, Duration::ZERO, WAIT).await.unwrap();
    let address = TaskAddress { plugin, major: 0, task, priority: Priority::Normal, id: over };
    let envelope = TaskEnvelope::new(address, "0.1.0".into(), Timestamp::now(), bytes::Bytes::new());
    broker.write_record(&mut TaskRecord::new(&envelope, State::Succeeded), 0).await.unwrap();
    let (id, duplicate) = post(&serving, &json!({ "mode": "sleep", "ms": 1_000, "unique": "over" })).await;
    assert!(id != over.to_string() && !duplicate);
    // The late release finds another task's key.
    broker.release_unique(&hash, over).await.unwrap();
    assert_eq!(post(&serving, &json!({ "mode": "ok", "unique": "over" })).await, (id, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_one_serial_key_run_one_after_the_other_in_their_order_on_any_number_of_workers() {
    let (serving, _first) = Serving::both(quick).await;
    let _second = serving.worker().await;
    let (first, _) = post(&serving, &json!({ "mode": "sleep", "ms": 3_000, "serial": "o-1" })).await;
    running(&serving, &first).await;
    let (mut lines, mut ids) = (lines(&serving).await, vec![first]);
    for n in 1..20 {
        ids.push(post(&serving, &json!({ "mode": "sleep", "ms": 20, "serial": "o-1" })).await.0);
        // Two that arrive at the same moment may come into line in either order.
        eventually(soon(), "it is in line", async || {
            (lines.info().await.ok()?.state.last_sequence == n).then_some(())
        })
        .await
        .unwrap();
    }
    let waiting = serving.get(&format!("/tasks/{}", ids[19])).await.json().unwrap();
    assert_eq!(waiting["state"], "queued", "who waits for a turn is queued: {waiting}");
    let mut spans = Vec::new();
    for id in &ids {
        let done = ended(&serving, id).await;
        assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));
        spans.push(ran(&done));
    }
    assert!(spans.is_sorted_by(|a, b| a.1 <= b.0), "they overlap, or one overtook another: {spans:?}");
    leaves_nothing(&serving).await;
}

pub(crate) async fn lines(serving: &Serving) -> async_nats::jetstream::stream::Stream {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let name = format!("{}_LINES", serving.config.namespace());
    async_nats::jetstream::new(client).get_stream(name).await.unwrap()
}

/// Neither lock nor line is left, once the last turn has ended.
pub(crate) async fn leaves_nothing(serving: &Serving) {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for stream in
        [format!("KV_{}_LIMITS", serving.config.namespace()), format!("{}_LINES", serving.config.namespace())]
    {
        let stream = context.get_stream(stream).await.unwrap();
        // That a sweep has begun lately is nobody's key.
        let sweep = format!("$KV.{}_LIMITS.sweep", serving.config.namespace());
        // Nor is what workers have deployed.
        let deployed = format!("$KV.{}_LIMITS.deployed.", serving.config.namespace());
        // Nor what an operator has set or paused.
        let live = format!("$KV.{}_LIMITS.set.", serving.config.namespace());
        eventually(soon(), "nothing is left", async || {
            let subjects: Vec<_> = stream.info_with_subjects(">").await.ok()?.try_collect().await.ok()?;
            let is_no_key = |subject: &str| {
                subject == sweep || subject.starts_with(&deployed) || subject.starts_with(&live)
            };
            subjects.iter().all(|(subject, _)| is_no_key(subject)).then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_tasks_of_one_serial_key_do_not_delay_ten_of_others() {
    let (serving, _worker) = Serving::both(|config| quick(config).set("worker.task_concurrency", 8)).await;
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let http = serving.http.clone();
        posts.spawn(async move {
            let order = json!({ "mode": "sleep", "ms": 100, "serial": "crowd" });
            http.post_json("/chaos/keyed", &order).await.unwrap().task_id().unwrap()
        });
    }
    let crowd = posts.join_all().await;
    let began = Instant::now();
    let mut others = Vec::new();
    for n in 0..10 {
        others.push(post(&serving, &json!({ "mode": "ok", "serial": format!("other-{n}") })).await.0);
    }
    for id in &others {
        assert_eq!(ended(&serving, id).await["state"], "succeeded");
    }
    // One after the other, the thousand take 100 s at least.
    assert!(began.elapsed() < Duration::from_secs(30), "they took {:?}", began.elapsed());
    let mut waiting = 0;
    for id in crowd.iter().step_by(50) {
        let task = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
        waiting += u32::from(task["state"] == "queued");
    }
    assert!(waiting > 5, "most of the thousand still wait, and can be looked up: {waiting} of 20");
}

#[tokio::test(flavor = "multi_thread")]
async fn serial_key_of_a_worker_that_died_goes_on_with_its_task_and_then_to_the_next() {
    let (serving, mut first) = Serving::both(quick).await;
    let (held, _) =
        post(&serving, &json!({ "mode": "sleep", "ms": 60_000, "times": 1, "serial": "o-1" })).await;
    running(&serving, &held).await;
    let (next, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    kill(&mut first);
    let _second = serving.worker().await;
    let (held, next) = (ended(&serving, &held).await, ended(&serving, &next).await);
    assert_eq!((&held["state"], &next["state"]), (&json!("succeeded"), &json!("succeeded")));
    assert!(ran(&held).1 <= ran(&next).0, "the one that was lost keeps its turn");
    leaves_nothing(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turn_that_nobody_will_end_is_found_and_passed_on() {
    let (serving, worker) = Serving::both(quick).await;
    let (broker, (plugin, task)) = (broker(&serving).await, names());
    // Its holder's message was removed from the queue.
    let turn = Turn::of(TaskId::generate(), 1);
    assert_eq!(
        broker.take_turn(&serial_hash(&plugin, &task, "o-1"), &plugin, turn).await.unwrap(),
        TurnClaim::Mine(1)
    );
    let (id, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    assert_eq!(ended(&serving, &id).await["state"], "succeeded");
    assert!(worker.stderr().contains("nobody would have passed on"), "{}", worker.stderr());
    leaves_nothing(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_half_done_hand_over_is_finished_by_whoever_comes_again() {
    let (serving, _worker) = Serving::both(quick).await;
    let (broker, (plugin, task)) = (broker(&serving).await, names());
    let hash = serial_hash(&plugin, &task, "o-1");
    let turn = Turn::of(TaskId::generate(), 1);
    assert_eq!(broker.take_turn(&hash, &plugin, turn).await.unwrap(), TurnClaim::Mine(1));
    let (id, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut lines = lines(&serving).await;
    eventually(soon(), "it waits in line", async || {
        (lines.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await
    .unwrap();
    // The lock was passed on, and whoever did it died before it put the head back: its redelivery does it.
    let locks = context.get_stream(format!("KV_{}_LIMITS", serving.config.namespace())).await.unwrap();
    let subject = format!("$KV.{}_LIMITS.serial.{hash}", serving.config.namespace());
    let lock = locks.get_last_raw_message_by_subject(&subject).await.unwrap();
    assert!(String::from_utf8_lossy(&lock.payload).contains(&turn.task_id.to_string()));
    let passed_on = json!({ "task_id": id, "attempt": 1 }).to_string();
    context.publish(subject, passed_on.into()).await.unwrap().await.unwrap();
    broker.pass_on(&hash, turn).await.unwrap();
    assert_eq!(ended(&serving, &id).await["state"], "succeeded");
    broker.pass_on(&hash, turn).await.unwrap();
    leaves_nothing(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_a_line_that_was_given_the_turn_and_not_put_back_is_found_though_nobody_comes_again() {
    let (serving, _worker) = Serving::both(quick).await;
    let (broker, (plugin, task)) = (broker(&serving).await, names());
    let hash = serial_hash(&plugin, &task, "o-1");
    let turn = Turn::of(TaskId::generate(), 1);
    assert_eq!(broker.take_turn(&hash, &plugin, turn).await.unwrap(), TurnClaim::Mine(1));
    let mut lines = lines(&serving).await;
    let (id, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    // At once, so that the turn above is not yet old enough to be found itself.
    eventually(soon(), "it waits in line", async || {
        (lines.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await
    .unwrap();
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let subject = format!("$KV.{}_LIMITS.serial.{hash}", serving.config.namespace());
    let passed_on = json!({ "task_id": id, "attempt": 1 }).to_string();
    context.publish(subject, passed_on.into()).await.unwrap().await.unwrap();
    assert_eq!(ended(&serving, &id).await["state"], "succeeded");
    leaves_nothing(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_finds_its_line_full_comes_again_until_there_is_room_and_that_is_no_loss() {
    let full = |config: Config| quick(config).set("stores.lines_max_messages", 1).set("tasks.lost_limit", 1);
    let (serving, worker) = Serving::both(full).await;
    let order = json!({ "mode": "sleep", "ms": 12_000, "serial": "o-1" });
    let (first, _) = post(&serving, &order).await;
    running(&serving, &first).await;
    let (second, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    let mut lines = lines(&serving).await;
    eventually(soon(), "the line is full", async || {
        (lines.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await
    .unwrap();
    let (third, _) = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await;
    eventually(soon(), "it has come more than once", async || {
        (worker.stderr().matches("a serial key cannot be asked for").count() > 2).then_some(())
    })
    .await
    .unwrap();
    for id in [&first, &second, &third] {
        let done = ended(&serving, id).await;
        assert_eq!(
            (&done["state"], done["attempts"].as_array().unwrap().len()),
            (&json!("succeeded"), 1),
            "{done}"
        );
    }
    leaves_nothing(&serving).await;
}
