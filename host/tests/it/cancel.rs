//! Cancelling a task: wherever it is, whatever is killed meanwhile, over HTTP and on the command line.

use crate::serving::{Serving, assert_problem, chaos_envelope, child, signal, soon, wait_metric};
use bytes::Bytes;
use cardcage::broker::{Broker, Options, Place};
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Reply, Signal, eventually};
use cardcage_protocol::{Namespace, State, TaskEnvelope, TaskId, TaskRecord, Timestamp};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "019a0000-0000-7000-8000-000000000000";

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000).set("tasks.cancel_grace_ms", 4_000)
}

async fn accepted(serving: &Serving, order: Value) -> String {
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn cancel(serving: &Serving, id: &str) -> Reply {
    serving.http.send(Method::POST, &format!("/tasks/{id}/cancel"), &[], Bytes::new()).await.unwrap()
}

/// Cancels a task whose handler ends soon, and waits for its outcome: on a busy machine that may come after the answer.
async fn ended_by_cancel(serving: &Serving, id: &str) -> Value {
    let reply = cancel(serving, id).await;
    assert!([200, 202, 409].contains(&reply.status), "{}", reply.text());
    serving.http.final_task(id, soon()).await.unwrap()
}

async fn task(serving: &Serving, id: &str) -> Value {
    serving.get(&format!("/tasks/{id}")).await.json().unwrap()
}

async fn in_state(serving: &Serving, id: &str, state: &str) -> Value {
    eventually(soon(), &format!("the task is {state}"), async || {
        Some(task(serving, id).await).filter(|task| task["state"] == state)
    })
    .await
    .unwrap()
}

async fn broker(serving: &Serving) -> Broker {
    let namespace = Namespace::new(serving.config.namespace()).unwrap();
    let options = Options { url: serving.nats.url(), namespace, ..Options::default() };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    broker
}

fn envelope() -> TaskEnvelope {
    chaos_envelope(TaskId::generate(), "chaos", Bytes::from_static(b"{\"mode\":\"ok\"}"))
}

/// Messages in the queue of chaos and in the schedule.
async fn left(serving: &Serving) -> u64 {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut left = 0;
    for stream in ["TASKS_chaos", "SCHEDULE"] {
        let mut stream =
            context.get_stream(format!("{}_{stream}", serving.config.namespace())).await.unwrap();
        left += stream.info().await.unwrap().state.messages;
    }
    left
}

async fn wait_nothing_left(serving: &Serving) {
    eventually(soon(), "queue and schedule are empty", async || (left(serving).await == 0).then_some(()))
        .await
        .unwrap();
}

fn causes(task: &Value) -> Vec<&str> {
    task["attempts"].as_array().unwrap().iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect()
}

/// Kills a worker, supervisor first: nothing is handed back.
fn kill(worker: &mut Cardcage) {
    let pid = child(worker);
    worker.kill9();
    signal(pid, Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_task_is_cancelled_while_all_workers_are_down_and_is_never_started() {
    let serving = Serving::api(quick).await;
    let id = accepted(&serving, json!({ "mode": "ok" })).await;
    let links = &task(&serving, &id).await["links"];
    assert_eq!(links["cancel"], format!("/tasks/{id}/cancel"));
    let reply = cancel(&serving, &id).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let shown = reply.json().unwrap();
    assert_eq!((&shown["state"], &shown["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(shown["cancel_requested_at"].is_string() && shown["links"]["cancel"].is_null(), "{shown}");
    assert_eq!(left(&serving).await, 0);

    let worker = serving.worker().await;
    let after = accepted(&serving, json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&after, soon()).await.unwrap()["state"], "succeeded");
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
    assert_eq!(task(&serving, &id).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_no_worker_has_been_given_is_cancelled_without_waiting_for_a_holder() {
    let (serving, worker) = Serving::both(|config| quick(config).set("worker.task_concurrency", 1)).await;
    let busy = accepted(&serving, json!({ "mode": "await_cancel" })).await;
    in_state(&serving, &busy, "running").await;
    // A holder of what was delivered is given a second to answer. Of what was not, nobody can be one.
    let mut quickest = WAIT;
    for _ in 0..3 {
        let queued = accepted(&serving, json!({ "mode": "ok" })).await;
        let asked_at = Instant::now();
        let reply = cancel(&serving, &queued).await;
        quickest = quickest.min(asked_at.elapsed());
        assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("cancelled")));
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    assert_eq!(ended_by_cancel(&serving, &busy).await["state"], "succeeded");
    wait_nothing_left(&serving).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_task_answers_409_unknown_404_and_other_methods_405() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "ok" })).await;
    serving.http.final_task(&id, soon()).await.unwrap();
    let reply = cancel(&serving, &id).await;
    assert_problem(&reply, 409, "task_ended");
    assert_eq!(reply.json().unwrap()["state"], "succeeded");
    assert_problem(&cancel(&serving, UNKNOWN).await, 404, "no_such_task");
    assert_problem(&cancel(&serving, "nonsense").await, 404, "no_such_task");
    let get = serving.get(&format!("/tasks/{id}/cancel")).await;
    assert_problem(&get, 405, "method_not_allowed");
    assert_eq!(get.header("allow"), Some("POST"));
    let post = serving.http.post_json(&format!("/tasks/{id}"), &json!({})).await.unwrap();
    assert_problem(&post, 405, "method_not_allowed");
    assert_problem(&serving.get(&format!("/tasks/{id}/nothing")).await, 404, "no_such_route");
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_task_and_one_that_waits_for_its_retry_are_cancelled() {
    let (serving, worker) = Serving::both(quick).await;
    let retrying = accepted(&serving, json!({ "mode": "retry_after", "ms": 600_000 })).await;
    in_state(&serving, &retrying, "retrying").await;
    let delayed = envelope();
    let at = Timestamp::now().plus_ms(600_000);
    broker(&serving).await.schedule_task(&delayed, at, WAIT).await.unwrap();
    assert_eq!(left(&serving).await, 2);
    for id in [retrying, delayed.id.to_string()] {
        let reply = cancel(&serving, &id).await;
        assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("cancelled")));
    }
    wait_nothing_left(&serving).await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_and_retrying_tasks_are_cancelled_while_all_workers_are_down() {
    let (serving, mut worker) = Serving::both(quick).await;
    let retrying = accepted(&serving, json!({ "mode": "retry_after", "ms": 600_000 })).await;
    in_state(&serving, &retrying, "retrying").await;
    let delayed = envelope();
    let at = Timestamp::now().plus_ms(600_000);
    broker(&serving).await.schedule_task(&delayed, at, WAIT).await.unwrap();
    kill(&mut worker);
    for id in [retrying, delayed.id.to_string()] {
        let reply = cancel(&serving, &id).await;
        assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("cancelled")));
    }
    assert_eq!(left(&serving).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_handler_is_told_and_what_it_returns_decides() {
    let (serving, _worker) = Serving::both(quick).await;
    let gives_up = accepted(&serving, json!({ "mode": "fail_when_cancelled" })).await;
    in_state(&serving, &gives_up, "running").await;
    let shown = ended_by_cancel(&serving, &gives_up).await;
    assert_eq!((&shown["state"], causes(&shown)), (&json!("cancelled"), vec!["cancelled"]));
    assert_eq!(shown["error"]["message"], "stopped half-way");

    let finishes = accepted(&serving, json!({ "mode": "await_cancel" })).await;
    in_state(&serving, &finishes, "running").await;
    let done = ended_by_cancel(&serving, &finishes).await;
    assert_problem(&cancel(&serving, &finishes).await, 409, "task_ended");
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]));
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_that_does_not_listen_is_dropped_after_its_grace() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    in_state(&serving, &id, "running").await;
    let reply = cancel(&serving, &id).await;
    assert_eq!((reply.status, &reply.json().unwrap()["state"]), (202, &json!("running")), "{}", reply.text());
    assert!(reply.json().unwrap()["cancel_requested_at"].is_string());
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("cancelled"), vec!["cancelled"]));
    serving.wait_seen("cancelled", 1).await;
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_survives_the_death_of_the_worker_that_was_told() {
    let (serving, mut first) =
        Serving::both(|config| quick(config).set("tasks.cancel_grace_ms", 600_000)).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    in_state(&serving, &id, "running").await;
    assert_eq!(cancel(&serving, &id).await.status, 202);
    kill(&mut first);
    let second = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("cancelled"), vec!["lease_lost"]));
    wait_metric(&second, "cardcage_tasks_total{what=\"started\"} 0").await;
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_of_a_dead_worker_is_cancelled_without_any_other() {
    let (serving, mut worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    in_state(&serving, &id, "running").await;
    kill(&mut worker);
    let reply = cancel(&serving, &id).await;
    assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("cancelled")));
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_survives_a_broker_that_is_killed() {
    let (mut serving, _worker) = Serving::both(quick).await;
    let running = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    let retrying = accepted(&serving, json!({ "mode": "retry_after", "ms": 600_000 })).await;
    in_state(&serving, &running, "running").await;
    in_state(&serving, &retrying, "retrying").await;
    assert_eq!(cancel(&serving, &retrying).await.status, 200);
    assert_eq!(cancel(&serving, &running).await.status, 202);
    serving.nats.kill9();
    assert_problem(&cancel(&serving, &running).await, 503, "broker_unavailable");
    serving.nats.restart().await.unwrap();
    for id in [running, retrying] {
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!(done["state"], "cancelled", "{done}");
    }
    wait_nothing_left(&serving).await;
}

/// The record as a canceller left it that died right after its mark.
async fn marked(broker: &Broker, envelope: &TaskEnvelope) {
    let mut record = TaskRecord::new(envelope, State::Queued);
    record.cancel_requested_at = Some(Timestamp::now());
    broker.write_record(&mut record, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_of_a_canceller_that_died_ends_the_task_with_its_next_delivery() {
    let serving = Serving::api(quick).await;
    let broker = broker(&serving).await;
    let queued = envelope();
    broker.publish_task(&queued, WAIT).await.unwrap();
    marked(&broker, &queued).await;
    assert_eq!(task(&serving, &queued.id.to_string()).await["state"], "queued");
    let _worker = serving.worker().await;
    let done = serving.http.final_task(&queued.id.to_string(), soon()).await.unwrap();
    assert_eq!(done["state"], "cancelled", "{done}");
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_that_comes_after_its_cancellation_is_not_started() {
    let (serving, worker) = Serving::both(quick).await;
    let broker = broker(&serving).await;
    let late = envelope();
    marked(&broker, &late).await;
    // The workers hear of it before the task reaches one of them.
    assert_eq!(broker.tell_cancelled(late.id, Duration::from_millis(500)).await.unwrap(), None);
    broker.publish_task(&late, WAIT).await.unwrap();
    let done = serving.http.final_task(&late.id.to_string(), soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done).len()), (&json!("cancelled"), 0));
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cancellations_at_once_make_one_outcome() {
    let (serving, _worker) = Serving::both(quick).await;
    let mut ids = vec![accepted(&serving, json!({ "mode": "retry_after", "ms": 600_000 })).await];
    in_state(&serving, &ids[0], "retrying").await;
    ids.push(accepted(&serving, json!({ "mode": "fail_when_cancelled" })).await);
    in_state(&serving, &ids[1], "running").await;
    let broker = broker(&serving).await;
    for id in ids {
        let replies = futures_util::future::join_all((0..8).map(|_| cancel(&serving, &id))).await;
        let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
        // Who came after the end is told so, and whoever was answered before it.
        assert!(statuses.iter().all(|s| [200, 202, 409].contains(s)), "{statuses:?}");
        serving.http.final_task(&id, soon()).await.unwrap();
        let place = broker.find_task(id.parse().unwrap()).await.unwrap();
        let Some(Place::Recorded(record, _)) = place else { panic!("it has a record: {place:?}") };
        assert_eq!((record.state, record.attempts.len()), (State::Cancelled, 1));
    }
    wait_nothing_left(&serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_the_control_subject_hurts_nobody() {
    let (serving, _worker) = Serving::both(quick).await;
    let broker = broker(&serving).await;
    for rubbish in [&b""[..], b"\xff\xfe", b"{}", b"{\"id\":1}", b"{\"id\":\"x\"}"] {
        broker.publish(broker.subjects().cancel(), Bytes::from_static(rubbish)).await.unwrap();
    }
    broker.flush(WAIT).await.unwrap();
    let id = accepted(&serving, json!({ "mode": "fail_when_cancelled" })).await;
    in_state(&serving, &id, "running").await;
    assert_eq!(ended_by_cancel(&serving, &id).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_cancel_does_the_same_on_the_command_line() {
    let serving = Serving::api(quick).await;
    let run = async |id: &str, more: &[&str]| {
        let arguments: Vec<&str> = ["tasks", "cancel", id].iter().chain(more).copied().collect();
        Launch::new(arguments).config(&serving.config).run(Deadline::seconds(60)).await.unwrap()
    };
    let id = accepted(&serving, json!({ "mode": "ok" })).await;
    let output = run(&id, &["--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&told["id"], &told["state"]), (&json!(id), &json!("cancelled")));
    assert_eq!(task(&serving, &id).await["state"], "cancelled");
    let again = run(&id, &[]).await;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(again.stderr.contains("has ended cancelled"), "{again:?}");
    let unknown = run(UNKNOWN, &[]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("there is no task"), "{unknown:?}");
}
