//! Bodies that the version which has them cannot decode wait for one that can: with two builds of a plugin, `skew` 1.0 and
//! 1.1, of which only the second can read what the API takes.

use crate::serving::{Serving, soon, wait_metric};
use async_nats::jetstream;
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Output, eventually, plugin_library};
use cardcage_protocol::{Name, Priority, State, TaskAddress, TaskEnvelope, TaskId, Timestamp};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

/// An API with version 1.1 of the plugin, and the configuration of workers with version 1.0.
pub(crate) struct Skewed {
    pub(crate) serving: Serving,
    old: Config,
}

impl Skewed {
    pub(crate) async fn new() -> Self {
        let library = |version: &str| plugin_library(&format!("skew-{version}")).unwrap();
        let serving = Serving::api(|config| {
            let config = config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000);
            config.plugin_at("skew", &library("new"))
        })
        .await;
        let old = serving.config.clone().plugin_at("skew", &library("old"));
        Self { serving, old }
    }

    pub(crate) async fn old_worker(&self) -> Cardcage {
        Cardcage::worker(&self.old).await.unwrap()
    }

    /// Enqueues a payment that only version 1.1 can read.
    pub(crate) async fn pay(&self) -> String {
        let body = json!({ "amount": { "units": 5, "currency": "eur" } });
        let reply = self.serving.http.post_json("/skew/pay", &body).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.task_id().unwrap()
    }

    pub(crate) async fn show(&self, id: &str) -> Value {
        self.serving.get(&format!("/tasks/{id}")).await.json().unwrap()
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        Launch::new(arguments.iter().copied()).config(&self.serving.config).run(soon()).await.unwrap()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Messages of a stream.
    pub(crate) async fn messages(&self, stream: &str) -> u64 {
        let client = async_nats::connect(self.serving.nats.url()).await.unwrap();
        let name = format!("{}_{stream}", self.serving.config.namespace());
        let stream = jetstream::new(client).get_stream(name).await.unwrap();
        stream.get_info().await.unwrap().state.messages
    }

    /// Waits until the task stands among the parked ones, and nowhere else.
    pub(crate) async fn parked(&self, id: &str) {
        eventually(soon(), "the task is parked", async || {
            let state = self.show(id).await["state"].clone();
            let stands = (self.messages("PARKED").await, self.messages("TASKS_skew").await);
            (state == "parked" && stands == (1, 0)).then_some(())
        })
        .await
        .unwrap();
    }

    /// Waits until the task has succeeded, by version 1.1, and nothing is left of it. Answers how its attempts ended.
    async fn paid(&self, id: &str) -> Vec<String> {
        let done = self.serving.http.final_task(id, Deadline::seconds(60)).await.unwrap();
        assert_eq!(
            (&done["state"], &done["result"]),
            (&json!("succeeded"), &json!("1.1 paid 5 eur")),
            "{done}"
        );
        eventually(soon(), "nothing is left", async || {
            let left = (self.messages("PARKED").await, self.messages("TASKS_skew").await);
            (left == (0, 0)).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(self.messages("DEAD").await, 0);
        let attempts = done["attempts"].as_array().unwrap().iter();
        attempts.map(|attempt| format!("{} {}", attempt["n"], attempt["cause"].as_str().unwrap())).collect()
    }
}

/// What being parked costs: nothing.
const FIRST: [&str; 1] = ["1 succeeded"];

/// A payment as another enqueuer would write it.
pub(crate) fn payment(body: &Value) -> TaskEnvelope {
    let address = TaskAddress {
        plugin: Name::new("skew").unwrap(),
        major: 1,
        task: Name::new("pay").unwrap(),
        priority: Priority::Normal,
        id: TaskId::generate(),
    };
    TaskEnvelope::new(address, "1.1.0".into(), Timestamp::now(), body.to_string().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_newer_minor_version_waits_parked_and_runs_once_when_that_version_comes() {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    wait_metric(&old, "cardcage_tasks_total{what=\"parked\"} 1").await;
    let task = skewed.show(&id).await;
    assert_eq!((&task["attempt"], &task["attempts"]), (&json!(0), &json!([])), "it was no attempt: {task}");
    assert_eq!(task["error"]["code"], "undecodable", "{task}");
    let broker = skewed.serving.broker(Duration::from_secs(3)).await;
    let parked = broker.find_parked(id.parse().unwrap()).await.unwrap().unwrap();
    let deployed = broker.deployed(cardcage::deployed::By::Worker).await.unwrap();
    let mut versions = deployed.into_iter().map(|deployed| deployed.description);
    let version = versions.find(|version| version.version.starts_with("1.0.")).unwrap();
    let pay = version.tasks.iter().find(|task| task.name == "pay").unwrap();
    assert_eq!(parked.schemas, [pay.reader_hash(&version.version)], "whose schema it did not fit");
    assert_eq!(task["parked_schemas"], json!(parked.schemas), "{task}");
    let why = skewed.json(&["tasks", "why", &id]).await;
    assert_eq!((&why["state"], &why["code"]), (&json!("parked"), &json!("parked")));
    assert!(why["why"].as_str().unwrap().contains("invalid type"), "{why}");
    let list = skewed.json(&["tasks", "list", "--state", "parked"]).await;
    let rows = list["tasks"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["id"]).collect::<Vec<_>>(), [&json!(id)], "{list}");
    assert!(rows[0]["error"].as_str().unwrap().contains("does not fit at `amount`"), "{list}");

    // What that version can read, it goes on to run.
    let reply = skewed.serving.http.post_json("/skew/pay", &json!({ "amount": 7 })).await.unwrap();
    let done = skewed.serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(done["result"], "1.0 paid 7");

    // Whoever of the two takes it when it comes back, it ends with the one that can read it.
    let new = skewed.serving.worker().await;
    assert_eq!(skewed.paid(&id).await, FIRST);
    let brought_back = new.admin().unwrap().get("/metrics").await.unwrap().text();
    assert!(!brought_back.contains("cardcage_tasks_total{what=\"unparked\"} 0"), "{brought_back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_task_comes_back_long_after_its_enqueuer_stopped_waiting() {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    let broker = skewed.serving.broker(Duration::from_secs(3)).await;
    let mut envelope = payment(&json!({ "amount": { "units": 5, "currency": "eur" } }));
    let id = envelope.id.to_string();
    let accept_by = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(5_000);
    envelope.accept_by = Some(accept_by);
    broker.publish_task(&envelope, Duration::from_secs(2)).await.unwrap();
    skewed.parked(&id).await;
    drop(old);
    eventually(soon(), "what is stored from now on under that time was never promised", async || {
        (broker.now_unix_ms() > accept_by.unix_ms()).then_some(())
    })
    .await
    .unwrap();
    let _new = skewed.serving.worker().await;
    assert_eq!(skewed.paid(&id).await, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_comes_back_while_the_message_that_was_parked_is_still_here_is_not_taken_for_a_copy() {
    let skewed = Skewed::new().await;
    let point = ("CARDCAGE_FAILPOINT", "before_ack");
    let doomed = Launch::new(["worker"]).config(&skewed.old).env(point.0, point.1);
    let mut doomed = doomed.ready().await.unwrap();
    let id = skewed.pay().await;
    assert_eq!(doomed.wait_exit(soon()).await.unwrap().signal(), Some(9), "{}", doomed.stderr());
    // Parked, and its message is still in the queue. It comes back by hand, as behind a worker that was stopped just then.
    let retried = skewed.json(&["tasks", "retry", &id]).await;
    assert_eq!(retried["what"], "unparked");
    assert_eq!((skewed.messages("PARKED").await, skewed.messages("TASKS_skew").await), (0, 2));
    let since = std::time::Instant::now();
    eventually(soon(), "the lease of the worker that died has ended", async || {
        (since.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await
    .unwrap();
    // Both come in one answer.
    let _new = skewed.serving.worker().await;
    assert_eq!(skewed.paid(&id).await, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_does_not_bring_back_what_it_parked_itself() {
    let skewed = Skewed::new().await;
    let first = skewed.old_worker().await;
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    drop(first);
    let second = skewed.old_worker().await;
    // It looks when it starts; asked for by hand it does take the task, which is how it is known to be at work.
    let retried = skewed.json(&["tasks", "retry", &id]).await;
    assert_eq!(retried["what"], "unparked");
    wait_metric(&second, "cardcage_tasks_total{what=\"parked\"} 1").await;
    skewed.parked(&id).await;
    wait_metric(&second, "cardcage_tasks_total{what=\"unparked\"} 0").await;
    let _new = skewed.serving.worker().await;
    drop(second);
    assert_eq!(skewed.paid(&id).await, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_schemas_accept_and_handlers_do_not_is_not_passed_to_and_fro_between_versions() {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    // JSON Schema knows no bound of a 32-bit number.
    let body = json!({ "amount": 5_000_000_000_u64 });
    let reply = skewed.serving.http.post_json("/skew/pay", &body).await.unwrap();
    let id = reply.task_id().unwrap();
    skewed.parked(&id).await;
    let new = skewed.serving.worker().await;
    // Version 1.1 brings it back until it has had it, which 1.0 may put off by taking it again.
    wait_metric(&new, "cardcage_tasks_total{what=\"parked\"} 1").await;
    skewed.parked(&id).await;
    // A later task that only one of them can read: where that has looked again, it has left the other one alone.
    let later = skewed.pay().await;
    assert_eq!(skewed.serving.http.final_task(&later, soon()).await.unwrap()["state"], "succeeded");
    skewed.parked(&id).await;
    wait_metric(&new, "cardcage_tasks_total{what=\"parked\"} 1").await;
    wait_metric(&old, "cardcage_tasks_total{what=\"unparked\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_task_that_is_cancelled_ends_and_does_not_come_back() {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    drop(old);
    let cancelled = skewed.command(&["tasks", "cancel", &id]).await;
    assert_eq!(cancelled.status.code(), Some(0), "{cancelled:?}");
    assert_eq!(skewed.show(&id).await["state"], "cancelled");
    assert_eq!(skewed.messages("PARKED").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_canceller_left_among_the_parked_tasks_is_ended_and_removed() {
    let skewed = Skewed::new().await;
    let _old = skewed.old_worker().await;
    let broker = skewed.serving.broker(Duration::from_secs(3)).await;
    // Killed after its mark; killed after the outcome.
    for state in [State::Parked, State::Cancelled] {
        let id = skewed.pay().await;
        skewed.parked(&id).await;
        let (mut record, fence) = broker.read_record(id.parse().unwrap()).await.unwrap().unwrap();
        record.cancel_requested_at = Some(Timestamp::now());
        record.state = state;
        broker.write_record(&mut record, fence).await.unwrap();
        eventually(soon(), "nothing is left of it", async || {
            (skewed.messages("PARKED").await == 0).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(skewed.show(&id).await["state"], "cancelled");
    }
}

/// A worker with version 1.0 that is killed at `point` while it parks a task.
async fn killed_while_parking(point: &str) {
    let skewed = Skewed::new().await;
    let mut doomed =
        Launch::new(["worker"]).config(&skewed.old).env("CARDCAGE_FAILPOINT", point).ready().await.unwrap();
    let id = skewed.pay().await;
    let end = doomed.wait_exit(soon()).await.unwrap();
    assert_eq!(end.signal(), Some(9), "{point} is reached: {}", doomed.stderr());
    let old = skewed.old_worker().await;
    skewed.parked(&id).await;
    assert_eq!(skewed.messages("DEAD").await, 0);
    drop(old);
    let _new = skewed.serving.worker().await;
    assert_eq!(skewed.paid(&id).await, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_the_record_of_a_parking_and_the_parking_has_it_parked_once() {
    killed_while_parking("after_record").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_a_parking_and_its_acknowledgement_has_it_parked_once() {
    killed_while_parking("before_ack").await;
}

/// A worker with version 1.1 that is killed at `point` while it brings a parked task back; another one goes on.
async fn killed_while_unparking(point: &str) -> Vec<String> {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    drop(old);
    let doomed = Launch::new(["worker"]).config(&skewed.serving.config).env("CARDCAGE_FAILPOINT", point);
    // It looks as soon as it has the broker, which may be before it is ready.
    let end = doomed.run(soon()).await.unwrap();
    assert_eq!(end.status.signal(), Some(9), "{point} is reached: {}", end.stderr);
    let _new = skewed.serving.worker().await;
    skewed.paid(&id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_the_record_of_a_return_and_the_return_has_the_task_run_once() {
    assert_eq!(killed_while_unparking("unparked_record").await, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_a_return_and_its_removal_has_the_task_run_once() {
    let attempts = killed_while_unparking("unparked_publish").await;
    // The task may have been delivered to the worker that died, which is a lost attempt like any other.
    let lost = ["1 lease_lost", "2 succeeded"];
    assert!(attempts == FIRST || attempts == lost, "{attempts:?}");
}
