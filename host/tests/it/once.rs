//! What a task does once, with real workers, one of which dies after it was done.

use crate::serving::{Serving, chaos_envelope, child, signal, soon};
use cardcage::once;
use cardcage_harness::{Config, Deadline, Signal, eventually};
use cardcage_protocol::{Attempt, InstanceId, ProblemCode, State, TaskId, TaskRecord, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(3);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

async fn effects(serving: &Serving, body: &Value) -> String {
    let reply = serving.http.post_json("/chaos/effects", body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn ended(serving: &Serving, id: &str) -> Value {
    serving.http.final_task(id, Deadline::seconds(60)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_did_is_not_done_again_by_a_retry() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = effects(&serving, &json!({ "keys": 3, "fail_until": 3 })).await;
    let done = ended(&serving, &id).await;
    assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 3));
    assert_eq!(done["result"], json!({ "by_attempt": [1, 1, 1], "by_the_last": 0 }));
    // The key is the task's own: another task does it for itself.
    let other = effects(&serving, &json!({ "keys": 1 })).await;
    assert_eq!(ended(&serving, &other).await["result"], json!({ "by_attempt": [1], "by_the_last": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_kill_9_of_the_worker_is_known_to_the_next_one() {
    let (serving, mut first) = Serving::both(quick).await;
    let id = effects(&serving, &json!({ "keys": 2, "hold_ms": 600_000 })).await;
    let broker = serving.broker(LEASE).await;
    eventually(soon(), "both are recorded", async || {
        (broker.count_once(id.parse().unwrap()).await.unwrap() == 2).then_some(())
    })
    .await
    .unwrap();
    let process = child(&first);
    first.kill9();
    signal(process, Signal::KILL);
    let _second = serving.worker().await;
    let done = ended(&serving, &id).await;
    let did = json!({ "by_attempt": [1, 1], "by_the_last": 0 });
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &did), "{done}");
    assert_eq!(done["attempts"].as_array().unwrap().len(), 2);
}

/// How long what the task did once is kept, by entry.
async fn kept(serving: &Serving, id: &str) -> Vec<String> {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let entries = context.get_stream(format!("KV_{}_LIMITS", serving.config.namespace())).await.unwrap();
    let last = entries.get_info().await.unwrap().state.last_sequence;
    let mut kept = Vec::new();
    for sequence in 1..=last {
        if let Ok(entry) = entries.get_raw_message(sequence).await
            && entry.subject.contains(&format!(".once.{id}."))
        {
            kept.push(entry.headers.get("Nats-TTL").unwrap().to_string());
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_kept_while_its_task_waits_and_forgotten_with_its_outcome() {
    let serving = Serving::api(|c| quick(c).set("tasks.result_ttl_s", 200)).await;
    let worker = serving.worker().await;
    // Far longer than outcomes are.
    let (month, outcome) = ("2592000s", "200s");
    let id = effects(&serving, &json!({ "keys": 2, "hold_ms": 600_000 })).await;
    let recorded = eventually(soon(), "both are recorded", async || {
        let kept = kept(&serving, &id).await;
        (kept.len() == 2).then_some(kept)
    });
    assert_eq!(recorded.await.unwrap(), [month, month]);
    // Its next attempt finds them done.
    signal(child(&worker), Signal::KILL);
    let done = ended(&serving, &id).await;
    assert_eq!(done["result"], json!({ "by_attempt": [1, 1], "by_the_last": 0 }), "{done}");
    let at_once = effects(&serving, &json!({ "keys": 1 })).await;
    ended(&serving, &at_once).await;
    for (id, keys) in [(id, 2), (at_once, 1)] {
        let noted = async || (kept(&serving, &id).await == vec![outcome; keys]).then_some(());
        eventually(soon(), "the end is noted", noted).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_much_to_be_recorded_ends_the_task_and_says_so() {
    let (serving, _worker) = Serving::both(quick).await;
    for (body, text) in [
        (json!({ "keys": 1, "bytes": 70_000 }), "at most 65536 bytes"),
        (json!({ "keys": 65 }), "at most 64 things once"),
    ] {
        let id = effects(&serving, &body).await;
        let done = ended(&serving, &id).await;
        assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("failed"), 1));
        assert!(done["error"]["message"].as_str().unwrap().contains(text), "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_over_does_nothing_more_and_learns_what_the_next_one_did() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let id = TaskId::generate();
    let envelope = chaos_envelope(id, "effects", bytes::Bytes::new());
    let mut record = TaskRecord::new(&envelope, State::Running);
    for n in [1, 2] {
        record.attempts.push(Attempt {
            n,
            worker: InstanceId::new("somebody").unwrap(),
            started_at: Timestamp::now(),
            ended_at: None,
            cause: None,
            error: None,
        });
    }
    broker.write_record(&mut record, 0).await.unwrap();
    let text = |recorded: &once::Recorded| serde_json::to_string(recorded).unwrap();
    let over = once::look(&broker, id, 1, "charge").await.unwrap_err();
    assert_eq!(over.code, ProblemCode::TaskEnded, "{over:?}");
    assert_eq!(text(&once::look(&broker, id, 2, "charge").await.unwrap()), r#"{"found":false}"#);
    let value = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let kept = once::keep(&broker, id, 2, "charge", &value("null")).await.unwrap();
    assert_eq!(text(&kept), r#"{"found":false}"#);
    // The first attempt had begun before it was over: what stands is what both get.
    let kept = once::keep(&broker, id, 1, "charge", &value("7")).await.unwrap();
    assert_eq!(text(&kept), r#"{"found":true,"value":null}"#);
    assert_eq!(text(&once::look(&broker, id, 1, "charge").await.unwrap()), r#"{"found":true,"value":null}"#);
}
