//! What becomes of a task, with real workers that fail, stall, stop and are lost.

use crate::serving::{Serving, chaos_envelope, child, pause, signal, soon, wait_metric};
use bytes::Bytes;
use cardcage::broker::Broker;
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Signal, eventually};
use cardcage_protocol::{
    Attempt, Cause, FollowUp, InstanceId, Name, State, TaskEnvelope, TaskError, TaskId, TaskRecord, Timestamp,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(3);

/// Short times, so that what was lost comes back while a test waits.
fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

async fn accepted(serving: &Serving, path: &str, body: &Value) -> String {
    let reply = serving.http.post_json(path, body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// Runs one task of chaos to its end.
async fn outcome(serving: &Serving, path: &str, order: Value) -> Value {
    let id = accepted(serving, path, &order).await;
    serving.http.final_task(&id, soon()).await.unwrap()
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

fn causes(task: &Value) -> Vec<&str> {
    task["attempts"].as_array().unwrap().iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect()
}

fn envelope(body: &'static str) -> TaskEnvelope {
    chaos_envelope(TaskId::generate(), "chaos", Bytes::from_static(body.as_bytes()))
}

/// The subjects and reasons of all dead letters.
async fn letters(serving: &Serving) -> Vec<(String, String)> {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut stream = context.get_stream(format!("{}_DEAD", serving.config.namespace())).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut letters = Vec::new();
    for sequence in 1..=last {
        let letter = stream.get_raw_message(sequence).await.unwrap();
        let reason = letter.headers.get("Cardcage-Dead-Reason").unwrap().to_string();
        letters.push((letter.subject.to_string(), reason));
    }
    letters
}

/// Waits until the queue of chaos is empty: every delivery was acknowledged.
async fn wait_queue_empty(serving: &Serving) {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut stream = context.get_stream(format!("{}_TASKS_chaos", serving.config.namespace())).await.unwrap();
    eventually(soon(), "the queue is empty", async || {
        (stream.info().await.ok()?.state.messages == 0).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_task_is_tried_again_until_it_succeeds_or_its_attempts_are_used_up() {
    let (serving, _worker) = Serving::both(quick).await;
    let done = outcome(&serving, "/chaos/task", json!({ "mode": "fail_until", "times": 3 })).await;
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["error", "error", "succeeded"]));
    let panicked = outcome(&serving, "/chaos/task", json!({ "mode": "panic", "times": 1 })).await;
    assert_eq!((&panicked["state"], causes(&panicked)), (&json!("succeeded"), vec!["panic", "succeeded"]));
    let later =
        outcome(&serving, "/chaos/task", json!({ "mode": "retry_after", "ms": 300, "times": 1 })).await;
    assert_eq!(causes(&later), ["retry_requested", "succeeded"]);
    let time =
        |n: usize, what: &str| later["attempts"][n][what].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time(1, "started_at").unix_ms() >= time(0, "ended_at").unix_ms() + 300, "never early: {later}");

    let failed = outcome(&serving, "/chaos/short", json!({ "mode": "fail" })).await;
    assert_eq!((&failed["state"], causes(&failed)), (&json!("failed"), vec!["error"; 3]));
    assert_eq!(failed["error"]["message"], "failed as told");
    wait_queue_empty(&serving).await;
    let letters = letters(&serving).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].0.ends_with(failed["id"].as_str().unwrap()), "{letters:?}");
    assert!(letters[0].1.contains("all 3 attempts"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_final_is_not_tried_again() {
    let (serving, _worker) = Serving::both(quick).await;
    let cases = [
        (json!({ "mode": "fail_for_good" }), "failed", "error", "failed"),
        (json!({ "mode": "discard" }), "cancelled", "discarded", "discarded"),
        (json!({ "mode": "huge_reply", "times": 1 }), "failed", "error", "result_too_large"),
        (json!({ "mode": "big_error", "times": 5 }), "failed", "error", "failed"),
    ];
    for (order, state, cause, code) in cases {
        let done = outcome(&serving, "/chaos/task", order).await;
        assert_eq!((&done["state"], &done["error"]["code"]), (&json!(state), &json!(code)), "{done}");
        assert_eq!(causes(&done), [cause], "{done}");
        // The last error has at most 64 KiB, and stands there once more, shorter, with its attempt.
        assert!(done.to_string().len() < 80_000, "errors stay small");
    }
    wait_queue_empty(&serving).await;
    assert_eq!(letters(&serving).await.len(), 3, "what was discarded leaves no letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_over_its_hard_limit_is_cancelled_and_tried_again() {
    let (serving, _worker) = Serving::both(quick).await;
    let done = outcome(&serving, "/chaos/short", json!({ "mode": "sleep", "ms": 30_000, "times": 1 })).await;
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["timeout", "succeeded"]));
    serving.wait_seen("cancelled", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_task_keeps_its_lease_and_runs_once() {
    let (serving, worker) = Serving::both(quick).await;
    let _second = serving.worker().await;
    // Whether it waits or holds its thread: for three leases.
    for mode in ["sleep", "block"] {
        let id = accepted(&serving, "/chaos/task", &json!({ "mode": mode, "ms": 9_000 })).await;
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!(causes(&done), ["succeeded"], "{mode}");
    }
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_run_end_as_dead_letters_and_hold_up_nobody() {
    let (serving, worker) = Serving::both(quick).await;
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let prefix = format!("{}.task.chaos.v0.chaos.p5", serving.config.namespace());
    let nameless = format!("{prefix}.{}", TaskId::generate());
    for subject in [&nameless, &format!("{prefix}.not-an-id")] {
        context.publish(subject.clone(), "rubbish".into()).await.unwrap().await.unwrap();
    }
    wait_queue_empty(&serving).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"unreadable\"} 2").await;
    let letters = letters(&serving).await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(
        letters.iter().filter(|(_, reason)| reason.contains("not an envelope")).count() == 2,
        "{letters:?}"
    );
    assert_eq!(outcome(&serving, "/chaos/task", json!({ "mode": "ok" })).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_after_its_promise_is_dropped_and_what_is_expired_is_not_started() {
    let (serving, worker) = Serving::both(quick).await;
    let broker = serving.broker(LEASE).await;
    let mut late = envelope("{\"mode\":\"ok\"}");
    late.accept_by = Some(Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 60_000));
    broker.publish_task(&late, WAIT).await.unwrap();
    let mut expired = envelope("{\"mode\":\"ok\"}");
    expired.expires_at = late.accept_by;
    broker.publish_task(&expired, WAIT).await.unwrap();
    let done = serving.http.final_task(&expired.id.to_string(), soon()).await.unwrap();
    assert_eq!(done["state"], "expired");
    wait_metric(&worker, "cardcage_tasks_total{what=\"unpromised\"} 1").await;
    wait_queue_empty(&serving).await;
    assert_eq!(serving.get(&format!("/tasks/{}", late.id)).await.status, 404);
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
}

/// A record as a worker left it that died after this write and before the next.
fn left_behind(envelope: &TaskEnvelope, state: State, owes: FollowUp) -> TaskRecord {
    let now = Timestamp::now();
    let mut record = TaskRecord::new(envelope, state);
    record.attempts.push(Attempt {
        n: 1,
        worker: InstanceId::new("worker-gone").unwrap(),
        started_at: now,
        ended_at: Some(now),
        cause: Some(Cause::Error),
        error: Some(TaskError::new("error", "no", None)),
    });
    record.follow_up.push(owes);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_owed_is_made_up_for_and_nothing_runs_twice() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    // Recorded and not yet scheduled; failed and no letter yet; succeeded and not acknowledged.
    let retrying = envelope("{\"mode\":\"ok\"}");
    let owes = FollowUp::ScheduleRetry { attempt: 2, at: Timestamp::now() };
    let mut record = left_behind(&retrying, State::Retrying, owes);
    broker.write_record(&mut record, 0).await.unwrap();
    let failed = envelope("{\"mode\":\"ok\"}");
    let owes = FollowUp::DeadLetter { reason: "gave up".into() };
    broker.write_record(&mut left_behind(&failed, State::Failed, owes), 0).await.unwrap();
    let succeeded = envelope("{\"mode\":\"ok\"}");
    broker.write_record(&mut TaskRecord::new(&succeeded, State::Succeeded), 0).await.unwrap();
    let queue = [&retrying, &failed, &succeeded];
    // Delivered once, to a worker that is gone: only a redelivery reads the record.
    lose(&broker, &queue).await;

    let worker = serving.worker().await;
    let done = serving.http.final_task(&retrying.id.to_string(), soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["error", "succeeded"]));
    wait_queue_empty(&serving).await;
    let letters = letters(&serving).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].1, "gave up");
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_that_waits_in_its_queue_for_long_is_not_queued_again_by_what_its_dead_worker_left() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    // Its worker died after it had scheduled the retry, which has come to the queue since; so long ago that the queue does
    // not know its message id any more.
    let first = envelope("{\"mode\":\"ok\"}");
    let owes = FollowUp::ScheduleRetry { attempt: 2, at: Timestamp::now() };
    broker.write_record(&mut left_behind(&first, State::Retrying, owes), 0).await.unwrap();
    lose(&broker, &[&first]).await;
    broker.publish_task_in_round(&first.retry(), 1, WAIT).await.unwrap();
    let pause = async |what: &str| {
        let command = Launch::new(["queues", what, "chaos.chaos"]).config(&serving.config);
        assert_eq!(command.run(soon()).await.unwrap().status.code(), Some(0));
    };
    // What was lost comes first, once its lease has ended.
    pause("pause").await;
    let lost_at = Instant::now();
    let worker = serving.worker().await;
    eventually(soon(), "the lease has ended", async || (lost_at.elapsed() > LEASE * 2).then_some(()))
        .await
        .unwrap();
    pause("resume").await;
    let done = serving.http.final_task(&first.id.to_string(), soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["error", "succeeded"]));
    wait_queue_empty(&serving).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for (stream, ever) in [("SCHEDULE", 0), ("TASKS_chaos", 2)] {
        let name = format!("{}_{stream}", serving.config.namespace());
        let state = context.get_stream(name).await.unwrap().get_info().await.unwrap().state;
        assert_eq!(state.last_sequence, ever, "{stream}: nothing was stored a second time");
    }
}

/// Publishes tasks, takes them as a worker would, and is never heard of again.
async fn lose(broker: &Broker, tasks: &[&TaskEnvelope]) {
    let chaos = Name::new("chaos").unwrap();
    broker.ensure_layout(std::slice::from_ref(&chaos)).await.unwrap();
    for task in tasks {
        broker.publish_task(task, WAIT).await.unwrap();
    }
    let spec = cardcage::broker::ConsumerSpec::task(broker.options(), broker.subjects(), &chaos, 0, &chaos);
    let mut pull = cardcage::broker::Pull::new(broker, spec);
    pull.add_demand(tasks.len());
    for _ in tasks {
        tokio::time::timeout(WAIT, pull.next()).await.unwrap();
    }
    assert!(pull.close().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_is_lost_again_and_again_becomes_a_dead_letter() {
    let serving = Serving::api(|config| quick(config).set("tasks.lost_limit", 1)).await;
    let broker = serving.broker(LEASE).await;
    let lost = envelope("{\"mode\":\"ok\"}");
    lose(&broker, &[&lost]).await;
    let worker = serving.worker().await;
    let done = serving.http.final_task(&lost.id.to_string(), soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("failed"), vec!["lease_lost"]));
    wait_queue_empty(&serving).await;
    assert_eq!(letters(&serving).await.len(), 1);
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_worker_hands_back_at_once_what_it_cannot_finish() {
    let serving =
        Serving::api(|config| config.set("tasks.lease_ms", 60_000).set("drain.grace_ms", 2_000)).await;
    let mut first = serving.worker().await;
    let order = json!({ "mode": "sleep", "ms": 8_000, "times": 1 });
    let id = accepted(&serving, "/chaos/task", &order).await;
    running(&serving, &id).await;
    let _second = serving.worker().await;
    let status = first.stop(soon()).await.unwrap();
    assert_eq!(status.code(), Some(75), "the grace was exceeded: {}", first.stderr());
    // Long before the lease would have ended.
    let done = serving.http.final_task(&id, Deadline::seconds(20)).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["interrupted", "succeeded"]));
}

/// Stops a worker and its child, which it returns. The supervisor as well: it renews the lease for as long as the child's
/// heartbeat is fresh.
async fn suspend(worker: &Cardcage) -> u32 {
    let stalled = child(worker);
    worker.pause().await.unwrap();
    pause(stalled).await;
    stalled
}

async fn wake_and_be_refused(worker: &Cardcage, stalled: u32) {
    signal(stalled, Signal::CONT);
    worker.signal(Signal::CONT).unwrap();
    wait_metric(worker, "cardcage_tasks_total{what=\"refused\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_completion_of_a_lost_lease_is_refused() {
    let (serving, first) = Serving::both(quick).await;
    let order = json!({ "mode": "sleep", "ms": 1_500, "times": 1 });
    let id = accepted(&serving, "/chaos/task", &order).await;
    running(&serving, &id).await;
    let stalled = suspend(&first).await;
    let _second = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    // With so short a lease the broker may first have offered it once more to the stalled worker's standing pull.
    let causes = causes(&done);
    assert_eq!(causes.last(), Some(&"succeeded"), "{done}");
    assert!(causes.len() > 1 && causes.iter().rev().skip(1).all(|cause| *cause == "lease_lost"), "{done}");
    wake_and_be_refused(&first, stalled).await;
    let after = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
    assert_eq!(after, done, "the outcome stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_completion_is_refused_also_where_the_outcome_is_forgotten_already() {
    let (serving, first) = Serving::both(quick).await;
    let order = json!({ "mode": "sleep", "ms": 1_500 });
    let id = accepted(&serving, "/chaos/task", &order).await;
    running(&serving, &id).await;
    let stalled = suspend(&first).await;
    let _second = serving.worker().await;
    serving.http.final_task(&id, soon()).await.unwrap();
    wait_queue_empty(&serving).await;
    // As after its time to live.
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let records = context.get_stream(format!("{}_STATE", serving.config.namespace())).await.unwrap();
    records.purge().filter(format!("{}.state.{id}", serving.config.namespace())).await.unwrap();
    wake_and_be_refused(&first, stalled).await;
    assert_eq!(serving.get(&format!("/tasks/{id}")).await.status, 404, "nobody wrote another outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_outlives_a_broker_that_is_away_while_the_handler_ends() {
    let (mut serving, worker) = Serving::both(quick).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 1_500 })).await;
    running(&serving, &id).await;
    serving.nats.kill9();
    let tried = eventually(soon(), "the worker tries to store the outcome", async || {
        worker.stderr().contains("record could not be written").then_some(())
    });
    tried.await.unwrap();
    serving.nats.restart().await.unwrap();
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]));
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
    wait_queue_empty(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_task_leaves_slots_to_the_plugins_other_tasks() {
    let (serving, _worker) = Serving::both(|config| quick(config).set("worker.task_concurrency", 4)).await;
    // Twenty seconds of work for all slots but the other task's own.
    for _ in 0..60 {
        accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 1_000 })).await;
    }
    let began = Instant::now();
    let done = outcome(&serving, "/chaos/short", json!({ "mode": "ok" })).await;
    assert_eq!(done["state"], "succeeded");
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_tasks_run_at_once_than_there_are_slots() {
    let (serving, worker) = Serving::both(|config| quick(config).set("worker.task_concurrency", 1)).await;
    let mut ids = Vec::new();
    for path in ["/chaos/task", "/chaos/short", "/chaos/task", "/chaos/short"] {
        ids.push(accepted(&serving, path, &json!({ "mode": "sleep", "ms": 300 })).await);
    }
    let mut spans = Vec::new();
    for id in &ids {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!(causes(&done), ["succeeded"], "{done}");
        let time = |what: &str| done["attempts"][0][what].as_str().unwrap().parse::<Timestamp>().unwrap();
        spans.push((time("started_at"), time("ended_at")));
    }
    spans.sort();
    assert!(spans.is_sorted_by(|a, b| a.1 <= b.0), "attempts overlap: {spans:?}\n{}", worker.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_tasks_at_once_are_all_done_once() {
    let (serving, worker) = Serving::both(quick).await;
    let _second: Cardcage = serving.worker().await;
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..400 {
        let http = serving.http.clone();
        posts.spawn(async move {
            let reply = http.post_json("/hello/task", &json!({ "n": n })).await.unwrap();
            (n, reply.task_id().unwrap())
        });
    }
    for (n, id) in posts.join_all().await {
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!((&done["result"], causes(&done)), (&json!({ "n": n }), vec!["succeeded"]));
    }
    wait_metric(&worker, "cardcage_tasks_in_flight 0").await;
}
