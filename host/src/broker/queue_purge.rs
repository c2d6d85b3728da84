//! Purging a queue: every task in it ends `cancelled`, recorded, and leaves.
//!
//! Invariants:
//! - An accepted task reaches its one outcome also here: the record is written first, by compare-and-set, and only
//!   then is the message removed. Killed in between, the purge can be made again.
//! - What a worker holds is left alone, and so is what has ended: its message owes something that its redelivery does.
//! - Its keys are released last; a purge that is killed before leaves them to the sweeper.
//! - A task that is taken by a worker in this very moment ends `cancelled` all the same: the worker's completion is refused
//!   by the record.

use std::collections::HashSet;

use cardcage_protocol::{Event, Name, State, TaskEnvelope, TaskError, TaskId, TaskRecord, Timestamp, state};

use super::scan::{EVERYTHING, PAGE_MAX};
use super::{Broker, Error, Place, Waiting};

/// How often a record is read anew because somebody wrote in between.
const ROUNDS: usize = 8;
/// The code of a purged task's error.
const PURGED: &str = "purged";

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// It ended `cancelled`.
    Cancelled,
    /// A worker holds it.
    Held,
    /// It had ended before.
    Ended,
}

/// A walk over the tasks of a queue, or of lines, oldest first, as far as it reached when the walk began.
#[derive(Debug)]
pub struct QueueWalk {
    broker: Broker,
    stream: String,
    filter: String,
    task: Option<Name>,
    next: u64,
    last: u64,
}

impl QueueWalk {
    /// The next tasks; empty at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn next_page(&mut self) -> Result<Vec<Waiting>, Error> {
        while self.next <= self.last {
            let page = self.broker.page(&self.stream, &self.filter, self.next, PAGE_MAX).await?;
            self.next = page.messages.last().map_or(u64::MAX, |message| message.sequence.saturating_add(1));
            let in_reach = page.messages.into_iter().filter(|message| message.sequence <= self.last);
            let tasks: Vec<Waiting> = in_reach
                .filter_map(|message| match self.broker.subjects().parse_waiting(&message.subject) {
                    Ok(address) => Some(*Waiting::new(address, message)),
                    Err(_) => match self.broker.scheduled(message)? {
                        Place::Scheduled(waiting, _) | Place::Due(waiting) => Some(*waiting),
                        Place::Recorded(..) | Place::Queued(_) | Place::Parked(_) => None,
                    },
                })
                .filter(|waiting| self.task.as_ref().is_none_or(|task| *task == waiting.address.task))
                .collect();
            if !tasks.is_empty() {
                return Ok(tasks);
            }
        }
        Ok(Vec::new())
    }
}

impl Broker {
    /// The tasks in a plugin's queue, or those of one task.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk_queue(&self, plugin: &Name, task: Option<&Name>) -> Result<QueueWalk, Error> {
        let filter = task.map_or(EVERYTHING.to_owned(), |task| self.subjects().tasks_of(plugin, Some(task)));
        self.walk(self.subjects().tasks_stream(plugin), filter, task).await
    }

    /// The tasks of a plugin that wait for their time, or those of one task.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk_delayed(&self, plugin: &Name, task: Option<&Name>) -> Result<QueueWalk, Error> {
        self.walk(self.subjects().schedule_stream(), self.subjects().schedules_of(plugin), task).await
    }

    /// The same of those that have been fired and are not in the queue yet; some are kept until their time.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk_due(&self, plugin: &Name, task: Option<&Name>) -> Result<QueueWalk, Error> {
        self.walk(self.subjects().schedule_stream(), self.subjects().dues_of(plugin), task).await
    }

    pub(super) async fn walk(
        &self,
        stream: String,
        filter: String,
        task: Option<&Name>,
    ) -> Result<QueueWalk, Error> {
        let last = self.bounds(&stream).await?.map_or(0, |(_, last)| last);
        Ok(QueueWalk { broker: self.clone(), stream, filter, task: task.cloned(), next: 1, last })
    }

    /// Ends a waiting task as purged, and removes it from queue, line and schedule. `held`: what workers said they hold.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; doing it again is harmless.
    pub async fn purge_waiting(&self, waiting: &Waiting, held: &HashSet<TaskId>) -> Result<Purged, Error> {
        let id = waiting.address.id;
        if held.contains(&id) {
            return Ok(Purged::Held);
        }
        let first = waiting.envelope.as_ref().is_some_and(|envelope| envelope.attempt == 1);
        let mut current = if first { None } else { self.read_record(id).await? };
        for _ in 0..ROUNDS {
            let (mut record, fence) = match current.take() {
                Some((record, _)) if is_purged(&record) => return self.remove_waiting(waiting).await,
                Some((record, _)) if record.state.is_final() => return Ok(Purged::Ended),
                Some((record, _)) if record.attempts.last().is_some_and(|last| last.cause.is_none()) => {
                    return Ok(Purged::Held);
                }
                Some(known) => known,
                None => (TaskRecord::new(&self.envelope_of(waiting), State::Queued), 0),
            };
            let Some(cancelled) = state::next(record.state, Event::Cancelled) else {
                return Ok(Purged::Held);
            };
            record.state = cancelled;
            record.finished_at = Some(Timestamp::from_unix_ms(self.now_unix_ms()));
            record.next_at = None;
            record.follow_up.clear();
            record.error = Some(TaskError::new(PURGED, "an operator purged its queue", None));
            match self.write_record(&mut record, fence).await {
                Ok(_) => return self.remove_waiting(waiting).await,
                Err(Error::Conflict { .. }) => current = self.read_record(id).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(Purged::Held)
    }

    async fn remove_waiting(&self, waiting: &Waiting) -> Result<Purged, Error> {
        let address = &waiting.address;
        self.purge(&self.subjects().tasks_stream(&address.plugin), &self.subjects().task(address)).await?;
        self.purge(&self.subjects().lines_stream(), &self.subjects().line_by_id(address.id)).await?;
        self.cancel_scheduled(&address.plugin, address.id).await?;
        if let Some(envelope) = &waiting.envelope {
            self.release_keys(envelope).await;
        }
        Ok(Purged::Cancelled)
    }

    /// The envelope; for what is none, one that says what is known.
    fn envelope_of(&self, waiting: &Waiting) -> TaskEnvelope {
        waiting.envelope.clone().unwrap_or_else(|| {
            let stored_at = waiting.stored_at.unwrap_or_default();
            TaskEnvelope::new(waiting.address.clone(), "unknown".into(), stored_at, bytes::Bytes::new())
        })
    }
}

fn is_purged(record: &TaskRecord) -> bool {
    record.state == State::Cancelled && record.error.as_ref().is_some_and(|error| error.code == PURGED)
}
