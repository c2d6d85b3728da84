//! What the broker knows in the end, and what was seen on the way.
//!
//! Records are read from their stream after the storm, and every stored one is listened to while it lasts: a record that
//! was final and became another final one leaves only the last in the stream.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use cardcage_harness::{Error, Result};
use cardcage_protocol::{Name, Subjects, TaskId, TaskRecord};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::ending::Ending;

/// A stream that is not read within this time is not being delivered.
const READING: Duration = Duration::from_secs(60);

/// Every end that was seen of each task; more than one is one too many.
pub(crate) type Endings = BTreeMap<TaskId, Vec<Ending>>;

/// A client of the broker that survives its restarts.
#[derive(Debug)]
pub(crate) struct Harvest {
    subjects: Subjects,
    client: async_nats::Client,
    seen: Arc<Mutex<Endings>>,
    listener: JoinHandle<()>,
}

impl Harvest {
    /// Connects and listens.
    pub(crate) async fn begin(url: &str, subjects: Subjects) -> Result<Self> {
        let options = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|_| Duration::from_millis(20));
        let client = options.connect(url).await.map_err(Error::doing("cannot connect to the broker"))?;
        let dones = client.subscribe(subjects.dones()).await;
        let mut dones = dones.map_err(Error::doing("cannot listen to records"))?;
        let seen = Arc::new(Mutex::new(Endings::new()));
        let listener = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                while let Some(message) = dones.next().await {
                    note(&seen, &message.payload);
                }
            }
        });
        Ok(Self { subjects, client, seen, listener })
    }

    /// Every end that is recorded now or was seen before.
    pub(crate) async fn endings(&self) -> Result<Endings> {
        for payload in self.read(&self.subjects.state_stream(), &self.subjects.states()).await? {
            note(&self.seen, &payload.1);
        }
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// How many dead letters each task has.
    pub(crate) async fn letters(&self) -> Result<BTreeMap<TaskId, u64>> {
        let mut letters = BTreeMap::new();
        for (subject, _) in self.read(&self.subjects.dead_stream(), &self.subjects.deads()).await? {
            if let Some((_, _, id)) = self.subjects.parse_dead(&subject) {
                *letters.entry(id).or_default() += 1;
            }
        }
        Ok(letters)
    }

    /// Messages that still wait in a queue, in the schedule, in a line or parked, firings that nobody has taken up, and notes
    /// of what ended tasks owe.
    pub(crate) async fn left_over(&self, plugins: &[&str]) -> Result<u64> {
        let subjects = &self.subjects;
        let mut streams = vec![subjects.schedule_stream(), subjects.lines_stream(), subjects.parked_stream()];
        for plugin in plugins {
            let plugin: Name = plugin.parse().map_err(Error::doing("no name of a plugin"))?;
            streams.push(self.subjects.tasks_stream(&plugin));
        }
        let mut count = 0;
        for name in streams {
            let stream = jetstream::new(self.client.clone()).get_stream(&name).await;
            count +=
                stream.map_err(Error::doing(format!("cannot look at {name}")))?.cached_info().state.messages;
        }
        count += self.count(&subjects.recurring_stream(), subjects.slots_of(None)).await?;
        count += self.count(&subjects.state_stream(), subjects.all_owed()).await?;
        Ok(count)
    }

    /// How many messages of a stream match.
    async fn count(&self, name: &str, filter: String) -> Result<u64> {
        let stream = jetstream::new(self.client.clone()).get_stream(name).await.map_err(unreadable(name))?;
        let found = stream.info_with_subjects(filter).await.map_err(unreadable(name))?;
        let found: Vec<(String, usize)> = found.try_collect().await.map_err(unreadable(name))?;
        Ok(found.iter().map(|(_, count)| *count as u64).sum())
    }

    async fn read(&self, stream: &str, filter: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let read = timeout(READING, self.read_on(stream, filter)).await;
        read.map_err(|_| Error::new(format!("{stream} was not delivered within {READING:?}")))?
    }

    async fn read_on(&self, name: &str, filter: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let stream = jetstream::new(self.client.clone()).get_stream(name).await.map_err(unreadable(name))?;
        let mut found = Vec::new();
        if stream.cached_info().state.messages == 0 {
            return Ok(found);
        }
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            filter_subject: filter.to_owned(),
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unreadable(name))?;
        let mut messages = consumer.messages().await.map_err(unreadable(name))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(unreadable(name))?;
            let is_last = message.info().map_err(unreadable(name))?.pending == 0;
            found.push((message.subject.to_string(), message.payload.to_vec()));
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

impl Drop for Harvest {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn unreadable<E: std::fmt::Display>(stream: &str) -> impl FnOnce(E) -> Error {
    Error::doing(format!("cannot read {stream}"))
}

fn note(seen: &Mutex<Endings>, payload: &[u8]) {
    let Some(ending) = TaskRecord::decode(payload).ok().as_ref().and_then(Ending::of) else { return };
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = seen.entry(ending.id).or_default();
    if !ends.iter().any(|end| end.is_same_end(&ending)) {
        ends.push(ending);
    }
}

/// How often each task's handler came to a good end, from the trace that the plugin wrote.
pub(crate) fn runs(trace: &Path) -> Result<BTreeMap<TaskId, u64>> {
    let text = std::fs::read_to_string(trace).map_err(Error::doing("cannot read the plugin's trace"))?;
    let mut runs = BTreeMap::new();
    for line in text.lines() {
        let id = line.split(' ').next().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| Error::new(format!("the plugin's trace has a torn line: {line:?}")))?;
        *runs.entry(id).or_default() += 1;
    }
    Ok(runs)
}
