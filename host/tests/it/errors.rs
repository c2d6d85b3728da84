//! Errors of handlers are data: of any size, and whatever their bytes are, they are kept within bounds and hurt nobody.

use crate::serving::{Serving, child, soon};
use crate::webhooks::queue_is_empty;
use cardcage_harness::{Cardcage, Launch};
use cardcage_protocol::limits;
use serde_json::{Value, json};

async fn failed(serving: &Serving, path: &str, order: Value) -> Value {
    let reply = serving.http.post_json(path, &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(done["state"], "failed", "{}", done["state"]);
    done
}

/// What the dead letter says of the task's last attempt.
async fn letter_of(serving: &Serving, id: &Value) -> Value {
    // It is published after the record.
    queue_is_empty(&serving.nats, &serving.config, "chaos").await;
    let launch = Launch::new(["dead", "show", id.as_str().unwrap(), "--json"]).config(&serving.config);
    let output = launch.run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let letter: Value = serde_json::from_str(&output.stdout).unwrap();
    letter["attempts"].as_array().unwrap().last().unwrap()["error"].clone()
}

/// The worker's child is the one that it was, and works.
async fn assert_unhurt(serving: &Serving, worker: &Cardcage, pid: u32) {
    let reply = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!((&done["state"], &done["result"]["pid"]), (&json!("succeeded"), &json!(pid)), "{done}");
    assert_eq!(child(worker), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn error_that_is_no_text_is_kept_with_signs_for_what_cannot_be_read() {
    let (serving, worker) = Serving::both(|config| config).await;
    let pid = child(&worker);
    let done = failed(&serving, "/chaos/task", json!({ "mode": "non_utf8" })).await;
    let error = &done["error"];
    assert_eq!(error["message"], "caf\u{fffd} \u{fffd}\u{fffd} is closed");
    assert_eq!(error["details"]["mode"], "non_utf8", "the rest of it is whole");
    assert_eq!(letter_of(&serving, &done["id"]).await, *error);
    assert_unhurt(&serving, &worker, pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_errors_of_five_megabytes_the_last_is_kept_up_to_its_bound_and_earlier_ones_less() {
    let (serving, worker) = Serving::both(|config| config).await;
    let pid = child(&worker);
    let done = failed(&serving, "/chaos/short", json!({ "mode": "big_error", "times": 5, "ms": 1 })).await;
    let length = |error: &Value| error["message"].as_str().unwrap().len();
    let attempts: Vec<usize> =
        done["attempts"].as_array().unwrap().iter().map(|attempt| length(&attempt["error"])).collect();
    assert_eq!(attempts.len(), 3);
    assert!(attempts.iter().all(|length| (4_000..=limits::ERROR_MAX_BYTES).contains(length)), "{attempts:?}");
    let last = length(&done["error"]);
    assert!((65_000..=limits::LAST_ERROR_MAX_BYTES).contains(&last), "{last}");
    assert!(done["error"]["message"].as_str().unwrap().ends_with('…'), "it says that something is missing");
    let in_letter = length(&letter_of(&serving, &done["id"]).await);
    assert!((24_000..=24 * 1024).contains(&in_letter), "the dead letter has its beginning: {in_letter}");
    assert_unhurt(&serving, &worker, pid).await;

    let launch = Launch::new(["tasks", "show", done["id"].as_str().unwrap()]).config(&serving.config);
    let shown = launch.run(soon()).await.unwrap().stdout;
    assert!(shown.contains("--json shows all of it") && shown.len() < 20_000, "{} bytes", shown.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_long_errors_as_a_record_keeps_leave_a_dead_letter_with_all_attempts() {
    let (serving, _worker) = Serving::both(|config| {
        let config = config.set("plugins.chaos.tasks.short.max_attempts", 32);
        let config = config.set("plugins.chaos.tasks.short.backoff_initial_ms", 1);
        config.set("plugins.chaos.tasks.short.backoff_max_ms", 1)
    })
    .await;
    let done = failed(&serving, "/chaos/short", json!({ "mode": "big_error", "ms": 1 })).await;
    assert_eq!(done["attempts"].as_array().unwrap().len(), 32);
    queue_is_empty(&serving.nats, &serving.config, "chaos").await;
    let launch = Launch::new(["dead", "show", done["id"].as_str().unwrap(), "--json"]);
    let output = launch.config(&serving.config).run(soon()).await.unwrap();
    let letter: Value = serde_json::from_str(&output.stdout).unwrap();
    let attempts = letter["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 32);
    assert!(attempts.iter().all(|attempt| attempt["error"]["message"].as_str().unwrap().starts_with("xxx")));
}
