//! Operators' commands against a real installation. Here is what their tests share.

mod dead;
mod lines;
mod queues;
mod tasks;

use std::time::Duration;

use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Config, Launch, Output, eventually};
use cardcage_protocol::{Namespace, TaskEnvelope, TaskId};
use serde_json::Value;

use crate::serving::{Serving, chaos_envelope, soon};

const WAIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(3);

/// Short times, so that what was lost comes back while a test waits.
fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

/// Runs a command with the installation's configuration.
async fn run(serving: &Serving, arguments: &[&str]) -> Output {
    Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap()
}

/// The same; it must end with 0, and its stdout must be JSON.
async fn json(serving: &Serving, arguments: &[&str]) -> Value {
    let output = run(serving, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The installation's broker, beside its hosts.
async fn broker(serving: &Serving) -> Broker {
    let namespace = Namespace::new(serving.config.namespace()).unwrap();
    let options = Options { url: serving.nats.url(), namespace, lease: LEASE, ..Options::default() };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    broker
}

/// An envelope for a task of chaos.
fn envelope(task: &str, body: &Value) -> TaskEnvelope {
    chaos_envelope(TaskId::generate(), task, Bytes::from(body.to_string()))
}

async fn accepted(serving: &Serving, path: &str, body: &Value) -> String {
    let reply = serving.http.post_json(path, body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// Waits until a stream of the installation holds so many messages.
async fn wait_messages(serving: &Serving, stream: &str, count: u64) {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let name = format!("{}_{stream}", serving.config.namespace());
    let mut stream = context.get_stream(&name).await.unwrap();
    eventually(soon(), &format!("{name} holds {count}"), async || {
        (stream.info().await.ok()?.state.messages == count).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_a_broker_on_which_nothing_ever_ran_are_empty_in_words_and_in_json() {
    let nats = cardcage_harness::Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap();
    for (command, member, words) in [
        (["tasks", "list"], "tasks", "no tasks"),
        (["dead", "list"], "letters", "no dead letters"),
        (["queues", "list"], "queues", "no queues"),
        (["workers", "list"], "workers", "no worker answers"),
        (["schedules", "list"], "schedules", "no schedules"),
    ] {
        let run = async |more: &[&str]| {
            let output =
                Launch::new(command.iter().chain(more).copied()).config(&config).run(soon()).await.unwrap();
            assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
            output.stdout
        };
        assert!(run(&[]).await.to_lowercase().contains(words), "{command:?}: {}", run(&[]).await);
        let told: Value = serde_json::from_str(&run(&["--json"]).await).unwrap();
        assert_eq!(told[member], serde_json::json!([]), "{command:?}: {told}");
    }
}
