//! What an envelope says survives every hop: from attempt to attempt by way of the schedule, and into the dead letter.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use cardcage_harness::{Config, Deadline, eventually};
use cardcage_protocol::{Namespace, Subjects, TaskEnvelope, TaskId, Timestamp, header};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

use crate::serving::{Serving, chaos_envelope};

fn soon() -> Deadline {
    Deadline::seconds(90)
}

fn quick(config: Config) -> Config {
    config.set("tasks.backoff", "100ms..200ms")
}

/// An envelope with everything set that a caller may set.
fn full(order: &Value) -> TaskEnvelope {
    let mut envelope = chaos_envelope(TaskId::generate(), "chaos", Bytes::from(order.to_string()));
    envelope.accept_by = Some(Timestamp::now().plus_ms(60_000));
    envelope.expires_at = Some(Timestamp::now().plus_ms(3_600_000));
    envelope.idempotency_key = Some("evt_1".into());
    envelope.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    envelope.tracestate = Some("vendor=1".into());
    envelope.root_id = TaskId::generate();
    envelope.parent_id = Some(TaskId::generate());
    envelope.schema = Some("sha256:9f86d081".into());
    envelope
}

fn pairs(headers: Option<&HeaderMap>) -> Vec<(String, String)> {
    let headers = headers.unwrap();
    headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect()
}

fn read(subjects: &Subjects, subject: &str, headers: Option<&HeaderMap>, body: Bytes) -> TaskEnvelope {
    let pairs = pairs(headers);
    let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    TaskEnvelope::decode(subjects, subject, pairs, body).unwrap()
}

/// What attempt `n` of `envelope` must say.
fn attempt(envelope: &TaskEnvelope, n: u32) -> TaskEnvelope {
    let accept_by = envelope.accept_by.filter(|_| n == 1);
    TaskEnvelope { attempt: n, accept_by, ..envelope.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifth_attempt_and_dead_letter_say_all_that_the_first_message_said() {
    let (serving, _worker) = Serving::both(quick).await;
    let subjects = Subjects::new(Namespace::new(serving.config.namespace()).unwrap());
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    // Whoever moves a message to its queue publishes it, so each hop can be heard.
    let mut hops = client.subscribe(subjects.tasks()).await.unwrap();
    client.flush().await.unwrap();
    let broker = serving.broker(Duration::from_secs(30)).await;

    // Six attempts are all that chaos has.
    let envelope = full(&json!({ "mode": "fail" }));
    broker.publish_task(&envelope, Duration::from_secs(30)).await.unwrap();
    for n in 1..=6 {
        let hop: Message = tokio::time::timeout(soon().left(), hops.next()).await.unwrap().unwrap();
        let heard = read(&subjects, &hop.subject, hop.headers.as_ref(), hop.payload);
        assert_eq!(heard, attempt(&envelope, n), "attempt {n}");
    }
    let done = serving.http.final_task(&envelope.id.to_string(), soon()).await.unwrap();
    assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("failed"), 6));
    let (record, _) = broker.read_record(envelope.id).await.unwrap().unwrap();
    assert_eq!((record.root_id, record.parent_id), (envelope.root_id, envelope.parent_id));
    assert_eq!(
        (&record.traceparent, &record.idempotency_key),
        (&envelope.traceparent, &envelope.idempotency_key)
    );
    assert_eq!(record.enqueued_at, envelope.enqueued_at);

    let context = async_nats::jetstream::new(client);
    let dead = context.get_stream(subjects.dead_stream()).await.unwrap();
    let subject = subjects.dead(&envelope.plugin, &envelope.task, envelope.id);
    let letter = eventually(soon(), "the dead letter is stored", async || {
        dead.get_last_raw_message_by_subject(&subject).await.ok()
    })
    .await
    .unwrap();
    let original = letter.headers.get(header::ORIGINAL_SUBJECT).unwrap().to_string();
    let kept = read(&subjects, &original, Some(&letter.headers), letter.payload);
    assert_eq!(kept, attempt(&envelope, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_of_a_request_is_the_trace_of_its_tasks_last_attempt() {
    let (serving, _worker) = Serving::both(quick).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let body = json!({ "mode": "fail_until", "times": 5 }).to_string();
    let headers =
        [("content-type", "application/json"), ("traceparent", &*format!("00-{trace}-b7ad6b7169203331-01"))];
    let reply = serving.http.send(http::Method::POST, "/chaos/task", &headers, body.into()).await.unwrap();
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!((&done["state"], &done["result"]["attempt"]), (&json!("succeeded"), &json!(5)), "{done}");
    let seen = done["result"]["traceparent"].as_str().unwrap();
    assert_eq!(seen.split('-').nth(1), Some(trace), "{done}");
}
