//! Tasks by hand: listed, explained, tried again, enqueued; and the workers that are there.

use std::time::{Duration, Instant};

use cardcage_harness::{Cardcage, Config, Launch, eventually};
use cardcage_protocol::{TaskEnvelope, TaskId};
use serde_json::{Value, json};

use super::{WAIT, accepted, broker, envelope, json, quick, run, wait_messages};
use crate::serving::{Serving, child, pause, soon};

/// A command's answer may take a second; tests allow five times as much, debug build and busy machine included.
const PROMPT: Duration = Duration::from_secs(5);

async fn why(serving: &Serving, id: &str) -> (String, String) {
    let why = json(serving, &["tasks", "why", id]).await;
    (why["code"].as_str().unwrap().to_owned(), why["why"].as_str().unwrap().to_owned())
}

/// Waits until `why` gives this code, and returns the sentence.
async fn wait_why(serving: &Serving, id: &str, code: &str) -> String {
    eventually(soon(), &format!("{id} is {code}"), async || {
        let (found, sentence) = why(serving, id).await;
        (found == code).then_some(sentence)
    })
    .await
    .unwrap()
}

fn ids(list: &Value) -> Vec<&str> {
    list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_what_a_task_waits_for_and_how_it_ended() {
    let serving = Serving::api(quick).await;
    let waiting = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    let (code, sentence) = why(&serving, &waiting).await;
    assert_eq!(code, "no_worker");
    assert_eq!(sentence, "waiting: no live worker has chaos v0 (no worker answers at all)");
    let later = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--delay", "1h"]).await;
    let (code, sentence) = why(&serving, &later).await;
    assert_eq!(code, "scheduled");
    assert!(sentence.starts_with("scheduled for 2"), "{sentence}");

    // The broker fires it; nobody is there to move it on.
    let soon_due = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--delay", "100ms"]).await;
    let sentence = wait_why(&serving, &soon_due, "due").await;
    assert_eq!(sentence, "due: no worker is there that moves it into its queue");

    let only_hello = quick(Config::new(&serving.nats).plugin("hello").unwrap())
        .set("broker.namespace", serving.config.namespace());
    let mut other = Cardcage::worker(&only_hello).await.unwrap();
    let (_, sentence) = why(&serving, &waiting).await;
    assert_eq!(sentence, "waiting: no live worker has chaos v0 (1 has other plugins)");
    other.stop(soon()).await.unwrap();

    let worker = serving.worker().await;
    assert!(wait_why(&serving, &waiting, "ended").await.starts_with("ended succeeded at 2"));
    let long = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 60_000 })).await;
    let sentence = wait_why(&serving, &long, "leased").await;
    assert!(sentence.starts_with("leased by worker worker-") && sentence.contains(" until 2"), "{sentence}");
    let again = accepted(&serving, "/chaos/task", &json!({ "mode": "retry_after", "ms": 3_600_000 })).await;
    let sentence = wait_why(&serving, &again, "retrying").await;
    assert!(
        sentence.starts_with("attempt 1 failed: failed as told (retry_requested); next attempt at 2"),
        "{sentence}"
    );
    let failed = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    let sentence = eventually(soon(), "it has ended and its letter is there", async || {
        let (_, sentence) = why(&serving, &failed).await;
        sentence.contains("dead replay").then_some(sentence)
    });
    let sentence = sentence.await.unwrap();
    assert!(sentence.contains("ended failed") && sentence.contains("failed for good as told"), "{sentence}");
    let replayed = json(&serving, &["tasks", "retry", &failed]).await;
    assert!(
        why(&serving, &failed)
            .await
            .1
            .contains(&format!("replayed as {}", replayed["task"].as_str().unwrap()))
    );

    // Its worker is gone, and nobody has it: it is not said that somebody does.
    drop(worker);
    let _second = serving.worker().await;
    let (code, sentence) = why(&serving, &long).await;
    assert!(["lease_running", "leased"].contains(&code.as_str()), "{sentence}");
    let unknown = run(&serving, &["tasks", "why", &TaskId::generate().to_string()]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

/// Enqueues a task of chaos.
async fn enqueue(serving: &Serving, arguments: &[&str]) -> String {
    let output = run(serving, &[&["tasks", "enqueue", "chaos.chaos"], arguments].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let receipt: Value = serde_json::from_str(&output.stdout).unwrap();
    receipt["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_names_the_majors_that_live_workers_have() {
    let serving = Serving::api(quick).await;
    let mut newer = envelope("chaos", &json!({ "mode": "ok" }));
    newer.major = 7;
    newer.version = "7.0.0".into();
    broker(&serving).await.publish_task(&newer, WAIT).await.unwrap();
    let _worker = serving.worker().await;
    let (code, sentence) = why(&serving, &newer.id.to_string()).await;
    assert_eq!(
        (code.as_str(), sentence.as_str()),
        ("no_worker", "waiting: no live worker has chaos v7 (1 has v0)")
    );

    let mut nameless = envelope("nothing", &json!({}));
    nameless.major = 0;
    broker(&serving).await.publish_task(&nameless, WAIT).await.unwrap();
    let (_, sentence) = why(&serving, &nameless.id.to_string()).await;
    assert!(sentence.contains("knows the task nothing"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_does_not_blame_a_lease_for_what_its_worker_gave_back() {
    // A lease that no test waits for.
    let set = |config| quick(config).set("worker.task_concurrency", 1).set("tasks.lease_ms", 600_000);
    let serving = Serving::api(|config| set(config).set("drain.grace_ms", 1_000)).await;
    let long = json!({ "mode": "sleep", "ms": 600_000 });
    let _busy = serving.worker().await;
    let held = accepted(&serving, "/chaos/task", &long).await;
    wait_why(&serving, &held, "leased").await;
    let mut leaving = serving.worker().await;
    let id = accepted(&serving, "/chaos/task", &long).await;
    wait_why(&serving, &id, "leased").await;
    leaving.stop(soon()).await.unwrap();
    let sentence = wait_why(&serving, &id, "waiting_for_slot").await;
    assert!(
        sentence.starts_with("attempt 1 failed: the worker stopped and handed the task back"),
        "{sentence}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_tasks_wherever_they_are_and_says_where_it_was_cut() {
    let (serving, _worker) = Serving::both(quick).await;
    let done = accepted(&serving, "/chaos/task", &json!({ "mode": "ok" })).await;
    serving.http.final_task(&done, soon()).await.unwrap();
    let failed = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    serving.http.final_task(&failed, soon()).await.unwrap();
    let retrying =
        accepted(&serving, "/chaos/task", &json!({ "mode": "retry_after", "ms": 3_600_000 })).await;
    wait_why(&serving, &retrying, "retrying").await;
    let scheduled = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--delay", "1h"]).await;
    let running = accepted(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 60_000 })).await;
    wait_why(&serving, &running, "leased").await;
    let mut parked = envelope("chaos", &json!({}));
    (parked.major, parked.version) = (7, "7.0.0".into());
    broker(&serving).await.publish_task(&parked, WAIT).await.unwrap();
    let queued = parked.id.to_string();

    let all = json(&serving, &["tasks", "list"]).await;
    let newest_first = [&queued, &running, &scheduled, &retrying, &failed, &done];
    assert_eq!(ids(&all), newest_first.map(String::as_str), "{all}");
    assert_eq!(all["complete"], true);
    let states: Vec<&str> =
        all["tasks"].as_array().unwrap().iter().map(|task| task["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["queued", "running", "scheduled", "retrying", "failed", "succeeded"]);
    for (state, id) in states.iter().zip(newest_first) {
        assert_eq!(
            ids(&json(&serving, &["tasks", "list", "--state", state]).await),
            [id.as_str()],
            "{state}"
        );
    }
    assert!(ids(&json(&serving, &["tasks", "list", "--plugin", "hello"]).await).is_empty());
    assert!(ids(&json(&serving, &["tasks", "list", "--task", "short"]).await).is_empty());

    let cut = run(&serving, &["tasks", "list", "--limit", "2"]).await;
    assert!(cut.stderr.contains("there are more"), "{cut:?}");
    assert!(
        cut.stdout.contains(&queued) && cut.stdout.contains(&running) && !cut.stdout.contains(&done),
        "{cut:?}"
    );
    let wrong = run(&serving, &["tasks", "list", "--state", "lost"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_brings_a_waiting_task_forward_and_replays_a_failed_one() {
    let (serving, _worker) = Serving::both(quick).await;
    let order = json!({ "mode": "retry_after", "ms": 3_600_000, "times": 1 });
    let id = accepted(&serving, "/chaos/task", &order).await;
    wait_why(&serving, &id, "retrying").await;
    assert_eq!(json(&serving, &["tasks", "retry", &id]).await["what"], "made_due");
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(2)), "{done}");
    wait_messages(&serving, "SCHEDULE", 0).await;
    let over = run(&serving, &["tasks", "retry", &id]).await;
    assert_eq!(over.status.code(), Some(1), "{over:?}");
    assert!(over.stderr.contains("it ended succeeded"), "{over:?}");

    let delayed = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--delay", "1h"]).await;
    json(&serving, &["tasks", "retry", &delayed]).await;
    assert_eq!(serving.http.final_task(&delayed, soon()).await.unwrap()["attempt"], 1);

    let failed = accepted(&serving, "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    serving.http.final_task(&failed, soon()).await.unwrap();
    wait_messages(&serving, "DEAD", 1).await;
    let replayed = json(&serving, &["tasks", "retry", &failed]).await;
    assert_eq!(replayed["what"], "replayed");
    let again = serving.http.final_task(replayed["task"].as_str().unwrap(), soon()).await.unwrap();
    assert_eq!(again["parent_id"], json!(failed));
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueue_checks_the_body_and_promises_what_the_api_promises() {
    let (serving, _worker) = Serving::both(quick).await;
    let first = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--key", "k1"]).await;
    assert_eq!(serving.http.final_task(&first, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!(
        enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--key", "k1"]).await,
        first,
        "the same task"
    );
    for (target, body, more, code, word) in [
        ("chaos.chaos", "{", None, 2, "no JSON"),
        ("chaos.chaos", r#"{"mode":"dance"}"#, None, 2, "does not fit chaos.chaos: at /mode"),
        ("chaos.chaos", "@/dev/zero", None, 2, "/dev/zero cannot be read: it has more than the 524288 bytes"),
        ("chaos.dance", "{}", None, 1, "it has chaos, short"),
        ("nobody.task", "{}", None, 1, "there is no plugin `nobody`"),
        ("chaos.chaos", r#"{"mode":"fail"}"#, Some("k1"), 2, "idempotency_conflict"),
        ("chaos", "{}", None, 2, "a dot"),
    ] {
        let mut arguments = vec!["tasks", "enqueue", target, "--json", body];
        arguments.extend(more.iter().flat_map(|key| ["--key", key]));
        let output = run(&serving, &arguments).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.contains(word), "{word}: {output:?}");
    }
    // Without the library at hand, a live worker says which version it has.
    let bare = Config::new(&serving.nats).set("broker.namespace", serving.config.namespace());
    let arguments = ["tasks", "enqueue", "chaos.chaos", "--json", r#"{"mode":"ok"}"#];
    let output = Launch::new(arguments).config(&bare).run(soon()).await.unwrap();
    let receipt: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        serving.http.final_task(receipt["id"].as_str().unwrap(), soon()).await.unwrap()["state"],
        "succeeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_say_what_they_have_and_how_busy_they_are() {
    let serving = Serving::api(|config| quick(config).set("worker.task_concurrency", 2)).await;
    assert_eq!(json(&serving, &["workers", "list"]).await["workers"], json!([]));
    let (mut first, _second) = (serving.worker().await, serving.worker().await);
    let list = json(&serving, &["workers", "list"]).await;
    let workers = list["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2, "{list}");
    for worker in workers {
        assert_eq!((&worker["status"], &worker["consuming"]), (&json!("serving"), &json!(true)), "{worker}");
        let chaos = worker["plugins"].as_array().unwrap().iter().find(|one| one["name"] == "chaos").unwrap();
        let tasks = ["chaos", "short", "keyed", "ranked", "effects", "reach", "doomed", "give_up"];
        assert_eq!((&chaos["major"], &chaos["tasks"]), (&json!(0), &json!(tasks)), "{worker}");
        assert_eq!((&worker["busy"], &chaos["slots"]), (&json!(0), &json!(2)), "{worker}");
    }
    assert!(workers.iter().any(|worker| worker["pid"] == first.pid()), "{list}");
    first.stop(soon()).await.unwrap();
    assert_eq!(json(&serving, &["workers", "list"]).await["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_while_all_workers_are_busy_and_stalled() {
    let serving = Serving::api(|config| quick(config).set("worker.task_concurrency", 2)).await;
    let worker = serving.worker().await;
    let failed = accepted(&serving, "/chaos/short", &json!({ "mode": "fail_for_good" })).await;
    serving.http.final_task(&failed, soon()).await.unwrap();
    wait_messages(&serving, "DEAD", 1).await;
    let later = enqueue(&serving, &["--json", r#"{"mode":"ok"}"#, "--delay", "1h"]).await;
    let block: TaskEnvelope = envelope("chaos", &json!({ "mode": "block", "ms": 60_000 }));
    let broker = broker(&serving).await;
    for _ in 0..5 {
        let one = TaskEnvelope { id: TaskId::generate(), ..block.clone() };
        let one = TaskEnvelope { root_id: one.id, ..one };
        broker.publish_task(&one, WAIT).await.unwrap();
    }
    eventually(soon(), "the worker is busy", async || {
        (json(&serving, &["workers", "list"]).await["workers"][0]["busy"].as_u64()? >= 1).then_some(())
    })
    .await
    .unwrap();
    // As stalled as a child can be; its supervisor is not.
    pause(child(&worker)).await;
    let queued = accepted(&serving, "/chaos/short", &json!({ "mode": "ok" })).await;
    let of_one: [&[&str]; 8] = [
        &["tasks", "show", &queued],
        &["tasks", "why", &queued],
        &["tasks", "why", &failed],
        &["tasks", "retry", &later],
        &["tasks", "cancel", &queued],
        &["dead", "show", &failed],
        &["dead", "replay", &failed],
        &["queues", "limit", "chaos.short", "--rate", "5/s"],
    ];
    for arguments in COMMANDS.iter().chain(&of_one) {
        let began = Instant::now();
        let output = run(&serving, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(began.elapsed() < PROMPT, "{arguments:?} took {:?}", began.elapsed());
    }
    crate::serving::signal(child(&worker), cardcage_harness::Signal::CONT);
}

const COMMANDS: &[&[&str]] = &[
    &["workers", "list"],
    &["tasks", "list"],
    &["tasks", "list", "--state", "running"],
    &["queues", "list"],
    &["queues", "pause", "hello"],
    &["queues", "resume", "hello"],
    &["queues", "purge", "chaos.short", "--dry-run"],
    &["dead", "list"],
    &["dead", "purge", "--all", "--dry-run"],
    &["tasks", "enqueue", "chaos.chaos", "--json", r#"{"mode":"ok"}"#],
];
