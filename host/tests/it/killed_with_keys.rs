//! A worker is killed with a task's keys in hand: before it releases them, half-way, and where a task in its line stands
//! twice. Whoever comes again releases them, the next in line goes on, and no two tasks of one key run at the same time.

use crate::declarations::ran;
use crate::keys::{broker, ended, leaves_nothing, lines, names, post, running};
use crate::killed_between_writes::Killed;
use crate::serving::{Serving, chaos_envelope, soon, wait_metric};
use bytes::Bytes;
use cardcage::broker::{Turn, TurnClaim};
use cardcage::terms::serial_hash;
use cardcage_harness::{Cardcage, Config, Launch, eventually};
use cardcage_protocol::{Attempt, Cause, InstanceId, State, TaskError, TaskId, TaskRecord, Timestamp};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);
/// As `Killed` sets it.
const LEASE: Duration = Duration::from_secs(3);

/// A worker that dies at `point`.
async fn doomed(serving: &Serving, point: &str) -> Cardcage {
    let launch = Launch::new(["worker"]).config(&serving.config).env("CARDCAGE_FAILPOINT", point);
    launch.ready().await.unwrap()
}

async fn died(doomed: &mut Cardcage, point: &str) {
    let end = doomed.wait_exit(soon()).await.unwrap();
    assert_eq!(end.signal(), Some(9), "{point} is reached: {}", doomed.stderr());
    eventually(soon(), "its child is gone", async || doomed.child_pids().is_empty().then_some(()))
        .await
        .unwrap();
}

/// So that the next in line is not started by the worker that dies, which would be an attempt of its own.
fn one_at_a_time(config: Config) -> Config {
    config.set("worker.task_concurrency", 1)
}

/// Waits until so many tasks were ever moved into a line.
async fn lined_up(serving: &Serving, count: u64) {
    let mut lines = lines(serving).await;
    eventually(soon(), "it is in line", async || {
        (lines.info().await.ok()?.state.last_sequence == count).then_some(())
    })
    .await
    .unwrap();
}

/// Unique keys that somebody has.
async fn unique_keys(serving: &Serving) -> usize {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let bucket = format!("{}_LIMITS", serving.config.namespace());
    let stream = async_nats::jetstream::new(client).get_stream(format!("KV_{bucket}")).await.unwrap();
    let keys = stream.info_with_subjects(format!("$KV.{bucket}.unique.*")).await.unwrap();
    keys.try_collect::<Vec<_>>().await.unwrap().len()
}

/// A turn of nobody's, held until the test passes it on: so that both tasks stand in line before the first one runs.
async fn held_turn(serving: &Serving) -> (cardcage::broker::Broker, String, Turn) {
    let (broker, (plugin, task)) = (broker(serving).await, names());
    let hash = serial_hash(&plugin, &task, "o-1");
    let turn = Turn::of(TaskId::generate(), 1);
    assert_eq!(broker.take_turn(&hash, &plugin, turn).await.unwrap(), TurnClaim::Mine(1));
    (broker, hash, turn)
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_a_tasks_record_and_the_release_of_its_keys_holds_up_nobody() {
    for (point, mode, state, keys) in [
        ("before_release", "ok", "succeeded", 2),
        ("before_release", "fail_for_good", "failed", 2),
        ("before_release", "discard", "cancelled", 2),
        ("after_unique_release", "ok", "succeeded", 1),
        ("after_turn_passed", "ok", "succeeded", 1),
        ("after_put_back", "ok", "succeeded", 1),
        ("before_ack", "ok", "succeeded", 1),
    ] {
        let mut killed = Killed::with(one_at_a_time).await;
        let serving = &killed.serving;
        let mut doomed = doomed(serving, point).await;
        let (broker, hash, turn) = held_turn(serving).await;
        let first = post(serving, &json!({ "mode": mode, "unique": "a", "serial": "o-1" })).await.0;
        lined_up(serving, 1).await;
        let next = post(serving, &json!({ "mode": "ok", "unique": "b", "serial": "o-1" })).await.0;
        lined_up(serving, 2).await;
        broker.pass_on(&hash, turn).await.unwrap();
        died(&mut doomed, point).await;
        let done = serving.get(&format!("/tasks/{first}")).await.json().unwrap();
        assert_eq!(done["state"], state, "{point}: its outcome is recorded: {done}");
        assert_eq!(unique_keys(serving).await, keys, "{point}: that is where it died");
        // Whoever asks for the key finds its task ended, and need not wait for anybody.
        let (again, duplicate) = post(serving, &json!({ "mode": "ok", "unique": "a" })).await;
        assert!(again != first && !duplicate, "{point}");

        let _worker = serving.worker().await;
        let began = Instant::now();
        assert_eq!(ended(serving, &next).await["state"], "succeeded", "{point}");
        // A lease and a second are promised.
        assert!(began.elapsed() < (LEASE + Duration::from_secs(1)) * 5, "{point}: {:?}", began.elapsed());
        assert_eq!(ended(serving, &again).await["state"], "succeeded", "{point}");
        leaves_nothing(serving).await;
        let once: HashMap<String, usize> = [first, next, again].map(|id| (id, 1)).into();
        assert_eq!(killed.outcomes().await, once, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_a_retrys_record_and_the_end_of_its_turn_has_both_tasks_run_one_at_a_time() {
    for point in ["after_record", "after_follow_up", "before_release", "after_turn_passed", "before_ack"] {
        let mut killed = Killed::with(one_at_a_time).await;
        let serving = &killed.serving;
        let mut doomed = doomed(serving, point).await;
        let (broker, hash, turn) = held_turn(serving).await;
        let order = json!({ "mode": "retry_after", "ms": 300, "times": 1, "unique": "a", "serial": "o-1" });
        let first = post(serving, &order).await.0;
        lined_up(serving, 1).await;
        let next = post(serving, &json!({ "mode": "sleep", "ms": 500, "serial": "o-1" })).await.0;
        lined_up(serving, 2).await;
        broker.pass_on(&hash, turn).await.unwrap();
        died(&mut doomed, point).await;
        assert_eq!(post(serving, &order).await, (first.clone(), true), "{point}: it has yet to end");

        let (_second, _third) = (serving.worker().await, serving.worker().await);
        let (done, other) = (ended(serving, &first).await, ended(serving, &next).await);
        let causes = |task: &Value| {
            let attempts = task["attempts"].as_array().unwrap().iter();
            attempts.map(|attempt| attempt["cause"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(causes(&done), ["retry_requested", "succeeded"], "{point}: {done}");
        // Once its turn has come, the worker that dies may have been handed it as well.
        let was_handed = ["after_turn_passed", "before_ack"].contains(&point) && causes(&other).len() == 2;
        let expected: &[_] = if was_handed { &["lease_lost", "succeeded"] } else { &["succeeded"] };
        assert_eq!(causes(&other), expected, "{point}: {other}");
        let (last, between) = (ran(&done), ran(&other));
        assert!(last.1 <= between.0 || between.1 <= last.0, "{point}: {last:?} and {between:?} overlap");
        leaves_nothing(serving).await;
        let once: HashMap<String, usize> = [first, next].map(|id| (id, 1)).into();
        assert_eq!(killed.outcomes().await, once, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_whose_worker_is_killed_when_it_stands_in_its_line_and_in_its_queue_runs_once() {
    let mut killed = Killed::with(one_at_a_time).await;
    let serving = &killed.serving;
    let _first = serving.worker().await;
    let holder = post(serving, &json!({ "mode": "sleep", "ms": 6_000, "serial": "o-1" })).await.0;
    running(serving, &holder).await;
    // The one worker is busy, so it goes to the one that dies.
    let mut doomed = doomed(serving, "after_lined_up").await;
    let next = post(serving, &json!({ "mode": "sleep", "ms": 9_000, "serial": "o-1" })).await.0;
    died(&mut doomed, "after_lined_up").await;
    // It gets what the dead one had, while the other one gets the same from the line; for longer than a lease.
    let _second = serving.worker().await;
    let (holder, next) = (ended(serving, &holder).await, ended(serving, &next).await);
    for done in [&holder, &next] {
        assert_eq!(
            (&done["state"], done["attempts"].as_array().unwrap().len()),
            (&json!("succeeded"), 1),
            "{done}"
        );
    }
    assert!(ran(&holder).1 <= ran(&next).0);
    leaves_nothing(serving).await;
    assert_eq!(killed.ran().len(), 2, "{:?}", killed.ran());
    assert!(killed.outcomes().await.values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn message_of_an_earlier_attempt_does_not_end_the_turn_of_the_one_that_runs() {
    let serving =
        Serving::api(|config| config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)).await;
    let (broker, (plugin, task)) = (broker(&serving).await, names());
    let hash = serial_hash(&plugin, &task, "o-1");
    // Its second attempt runs on a worker that this test stands for; the first one's worker died before it acknowledged it.
    let mut envelope = chaos_envelope(TaskId::generate(), "keyed", Bytes::from_static(b"{\"mode\":\"ok\"}"));
    envelope.serial_key = Some("o-1".into());
    let mut record = TaskRecord::new(&envelope, State::Running);
    let now = Timestamp::now();
    let attempt = |n, cause: Option<Cause>| Attempt {
        n,
        worker: InstanceId::new("worker-elsewhere").unwrap(),
        started_at: now,
        ended_at: cause.map(|_| now),
        cause,
        error: cause.map(|_| TaskError::new("failed", "no", None)),
    };
    record.attempts = vec![attempt(1, Some(Cause::Error)), attempt(2, None)];
    broker.write_record(&mut record, 0).await.unwrap();
    let second = Turn::of(envelope.id, 2);
    assert_eq!(broker.take_turn(&hash, &plugin, second).await.unwrap(), TurnClaim::Mine(1));
    broker.publish_task(&envelope, WAIT).await.unwrap();

    let worker = serving.worker().await;
    let next = post(&serving, &json!({ "mode": "ok", "serial": "o-1" })).await.0;
    lined_up(&serving, 1).await;
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let queue = format!("{}_TASKS_chaos", serving.config.namespace());
    let mut queue = async_nats::jetstream::new(client).get_stream(queue).await.unwrap();
    eventually(soon(), "the old message is dealt with", async || {
        (queue.info().await.ok()?.state.messages == 0).then_some(())
    })
    .await
    .unwrap();
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
    let waiting = serving.get(&format!("/tasks/{next}")).await.json().unwrap();
    assert_eq!(waiting["state"], "queued", "the turn is not over: {waiting}");
    broker.pass_on(&hash, second).await.unwrap();
    assert_eq!(ended(&serving, &next).await["state"], "succeeded");
}
