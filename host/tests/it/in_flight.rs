//! Tasks that are in flight when their worker ends, in each way in which an operator or the kernel ends one: no
//! process is left, and the task succeeds, there or on the next worker.

use cardcage_harness::{Cardcage, Config, Deadline, Launch, Signal, eventually};
use cardcage_protocol::Timestamp;
use serde_json::{Value, json};

use crate::serving::{Serving, soon};

/// A worker that leads a process group, as one started from a terminal does.
async fn grouped_worker(serving: &Serving) -> Cardcage {
    Launch::new(["worker"]).config(&serving.config).own_group().ready().await.unwrap()
}

/// A task whose first attempt waits `ms` and has begun; a second one would not wait.
async fn in_flight(serving: &Serving, ms: u64) -> String {
    let order = json!({ "mode": "sleep", "ms": ms, "times": 1 });
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.task_id().unwrap();
    eventually(soon(), "the task runs", async || {
        (task(serving, &id).await["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    id
}

async fn task(serving: &Serving, id: &str) -> Value {
    serving.get(&format!("/tasks/{id}")).await.json().unwrap()
}

fn causes(task: &Value) -> Vec<&str> {
    task["attempts"].as_array().unwrap().iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect()
}

/// Asserts that a task succeeded in its first attempt, and was still in flight at that time.
#[track_caller]
fn assert_finished_after(done: &Value, time: Timestamp) {
    assert_eq!((&done["state"], causes(done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    let ended: Timestamp = done["attempts"][0]["ended_at"].as_str().unwrap().parse().unwrap();
    assert!(ended > time, "it was no longer in flight at {time}: {done}");
}

async fn nothing_is_left(worker: &Cardcage) {
    let gone =
        eventually(soon(), "no process is left", async || worker.child_pids().is_empty().then_some(()));
    gone.await.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", worker.child_pids(), worker.stderr()));
}

/// Time to finish a task of some seconds, also on a busy machine.
fn patient(config: Config) -> Config {
    config.set("drain.grace_ms", 20_000)
}

/// No time to finish anything, and a lease that ends while a test waits.
fn hasty(config: Config) -> Config {
    config.set("drain.grace_ms", 500).set("tasks.lease_ms", 3_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn task_in_flight_is_finished_before_its_worker_ends_when_the_whole_group_is_signalled() {
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Serving::api(patient).await;
        let mut worker = grouped_worker(&serving).await;
        let id = in_flight(&serving, 4_000).await;
        let signalled = Timestamp::now();
        worker.signal_group(signal).unwrap();
        assert_eq!(worker.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());
        nothing_is_left(&worker).await;
        // There is no other worker: what stands there now was written before the exit.
        let done = task(&serving, &id).await;
        assert_finished_after(&done, signalled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_outlasts_the_grace_after_a_signal_to_the_group_is_finished_by_the_next_worker() {
    // The lease would hold the task for longer than anybody waits here: only handing it back helps.
    let serving = Serving::api(|config| hasty(config).set("tasks.lease_ms", 600_000)).await;
    let mut worker = grouped_worker(&serving).await;
    let id = in_flight(&serving, 600_000).await;
    worker.signal_group(Signal::TERM).unwrap();
    assert_eq!(worker.wait_exit(soon()).await.unwrap().code(), Some(75), "{}", worker.stderr());
    nothing_is_left(&worker).await;
    let _next = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(
        (&done["state"], causes(&done)),
        (&json!("succeeded"), vec!["interrupted", "succeeded"]),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn task_in_flight_is_finished_by_the_child_whose_supervisor_alone_is_killed() {
    let serving = Serving::api(patient).await;
    let mut worker = serving.worker().await;
    let id = in_flight(&serving, 4_000).await;
    let killed = Timestamp::now();
    worker.kill9();
    nothing_is_left(&worker).await;
    let done = task(&serving, &id).await;
    assert_finished_after(&done, killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_outlasts_the_grace_of_a_killed_supervisors_child_is_finished_by_the_next_worker() {
    let serving = Serving::api(hasty).await;
    let mut worker = serving.worker().await;
    let id = in_flight(&serving, 600_000).await;
    worker.kill9();
    nothing_is_left(&worker).await;
    let _next = serving.worker().await;
    let done = serving.http.final_task(&id, Deadline::seconds(60)).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    let causes = causes(&done);
    assert_eq!(causes.len(), 2, "{done}");
    assert!(["interrupted", "lease_lost"].contains(&causes[0]), "the first attempt is accounted for: {done}");
}
