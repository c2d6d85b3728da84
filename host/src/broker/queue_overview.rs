//! Every queue with its amounts, for operators.
//!
//! Counts are the broker's own, one request each, however long the queues are. Delayed tasks are the exception: their
//! subjects do not name the task, so they are read and counted, up to a bound, beyond which only their sum is told.

use std::collections::{BTreeMap, BTreeSet};

use cardcage_protocol::{Name, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::api::API_TIMEOUT;
use super::scan::EVERYTHING;
use super::{Amount, Broker, Error, Place};

/// Delayed tasks of one plugin that are read to be counted per task.
const DELAYED_READ_MAX: u64 = 5_000;
/// Requests at the same time.
const AT_ONCE: usize = 16;

/// The queue of one task of one plugin major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The plugin.
    pub plugin: Name,
    /// Its major version.
    pub major: u32,
    /// The task.
    pub task: Name,
    /// Tasks that no worker holds.
    pub waiting: u64,
    /// Tasks that are delivered and not yet done.
    pub leased: u64,
    /// Tasks that wait for their serial key.
    pub in_line: u64,
    /// Tasks that wait for their time; `None` where there are too many to read.
    pub delayed: Option<u64>,
    /// Dead letters of this task, of all majors.
    pub dead: u64,
    /// Tasks of this name, of all majors, that are parked until a worker can read their bodies.
    pub parked: u64,
    /// When the oldest task in the queue was put there.
    pub oldest: Option<Timestamp>,
    /// Until when nothing is delivered.
    pub paused_until: Option<Timestamp>,
    /// A worker has run it at some time.
    pub consumed: bool,
}

/// All queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// One per task and major, by name.
    pub queues: Vec<Queue>,
    /// Plugins with too many delayed tasks to read, and how many.
    pub delayed_unread: BTreeMap<Name, u64>,
}

/// Plugin, major and task.
type Key = (u32, Name);

impl Broker {
    /// The queues of one plugin, or of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn queues(&self, plugin: Option<&Name>) -> Result<Queues, Error> {
        let mut all = Queues::default();
        for name in self.queued_plugins().await? {
            if plugin.is_none_or(|plugin| *plugin == name) {
                self.queues_of(&name, &mut all).await?;
            }
        }
        Ok(all)
    }

    async fn queues_of(&self, plugin: &Name, all: &mut Queues) -> Result<(), Error> {
        let stream = self.subjects().tasks_stream(plugin);
        let consumers = self.consumers_of(&stream).await?;
        let delayed = self.delayed_of(plugin).await?;
        let total = self.amount(&stream, EVERYTHING, 1).await?.count;
        let mut keys: BTreeSet<Key> = consumers.iter().map(|one| (one.major, one.task.clone())).collect();
        let mut amounts = self.amounts_of(plugin, &keys).await?;
        if amounts.values().map(|amount| amount.count).sum::<u64>() < total {
            // Tasks that nobody has ever consumed: of a major, or with a name, that no worker has had.
            keys.extend(self.queued_keys(plugin).await?);
            amounts = self.amounts_of(plugin, &keys).await?;
        }
        if let Ok(delayed) = &delayed {
            keys.extend(delayed.keys().cloned());
        }
        for (major, task) in keys {
            let amount = amounts.get(&(major, task.clone())).copied().unwrap_or_default();
            let of_it = || consumers.iter().filter(|one| one.major == major && one.task == task);
            let leased = of_it().map(|one| one.leased).sum::<u64>().min(amount.count);
            let dead = self.subjects().deads_of(Some(plugin), Some(&task));
            all.queues.push(Queue {
                plugin: plugin.clone(),
                waiting: amount.count - leased,
                leased,
                in_line: self
                    .amount(
                        &self.subjects().lines_stream(),
                        &self.subjects().lines_of_queue(plugin, major, &task),
                        1,
                    )
                    .await?
                    .count,
                delayed: delayed
                    .as_ref()
                    .ok()
                    .map(|all| all.get(&(major, task.clone())).copied().unwrap_or(0)),
                dead: self.amount(&self.subjects().dead_stream(), &dead, 1).await?.count,
                parked: self
                    .amount(&self.subjects().parked_stream(), &self.subjects().parked_of(plugin, &task), 1)
                    .await?
                    .count,
                oldest: amount.oldest,
                paused_until: of_it().filter_map(|one| one.paused_until).max(),
                consumed: of_it().next().is_some(),
                major,
                task,
            });
        }
        if let Err(count) = delayed {
            all.delayed_unread.insert(plugin.clone(), count);
        }
        Ok(())
    }

    async fn amounts_of(&self, plugin: &Name, keys: &BTreeSet<Key>) -> Result<BTreeMap<Key, Amount>, Error> {
        let amounts = keys.iter().map(|(major, task)| async move {
            let amount = self.queue_amount(plugin, *major, task).await?;
            Ok::<_, Error>(((*major, task.clone()), amount))
        });
        // Boxed one by one: the compiler cannot see through a stream of borrowing futures.
        let amounts: Vec<_> = amounts.map(Box::pin).collect();
        stream::iter(amounts).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What stands in a queue, by the first page of its subjects (100,000 of them).
    async fn queued_keys(&self, plugin: &Name) -> Result<Vec<Key>, Error> {
        let tail = format!("STREAM.INFO.{}", self.subjects().tasks_stream(plugin));
        let question = json!({ "subjects_filter": self.subjects().tasks_of_plugin(plugin) });
        let answer = self.api(&tail, &question, API_TIMEOUT).await?;
        let subjects = answer.get("state").and_then(|state| state.get("subjects")).and_then(Value::as_object);
        let addresses = subjects
            .into_iter()
            .flatten()
            .filter_map(|(subject, _)| self.subjects().parse_task(subject).ok());
        Ok(addresses.map(|address| (address.major, address.task)).collect())
    }

    /// Delayed and due tasks per task; or, where there are too many, their number.
    async fn delayed_of(&self, plugin: &Name) -> Result<Result<BTreeMap<Key, u64>, u64>, Error> {
        let stream = self.subjects().schedule_stream();
        let filters = [self.subjects().schedules_of(plugin), self.subjects().dues_of(plugin)];
        let mut count = 0;
        for filter in &filters {
            count += self.amount(&stream, filter, 1).await?.count;
        }
        if count > DELAYED_READ_MAX {
            return Ok(Err(count));
        }
        let mut delayed = BTreeMap::new();
        for filter in filters {
            let mut next = 1;
            loop {
                let page = self.page(&stream, &filter, next, usize::MAX).await?;
                let Some(last) = page.messages.last() else { break };
                next = last.sequence.saturating_add(1);
                for message in page.messages {
                    if let Some(Place::Scheduled(waiting, _) | Place::Due(waiting)) = self.scheduled(message)
                    {
                        *delayed.entry((waiting.address.major, waiting.address.task)).or_default() += 1;
                    }
                }
            }
        }
        Ok(Ok(delayed))
    }
}
