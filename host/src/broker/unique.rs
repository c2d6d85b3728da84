//! Unique keys: of the tasks with one key, one is queued or running at a time.
//!
//! The key's entry is created before the task is published and names it. It is removed after the task's outcome is
//! recorded. Whoever died in between leaves an entry behind, so an entry alone holds nobody up: whoever finds one looks for
//! its task, and takes the key over where that has ended or never was.
//!
//! Invariants: nobody is told that a task exists which may not be stored; a key is released only by its own task's end.
//! Refuses: holding a key for ever. Its entry has a time to live, should its task vanish and nobody ask again.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskId, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::API_TIMEOUT;
use super::publish::set;
use super::stores::LIMITS;
use super::{Broker, Error, Place};

/// What an entry is called.
const WHAT: &str = "a unique key's entry";
/// How long an entry lives at most, from when its task is due.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// A task that cannot be found may be on its way into its queue for so long.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// Keys that one sweep looks at.
const SWEEP_MAX: usize = 256;
/// How often a key that changes hands is looked at.
const ROUNDS: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    v: u32,
    task_id: TaskId,
}

/// The outcome of claiming a unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueClaim {
    /// The key is this task's.
    Fresh,
    /// This task has it, and is queued or running.
    Held(TaskId),
    /// This task has it, and is not stored, or not yet: whoever publishes under its id makes good for both.
    Unstored(TaskId),
}

impl Broker {
    /// Claims a unique key (a hash, see [`super::key_hash`]) for a task that is due in `delay`.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the key may be claimed all the same, which holds nobody up.
    pub async fn claim_unique(
        &self,
        key_hash: &str,
        task_id: TaskId,
        delay: Duration,
        wait: Duration,
    ) -> Result<UniqueClaim, Error> {
        let subject = self.subjects().unique_key(key_hash);
        let mut expected = 0;
        for _ in 0..ROUNDS {
            match self.write_entry(&subject, task_id, expected, delay, wait).await {
                Ok(()) => return Ok(UniqueClaim::Fresh),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error.of_keys(LIMITS)),
            }
            expected = 0;
            let Some((entry, message)) = self.limit_entry::<Entry>(&subject, WHAT).await? else { continue };
            if entry.task_id == task_id {
                return Ok(UniqueClaim::Fresh);
            }
            let age_ms = message.stored_at.map_or(0, |at| self.now_unix_ms().saturating_sub(at.unix_ms()));
            match self.find_task(entry.task_id).await? {
                Some(Place::Recorded(record, _)) if record.state.is_final() => expected = message.sequence,
                Some(_) => return Ok(UniqueClaim::Held(entry.task_id)),
                None if u128::from(age_ms) < ON_ITS_WAY.as_millis() => {
                    return Ok(UniqueClaim::Unstored(entry.task_id));
                }
                None => expected = message.sequence,
            }
        }
        Err(Error::unavailable("a unique key changes hands too fast"))
    }

    /// Releases a unique key, if it is this task's.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a retry is harmless.
    pub async fn release_unique(&self, key_hash: &str, task_id: TaskId) -> Result<(), Error> {
        let (stream, subject) = (self.subjects().limits_stream(), self.subjects().unique_key(key_hash));
        let Some(message) = self.last_message(&stream, &subject).await? else { return Ok(()) };
        match serde_json::from_slice::<Entry>(&message.payload) {
            Ok(entry) if entry.task_id == task_id => self.delete_message(&stream, message.sequence).await,
            _ => Ok(()),
        }
    }

    /// Releases the keys of tasks that have ended or never were, among those from sequence `from` on that are older than
    /// `age`. Returns how many there were, and where to go on.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn sweep_unique(&self, age: Duration, from: u64) -> Result<(u64, u64), Error> {
        let stream = self.subjects().limits_stream();
        let page = self.page(&stream, &self.subjects().unique_keys(), from, SWEEP_MAX).await?;
        let next =
            page.messages.last().filter(|_| page.left > 0).map_or(1, |last| last.sequence.saturating_add(1));
        let mut released = 0;
        for message in page.messages {
            let stored_ms = message.stored_at.map_or(u64::MAX, |at| at.unix_ms());
            let age_ms = u128::from(self.now_unix_ms().saturating_sub(stored_ms));
            let Ok(entry) = serde_json::from_slice::<Entry>(&message.payload) else { continue };
            if age_ms < age.as_millis() {
                continue;
            }
            let is_free = match self.find_task(entry.task_id).await {
                Ok(Some(Place::Recorded(record, _))) => record.state.is_final(),
                Ok(Some(_)) => false,
                Ok(None) => age_ms >= ON_ITS_WAY.as_millis(),
                // What is written of that task cannot be read, which holds up no sweep.
                Err(Error::Unreadable { .. }) => false,
                Err(error) => return Err(error),
            };
            if is_free {
                released += 1;
                self.delete_message(&stream, message.sequence).await?;
            }
        }
        Ok((released, next))
    }

    /// Deletes one message. By its sequence: what has been written in between is another message, and stays.
    pub(super) async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        let request = json!({ "seq": sequence, "no_erase": true });
        match self.api(&format!("STREAM.MSG.DELETE.{stream}"), &request, API_TIMEOUT).await {
            // It is gone already.
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write_entry(
        &self,
        subject: &str,
        task_id: TaskId,
        expected: u64,
        delay: Duration,
        wait: Duration,
    ) -> Result<(), Error> {
        let json =
            serde_json::to_vec(&Entry { v: 1, task_id }).map_err(|error| Error::unreadable(WHAT, error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        set(&mut headers, header::NATS_TTL, &format!("{}s", delay.saturating_add(KEPT).as_secs()))?;
        self.publish_stored(subject, headers, Bytes::from(json), wait).await.map(|_| ())
    }
}
