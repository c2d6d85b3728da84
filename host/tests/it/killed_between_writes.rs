//! A worker is killed between each pair of the writes that an attempt's end takes: the record, what the record owes, the
//! acknowledgement. Whoever gets the redelivery ends it, once.

use crate::serving::{Serving, soon};
use crate::webhooks::queue_is_empty;
use cardcage_harness::{Cardcage, Config, Deadline, Launch, eventually};
use cardcage_protocol::TaskId;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// An installation, what it stored of each task's end, and what its handlers really did.
pub(crate) struct Killed {
    pub(crate) serving: Serving,
    outcomes: async_nats::Subscriber,
    trace: PathBuf,
    _folder: TempDir,
}

impl Killed {
    pub(crate) async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub(crate) async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        std::fs::write(&trace, "").unwrap();
        let serving = Serving::api(|config| {
            // Short, so that what a killed worker held comes back while a test waits.
            let config = config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000);
            change(config.plugin_set("chaos", "trace", trace.display().to_string()))
        })
        .await;
        let client = async_nats::connect(serving.nats.url()).await.unwrap();
        let outcomes = client.subscribe(format!("{}.done.>", serving.config.namespace())).await.unwrap();
        client.flush().await.unwrap();
        Self { serving, outcomes, trace, _folder: folder }
    }

    /// A worker that is killed at `point` while it does `order`; then one that is not. Answers the task's id.
    pub(crate) async fn at(&self, point: &str, path: &str, order: &Value) -> (String, Cardcage) {
        let id = self.kill_at(point, path, order).await;
        (id, self.serving.worker().await)
    }

    /// A worker that is killed at `point` while it does `order`. Answers the task's id.
    pub(crate) async fn kill_at(&self, point: &str, path: &str, order: &Value) -> String {
        let doomed = Launch::new(["worker"]).config(&self.serving.config).env("CARDCAGE_FAILPOINT", point);
        let mut doomed = doomed.ready().await.unwrap();
        let reply = self.serving.http.post_json(path, order).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        let id = reply.task_id().unwrap();
        let end = doomed.wait_exit(soon()).await.unwrap();
        assert_eq!(end.signal(), Some(9), "{point} is reached: {}", doomed.stderr());
        eventually(soon(), "its child is gone", async || doomed.child_pids().is_empty().then_some(()))
            .await
            .unwrap();
        id
    }

    /// Waits for the task's end and until its message is gone.
    pub(crate) async fn end(&self, id: &str) -> Value {
        let done = self.serving.http.final_task(id, Deadline::seconds(60)).await.unwrap();
        queue_is_empty(&self.serving.nats, &self.serving.config, "chaos").await;
        done
    }

    /// How many final records were stored, by task.
    pub(crate) async fn outcomes(&mut self) -> HashMap<String, usize> {
        // Whatever was stored before this is here before this comes back.
        let mark = format!("{}.done.mark", self.serving.config.namespace());
        let client = async_nats::connect(self.serving.nats.url()).await.unwrap();
        client.publish(mark.clone(), "".into()).await.unwrap();
        client.flush().await.unwrap();
        let mut found = HashMap::new();
        while let Some(message) = self.outcomes.next().await {
            if message.subject.as_str() == mark {
                break;
            }
            let record: Value = serde_json::from_slice(&message.payload).unwrap();
            if !record["finished_at"].is_null() {
                *found.entry(record["id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        found
    }

    /// The attempts that came to a good end, as `<task> <attempt>`.
    pub(crate) fn ran(&self) -> Vec<String> {
        std::fs::read_to_string(&self.trace).unwrap().lines().map(str::to_owned).collect()
    }
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

fn letters(text: &str) -> usize {
    let list: Value = serde_json::from_str(text).unwrap();
    list["letters"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_before_the_record_of_a_completion_has_its_task_run_again_and_ended_once() {
    let mut killed = Killed::new().await;
    let (id, _worker) = killed.at("before_record", "/chaos/task", &json!({ "mode": "ok" })).await;
    let done = killed.end(&id).await;
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["lease_lost", "succeeded"]));
    assert_eq!(killed.ran(), [format!("{id} 1"), format!("{id} 2")], "nothing said that it had run");
    assert_eq!(killed.outcomes().await, HashMap::from([(id, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_record_and_acknowledgement_of_a_completion_has_nothing_run_again() {
    for point in ["after_record", "before_ack"] {
        let mut killed = Killed::new().await;
        let (id, _worker) = killed.at(point, "/chaos/task", &json!({ "mode": "ok" })).await;
        let done = killed.end(&id).await;
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{point}");
        assert_eq!(killed.ran(), [format!("{id} 1")], "{point}");
        assert_eq!(killed.outcomes().await, HashMap::from([(id, 1)]), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_any_two_writes_of_a_retry_has_it_tried_again_once() {
    for point in ["after_record", "after_follow_up", "before_ack"] {
        let mut killed = Killed::new().await;
        let order = json!({ "mode": "fail_until", "times": 2 });
        let (id, _worker) = killed.at(point, "/chaos/task", &order).await;
        let done = killed.end(&id).await;
        assert_eq!(
            (&done["state"], causes(&done)),
            (&json!("succeeded"), vec!["error", "succeeded"]),
            "{point}"
        );
        assert_eq!(killed.ran(), [format!("{id} 2")], "{point}");
        assert_eq!(killed.outcomes().await, HashMap::from([(id, 1)]), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_any_two_writes_of_a_dead_letter_leaves_one_letter() {
    for point in ["after_record", "after_follow_up", "before_ack"] {
        let mut killed = Killed::new().await;
        let (id, _worker) = killed.at(point, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
        let done = killed.end(&id).await;
        assert_eq!((&done["state"], causes(&done)), (&json!("failed"), vec!["error"]), "{point}");
        let list =
            Launch::new(["dead", "list", "--json"]).config(&killed.serving.config).run(soon()).await.unwrap();
        assert_eq!(letters(&list.stdout), 1, "{point}: {}", list.stdout);
        assert_eq!(killed.outcomes().await, HashMap::from([(id, 1)]), "{point}");
    }
}

/// How often each task ran, but for `parent`.
fn runs_of_others(killed: &Killed, parent: &str) -> HashMap<String, usize> {
    let mut runs = HashMap::new();
    for line in killed.ran() {
        let (id, _) = line.split_once(' ').unwrap();
        if id != parent {
            *runs.entry(id.to_owned()).or_default() += 1;
        }
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_any_two_writes_of_a_task_with_children_has_each_child_run_once() {
    // Children that are due at once may be running in the worker when it is killed, and are then begun again.
    for (point, delay_ms) in [
        ("after_record", 0),
        ("after_child:2", 2_000),
        ("after_child:2", 0),
        ("after_follow_up", 2_000),
        ("before_ack", 0),
    ] {
        let mut killed = Killed::new().await;
        let order = json!({ "mode": "ok", "ms": delay_ms, "children": 3 });
        let (id, _worker) = killed.at(point, "/chaos/task", &order).await;
        let children: Vec<_> = (0..3).map(|n| TaskId::derive(id.parse().unwrap(), n).to_string()).collect();
        for child in &children {
            assert_eq!(killed.end(child).await["state"], "succeeded", "{point}");
        }
        let done = killed.end(&id).await;
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{point}");
        let once: HashMap<_, _> = children.into_iter().map(|child| (child, 1)).collect();
        let mut outcomes = killed.outcomes().await;
        assert_eq!(outcomes.remove(&id), Some(1), "{point}");
        assert_eq!(outcomes, once, "{point}");
        if delay_ms > 0 {
            assert_eq!(runs_of_others(&killed, &id), once, "{point}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_before_the_record_of_a_task_with_children_has_enqueued_none_of_them() {
    let mut killed = Killed::new().await;
    let (id, _worker) =
        killed.at("before_record", "/chaos/task", &json!({ "mode": "ok", "children": 3 })).await;
    let done = killed.end(&id).await;
    assert_eq!(causes(&done), ["lease_lost", "succeeded"]);
    let runs = runs_of_others(&killed, &id);
    assert_eq!(
        (runs.len(), runs.values().sum::<usize>()),
        (3, 3),
        "of both attempts' children, one's: {runs:?}"
    );
    assert_eq!(killed.outcomes().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_a_due_tasks_way_into_its_queue_and_the_word_of_it_has_it_run_once() {
    let mut killed = Killed::new().await;
    let id =
        killed.kill_at("after_due_published", "/chaos/delayed?delay_ms=500", &json!({ "mode": "ok" })).await;
    let _worker = killed.serving.worker().await;
    let done = killed.end(&id).await;
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]));
    let client = async_nats::connect(killed.serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = async |name: &str| {
        let name = format!("{}_{name}", killed.serving.config.namespace());
        context.get_stream(name).await.unwrap().get_info().await.unwrap().state
    };
    eventually(soon(), "it has left the schedule", async || {
        (stream("SCHEDULE").await.messages == 0).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(stream("TASKS_chaos").await.last_sequence, 1, "nothing was queued a second time");
    assert_eq!(killed.ran(), [format!("{id} 1")]);
    assert_eq!(killed.outcomes().await, HashMap::from([(id, 1)]));
}
