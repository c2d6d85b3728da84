//! A task that was given up has one dead letter, also where the broker has long forgotten the message id of the first.

use crate::killed_between_writes::Killed;
use crate::serving::soon;
use cardcage_harness::{Launch, Nats};
use serde_json::{Value, json};
use std::time::Duration;

/// Has a stream know message ids again for a moment only, as it does after two minutes.
pub(crate) async fn forget_message_ids(nats: &Nats, stream: &str) {
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let mut config = context.get_stream(stream).await.unwrap().get_info().await.unwrap().config;
    config.duplicate_window = Duration::from_millis(100);
    context.update_stream(config).await.unwrap();
}

async fn ask(killed: &Killed, arguments: &[&str]) -> Value {
    let asked = Launch::new([arguments, &["--json"]].concat()).config(&killed.serving.config);
    let asked = asked.run(soon()).await.unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    serde_json::from_str(&asked.stdout).unwrap()
}

/// A worker that was killed between a dead letter and the acknowledgement, and a broker that has forgotten the letter's id.
async fn killed_after_its_letter() -> (Killed, String) {
    let killed = Killed::new().await;
    let dead = format!("{}_DEAD", killed.serving.config.namespace());
    forget_message_ids(&killed.serving.nats, &dead).await;
    let id = killed.kill_at("before_ack", "/chaos/task", &json!({ "mode": "fail_for_good" })).await;
    (killed, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_that_was_published_long_ago_is_not_published_again() {
    let (killed, id) = killed_after_its_letter().await;
    let _worker = killed.serving.worker().await;
    assert_eq!(killed.end(&id).await["state"], "failed");
    let letters = ask(&killed, &["dead", "list"]).await;
    assert_eq!(letters["letters"].as_array().unwrap().len(), 1, "{letters}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_that_was_replayed_is_not_published_again() {
    let (killed, id) = killed_after_its_letter().await;
    let replayed = ask(&killed, &["tasks", "retry", &id]).await;
    assert_eq!(replayed["what"], "replayed");
    let _worker = killed.serving.worker().await;
    // What is replayed fails as well, and has a letter of its own.
    let again = replayed["task"].as_str().unwrap();
    assert_eq!(killed.end(again).await["state"], "failed");
    let letters = ask(&killed, &["dead", "list"]).await;
    let ids: Vec<_> = letters["letters"].as_array().unwrap().iter().map(|letter| &letter["id"]).collect();
    assert_eq!(ids, [again], "{letters}");
}
