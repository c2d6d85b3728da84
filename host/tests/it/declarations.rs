//! What a task declares, and what an operator lays over it, with real workers.

use crate::serving::{Serving, soon, wait_metric};
use async_nats::jetstream;
use cardcage_harness::{Cardcage, Config, Launch, eventually};
use cardcage_protocol::Timestamp;
use cardcage_protocol::exhausted::Exhausted;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

pub(crate) async fn accepted(serving: &Serving, path: &str, body: &Value) -> String {
    let reply = serving.http.post_json(path, body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

pub(crate) async fn outcomes(serving: &Serving, ids: &[String]) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for id in ids {
        outcomes.push(serving.http.final_task(id, soon()).await.unwrap());
    }
    outcomes
}

/// When a task of chaos ran that succeeded, by the clock of this machine, in us. The times of its record are the broker's, as each
/// worker has measured them by itself: some milliseconds of two workers cannot be told apart.
pub(crate) fn ran(task: &Value) -> (u64, u64) {
    let time =
        |at: usize| task["result"]["ran"][at].as_u64().unwrap_or_else(|| panic!("it did not run: {task}"));
    (time(0), time(1))
}

/// The most of these tasks of chaos that ran at the same time. Each has succeeded.
pub(crate) fn most_at_once(tasks: &[Value]) -> usize {
    let spans: Vec<_> = tasks.iter().map(ran).collect();
    let at = |now: u64| spans.iter().filter(|(start, end)| *start <= now && now < *end).count();
    spans.iter().map(|(start, _)| at(*start)).max().unwrap()
}

async fn stream(serving: &Serving, name: &str) -> jetstream::stream::Stream {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let name = format!("{}_{name}", serving.config.namespace());
    jetstream::new(client).get_stream(name).await.unwrap()
}

pub(crate) async fn cap_of_short(serving: &Serving) -> i64 {
    let stream = stream(serving, "TASKS_chaos").await;
    stream.consumer_info("chaos_v0_short").await.unwrap().config.max_ack_pending
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_limits_win_over_the_authors_for_the_task_that_they_name() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.max_attempts", 1);
    let (serving, _worker) = Serving::both(set).await;
    let order = json!({ "mode": "fail", "times": 1 });
    let short = accepted(&serving, "/chaos/short", &order).await;
    let other = accepted(&serving, "/chaos/task", &order).await;
    let short = serving.http.final_task(&short, soon()).await.unwrap();
    assert_eq!((&short["state"], short["attempts"].as_array().unwrap().len()), (&json!("failed"), 1));
    let other = serving.http.final_task(&other, soon()).await.unwrap();
    assert_eq!((&other["state"], other["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_shortens_time_limits_lengthens_waits_and_makes_tasks_run_one_at_a_time() {
    let set = |config: Config| {
        quick(config)
            .set("plugins.chaos.tasks.chaos.timeout_ms", 500)
            .set("plugins.chaos.tasks.doomed.backoff_initial_ms", 4_000)
            .set("plugins.chaos.tasks.doomed.backoff_max_ms", 4_000)
            .set("plugins.chaos.tasks.keyed.serial_key", "note")
    };
    let (serving, _worker) = Serving::both(set).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap().unix_ms();
    // Its author allows as long as the operator allows any.
    let long = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 60_000, "times": 1 })).await;
    // Its author waits for a tenth of a second.
    let again = accepted(&serving, "/chaos/doomed", &json!({ "mode": "fail", "times": 1 })).await;
    let mut one_by_one = Vec::new();
    for serial in ["a", "b", "c"] {
        let order = json!({ "mode": "sleep", "ms": 300, "serial": serial, "note": "x" });
        one_by_one.push(accepted(&serving, "/chaos/keyed", &order).await);
    }
    let long = serving.http.final_task(&long, soon()).await.unwrap();
    assert_eq!(
        (&long["attempts"][0]["cause"], &long["state"]),
        (&json!("timeout"), &json!("succeeded")),
        "{long}"
    );
    let again = serving.http.final_task(&again, soon()).await.unwrap();
    let waited = time(&again["attempts"][1]["started_at"]) - time(&again["attempts"][0]["ended_at"]);
    // Drawn from the upper half.
    assert!((2_000..20_000).contains(&waited), "it waited for {waited} ms: {again}");
    assert_eq!(
        most_at_once(&outcomes(&serving, &one_by_one).await),
        1,
        "the author's key would keep none apart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_gives_and_takes_keys_hooks_and_priorities() {
    let set = |config: Config| {
        quick(config)
            .set("plugins.chaos.tasks.short.unique_key", "note")
            .set("plugins.chaos.tasks.short.exhausted", "give_up")
            .set("plugins.chaos.tasks.short.priorities", true)
            .set("plugins.chaos.tasks.keyed.unique_key", "")
    };
    let (serving, _worker) = Serving::both(set).await;
    let first = accepted(&serving, "/chaos/short", &json!({ "mode": "sleep", "ms": 500, "note": "a" })).await;
    let again = accepted(&serving, "/chaos/short", &json!({ "mode": "ok", "note": "a" })).await;
    assert_eq!(first, again, "the operator's key makes them one");
    let order = json!({ "mode": "sleep", "ms": 500, "unique": "a" });
    let (first, again) =
        (accepted(&serving, "/chaos/keyed", &order).await, accepted(&serving, "/chaos/keyed", &order).await);
    assert_ne!(first, again, "the author's key is taken away");

    let doomed = accepted(&serving, "/chaos/short", &json!({ "mode": "fail", "times": 99 })).await;
    let doomed = serving.http.final_task(&doomed, soon()).await.unwrap();
    assert_eq!(doomed["state"], "failed");
    let hook = Exhausted::id_of(doomed["id"].as_str().unwrap().parse().unwrap()).to_string();
    let hook = serving.http.final_task(&hook, soon()).await.unwrap();
    assert_eq!((&hook["state"], &hook["result"]["id"]), (&json!("succeeded"), &doomed["id"]));

    let high = ["tasks", "enqueue", "chaos.short", "--priority", "high", "--json", r#"{ "mode": "ok" }"#];
    let high = Launch::new(high).config(&serving.config).run(soon()).await.unwrap();
    assert_eq!(high.status.code(), Some(0), "{}", high.stderr);
    let id = serde_json::from_str::<Value>(&high.stdout).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");

    for (option, value, sentence) in [
        (
            "unique_key",
            "nobody",
            "the unique key `nobody` for the task `short`, whose body has no such field",
        ),
        (
            "exhausted",
            "nobody",
            "the task `nobody` to be run when `short` is exhausted, which it does not have",
        ),
    ] {
        let config = serving.config.clone().set(&format!("plugins.chaos.tasks.short.{option}"), value);
        let ended = Launch::new(["check"]).config(&config).run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(78), "{}", ended.stdout);
        assert!(ended.stdout.contains(sentence), "{}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_task_that_does_not_exist_end_a_start_with_78_and_name_those_that_do() {
    let serving = Serving::api(quick).await;
    let config = serving.config.clone().set("plugins.chaos.tasks.shrot.max_attempts", 1);
    let sentence =
        "`plugins.chaos.tasks.shrot` names no task of the plugin; it has `chaos`, `short`, `keyed`";
    for command in ["worker", "api", "check"] {
        let ended = Launch::new([command]).config(&config).run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(78), "{command}: {}{}", ended.stdout, ended.stderr);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(sentence), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_max_running_run_at_once_over_all_workers() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.max_running", 2);
    let (serving, _first) = Serving::both(set).await;
    let _second = serving.worker().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(accepted(&serving, "/chaos/short", &json!({ "mode": "sleep", "ms": 300 })).await);
    }
    assert_eq!(most_at_once(&outcomes(&serving, &ids).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_no_more_of_a_task_at_once_than_its_concurrency() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.concurrency", 2);
    let (serving, _worker) = Serving::both(set).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(accepted(&serving, "/chaos/short", &json!({ "mode": "sleep", "ms": 300 })).await);
    }
    let others: Vec<String> = {
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 300 })).await);
        }
        others
    };
    assert_eq!(most_at_once(&outcomes(&serving, &ids).await), 2);
    assert!(most_at_once(&outcomes(&serving, &others).await) > 2, "another task is not held to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_max_running_is_applied_by_the_host_that_starts_with_it_and_is_told() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.max_running", 2);
    let (serving, _first) = Serving::both(set).await;
    assert_eq!(cap_of_short(&serving).await, 2);
    let config = serving.config.clone().set("plugins.chaos.tasks.short.max_running", 3);
    let second = Cardcage::worker(&config).await.unwrap();
    eventually(soon(), "the cap is changed", async || (cap_of_short(&serving).await == 3).then_some(()))
        .await
        .unwrap();
    assert!(second.stderr().contains("a task's cap was changed"), "{}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waited_longer_than_its_expiry_ends_expired_and_is_not_started() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.expires_ms", 300);
    let serving = Serving::api(set).await;
    let id = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    let since = std::time::Instant::now();
    eventually(soon(), "its expiry has passed", async || (since.elapsed().as_millis() > 600).then_some(()))
        .await
        .unwrap();
    let worker = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("expired"), &json!("expired")));
    wait_metric(&worker, "cardcage_tasks_total{what=\"started\"} 0").await;
    let fresh = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    assert_eq!(serving.http.final_task(&fresh, soon()).await.unwrap()["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_task_with_a_result_time_of_its_own_has_it_on_its_record() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.result_ttl_s", 150);
    let (serving, _worker) = Serving::both(set).await;
    let records = stream(&serving, "STATE").await;
    for (path, ttl) in [("/chaos/short", Some("150s")), ("/chaos/task", None)] {
        let id = accepted(&serving, path, &json!({ "mode": "ok" })).await;
        serving.http.final_task(&id, soon()).await.unwrap();
        let subject = format!("{}.state.{id}", serving.config.namespace());
        let record = records.get_last_raw_message_by_subject(&subject).await.unwrap();
        assert_eq!(record.headers.get("Nats-TTL").map(|value| value.as_str()), ttl, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_must_not_run_twice_fails_when_its_worker_is_lost() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.chaos.on_lost", "fail");
    let (serving, mut first) = Serving::both(set).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 60_000 })).await;
    running(&serving, &id).await;
    let stalled = first.child_pids();
    first.kill9();
    for pid in stalled {
        crate::serving::signal(pid, cardcage_harness::Signal::KILL);
    }
    let second = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("lease_lost")), "{done}");
    assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(done["attempts"][0]["cause"], "lease_lost");
    wait_metric(&second, "cardcage_tasks_total{what=\"started\"} 0").await;
    let letters = stream(&serving, "DEAD").await.get_info().await.unwrap().state.messages;
    assert_eq!(letters, 1, "a dead letter tells of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_must_not_run_twice_fails_when_only_its_child_ends_whatever_ended_it() {
    let set = |config: Config| {
        let config = quick(config).set("plugins.chaos.tasks.chaos.on_lost", "fail");
        config.set("tasks.crash_limit", 3).set("tasks.quarantine_after", 0)
    };
    let (serving, worker) = Serving::both(set).await;
    // Killed by somebody; by its own fault, seen or found out; by a neighbour's.
    for (mode, end, code) in [
        ("sleep", "kill", "lease_lost"),
        ("segfault", "", "crashed"),
        ("sleep", "/chaos/short", "interrupted"),
        ("abort_aside", "", "crashed"),
    ] {
        let id = accepted(
            &serving,
            "/chaos/task",
            &json!({ "mode": mode, "ms": if end.is_empty() { 200 } else { 20_000 } }),
        )
        .await;
        match end {
            "" => {}
            "kill" => {
                running(&serving, &id).await;
                crate::serving::signal(crate::serving::child(&worker), cardcage_harness::Signal::KILL);
            }
            path => {
                running(&serving, &id).await;
                accepted(&serving, path, &json!({ "mode": "segfault", "times": 1 })).await;
            }
        }
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!(code)), "{done}");
        assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "{done}");
        assert!(done["error"]["message"].as_str().unwrap().contains("on_lost"), "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_of_a_task_that_has_not_ended_outlives_those_that_have() {
    let (serving, _worker) = Serving::both(quick).await;
    let waiting = accepted(&serving, "/chaos/task", &json!({ "mode": "retry_after", "ms": 3_600_000 })).await;
    eventually(soon(), "it waits for its next attempt", async || {
        let task = serving.get(&format!("/tasks/{waiting}")).await.json().ok()?;
        (task["state"] == "retrying").then_some(())
    })
    .await
    .unwrap();
    let ended = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    serving.http.final_task(&ended, soon()).await.unwrap();
    // As after the time that outcomes are kept for.
    let mut records = stream(&serving, "STATE").await;
    let mut config = records.info().await.unwrap().config.clone();
    (config.max_age, config.duplicate_window) = (Duration::from_secs(1), Duration::from_secs(1));
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    jetstream::new(client).update_stream(&config).await.unwrap();
    eventually(soon(), "what has ended is forgotten", async || {
        (serving.get(&format!("/tasks/{ended}")).await.status == 404).then_some(())
    })
    .await
    .unwrap();
    let task = serving.get(&format!("/tasks/{waiting}")).await.json().unwrap();
    assert_eq!(
        (&task["state"], task["attempts"].as_array().unwrap().len()),
        (&json!("retrying"), 1),
        "{task}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_must_not_run_twice_runs_when_it_was_lost_before_its_start() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.chaos.on_lost", "fail");
    let serving = Serving::api(set).await;
    let id = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    // Somebody takes the delivery and is never heard of again.
    let consumer = {
        let (serving, config) = (stream(&serving, "TASKS_chaos").await, &serving.config);
        let consumer = jetstream::consumer::pull::Config {
            durable_name: Some("chaos_v0_chaos".into()),
            filter_subject: format!("{}.task.chaos.v0.chaos.p5.*", config.namespace()),
            ack_wait: Duration::from_secs(3),
            max_ack_pending: 10_000,
            max_waiting: 512,
            ..Default::default()
        };
        serving.create_consumer(consumer).await.unwrap()
    };
    use futures_util::StreamExt as _;
    let mut taken = consumer.fetch().max_messages(1).messages().await.unwrap();
    assert!(taken.next().await.unwrap().is_ok());
    let _worker = serving.worker().await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_over_all_workers_and_does_not_slow_other_tasks() {
    let set = |config: Config| quick(config).set("plugins.chaos.tasks.short.rate", "10/s");
    let (serving, _first) = Serving::both(set).await;
    let (_second, _third) = (serving.worker().await, serving.worker().await);
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await);
    }
    let other = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    let other = serving.http.final_task(&other, soon()).await.unwrap();
    let done = outcomes(&serving, &ids).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap().unix_ms();
    let mut starts: Vec<u64> = done.iter().map(|task| time(&task["attempts"][0]["started_at"])).collect();
    starts.sort_unstable();
    let took = starts[99] - starts[0];
    assert!((9_000..20_000).contains(&took), "100 tasks at 10/s on three workers took {took} ms");
    assert!(done.iter().all(|task| task["attempts"].as_array().unwrap().len() == 1), "none was handed back");
    let workers: std::collections::BTreeSet<&str> =
        done.iter().map(|task| task["attempts"][0]["worker"].as_str().unwrap()).collect();
    assert_eq!(workers.len(), 3, "all of them took their part");
    assert!(time(&other["finished_at"]) < starts[99], "another task of the plugin did not wait");
}
