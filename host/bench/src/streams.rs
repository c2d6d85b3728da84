//! The streams of the floors, and whether the host's are like them.
//!
//! A floor does the same work on the wire only if the broker does the same work too, so the floor's streams are laid
//! out as the host's, and a difference is reported beside the figures instead of going unseen.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, consumer};
use cardcage_harness::{Error, Result};
use cardcage_protocol::Priority;

use crate::envelope::Envelopes;

/// Tasks that a worker runs at the same time, on both sides; the host's default.
pub(crate) const TASK_CONCURRENCY: usize = 64;
/// Where plain tasks go.
pub(crate) const PLAIN_TASK: &str = "plain.task";
/// Where their outcomes go.
pub(crate) const PLAIN_OUTCOME: &str = "plain.outcome";
const PLAIN_TASKS: &str = "plain_TASKS";
const PLAIN_OUTCOMES: &str = "plain_OUTCOMES";

/// Creates what the floors of the durable task need.
pub(crate) async fn create(jetstream: &Context, envelopes: &Envelopes) -> Result<()> {
    let plain_tasks = Config { subjects: vec![PLAIN_TASK.into()], ..tasks(envelopes, PLAIN_TASKS.into()) };
    let plain_outcomes = Config {
        name: PLAIN_OUTCOMES.into(),
        subjects: vec![PLAIN_OUTCOME.into()],
        storage: StorageType::File,
        ..Config::default()
    };
    let floor_tasks = tasks(envelopes, envelopes.subjects.tasks_stream(&envelopes.plugin));
    for config in [floor_tasks, records(envelopes), plain_tasks, plain_outcomes] {
        let created = jetstream.create_stream(config).await;
        created.map_err(Error::doing("cannot create a stream"))?;
    }
    Ok(())
}

/// Empties a namespace's streams between two turns, so that each turn finds the broker as the first did.
pub(crate) async fn purge(jetstream: &Context, envelopes: &Envelopes) -> Result<()> {
    purge_streams(
        jetstream,
        &[&envelopes.subjects.tasks_stream(&envelopes.plugin), &envelopes.subjects.state_stream()],
    )
    .await
}

/// The same for the plain figure.
pub(crate) async fn purge_plain(jetstream: &Context) -> Result<()> {
    purge_streams(jetstream, &[PLAIN_TASKS, PLAIN_OUTCOMES]).await
}

async fn purge_streams(jetstream: &Context, names: &[&str]) -> Result<()> {
    for name in names {
        let stream = jetstream.get_stream_no_info(name).await;
        let stream = stream.map_err(Error::doing(format!("cannot find the stream {name}")))?;
        stream.purge().await.map_err(Error::doing(format!("cannot purge the stream {name}")))?;
    }
    Ok(())
}

/// The consumer of the floor's tasks.
pub(crate) async fn floor_consumer(jetstream: &Context, envelopes: &Envelopes) -> Result<PullConsumer> {
    let Envelopes { subjects, plugin, task, major, .. } = envelopes;
    let durable = subjects.task_consumer(plugin, *major, task);
    let filter = subjects.lane_filter(plugin, *major, task, Priority::Normal);
    make_consumer(jetstream, &subjects.tasks_stream(plugin), durable, filter).await
}

/// The consumer of plain tasks.
pub(crate) async fn plain_consumer(jetstream: &Context) -> Result<PullConsumer> {
    make_consumer(jetstream, PLAIN_TASKS, "worker".into(), String::new()).await
}

async fn make_consumer(
    jetstream: &Context,
    stream: &str,
    durable: String,
    filter_subject: String,
) -> Result<PullConsumer> {
    let config = pull::Config {
        durable_name: Some(durable),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        max_deliver: -1,
        max_ack_pending: 10_000,
        filter_subject,
        ..pull::Config::default()
    };
    jetstream
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(Error::doing("cannot create a consumer"))
}

fn tasks(envelopes: &Envelopes, name: String) -> Config {
    Config {
        name,
        subjects: vec![envelopes.subjects.tasks_of_plugin(&envelopes.plugin)],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages: 1_000_000,
        max_bytes: 1 << 30,
        storage: StorageType::File,
        allow_direct: true,
        ..Config::default()
    }
}

fn records(envelopes: &Envelopes) -> Config {
    let subjects = &envelopes.subjects;
    Config {
        name: subjects.state_stream(),
        subjects: vec![subjects.states()],
        max_messages_per_subject: 1,
        max_age: Duration::from_secs(24 * 60 * 60),
        storage: StorageType::File,
        allow_direct: true,
        republish: Some(Republish {
            source: subjects.states(),
            destination: subjects.done_mapping(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// What the broker does differently for the host than for the floor, a sentence each.
pub(crate) async fn differences(
    jetstream: &Context,
    host: &Envelopes,
    floor: &Envelopes,
) -> Result<Vec<String>> {
    let pairs = [
        (host.subjects.tasks_stream(&host.plugin), floor.subjects.tasks_stream(&floor.plugin)),
        (host.subjects.state_stream(), floor.subjects.state_stream()),
    ];
    let mut found = Vec::new();
    for (host_stream, floor_stream) in pairs {
        let host = facts(&stream_config(jetstream, &host_stream).await?);
        let floor = facts(&stream_config(jetstream, &floor_stream).await?);
        note(&mut found, &format!("stream {host_stream}"), &host, &floor);
    }
    let durable = host.subjects.task_consumer(&host.plugin, host.major, &host.task);
    let host_stream = host.subjects.tasks_stream(&host.plugin);
    let consumer: std::result::Result<consumer::Consumer<pull::Config>, _> =
        jetstream.get_consumer_from_stream(&durable, &host_stream).await;
    match consumer {
        Ok(consumer) => {
            let floor = floor_consumer(jetstream, floor).await?;
            let (host, floor) = (&consumer.cached_info().config, &floor.cached_info().config);
            note(&mut found, &format!("consumer {durable}"), &pull_facts(host), &pull_facts(floor));
        }
        Err(error) => found.push(format!("consumer {durable}: cannot be looked at ({error})")),
    }
    Ok(found)
}

async fn stream_config(jetstream: &Context, name: &str) -> Result<Config> {
    let stream = jetstream.get_stream(name).await;
    Ok(stream
        .map_err(Error::doing(format!("cannot look at the stream {name}")))?
        .cached_info()
        .config
        .clone())
}

/// What costs the broker something, name and value.
type Facts = Vec<(&'static str, String)>;

fn facts(config: &Config) -> Facts {
    vec![
        ("retention", format!("{:?}", config.retention)),
        ("discard", format!("{:?}", config.discard)),
        ("storage", format!("{:?}", config.storage)),
        ("num_replicas", config.num_replicas.to_string()),
        ("max_messages_per_subject", config.max_messages_per_subject.to_string()),
        ("max_age set", (config.max_age > Duration::ZERO).to_string()),
        ("duplicate_window", format!("{:?}", config.duplicate_window)),
        ("republish", config.republish.is_some().to_string()),
        ("allow_direct", config.allow_direct.to_string()),
        ("allow_message_ttl", config.allow_message_ttl.to_string()),
        ("allow_message_schedules", config.allow_message_schedules.to_string()),
        ("allow_atomic_publish", config.allow_atomic_publish.to_string()),
        ("compression", format!("{:?}", config.compression)),
        ("subjects", config.subjects.len().to_string()),
    ]
}

fn pull_facts(config: &consumer::Config) -> Facts {
    vec![
        ("ack_policy", format!("{:?}", config.ack_policy)),
        ("ack_wait", format!("{:?}", config.ack_wait)),
        ("max_deliver", config.max_deliver.to_string()),
        ("max_ack_pending", config.max_ack_pending.to_string()),
        (
            "filters",
            (usize::from(!config.filter_subject.is_empty()) + config.filter_subjects.len()).to_string(),
        ),
    ]
}

fn note(found: &mut Vec<String>, what: &str, host: &Facts, floor: &Facts) {
    for ((name, host), (_, floor)) in host.iter().zip(floor).filter(|(host, floor)| host != floor) {
        found.push(format!("{what}: {name} is {host}, the floor's is {floor}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_noted_by_name() {
        let envelopes = Envelopes::new("floor").unwrap();
        let floor = records(&envelopes);
        let host = Config { republish: None, ..floor.clone() };
        let mut found = Vec::new();
        note(&mut found, "stream x", &facts(&host), &facts(&floor));
        assert_eq!(found, ["stream x: republish is false, the floor's is true"]);
    }
}
