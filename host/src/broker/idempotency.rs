//! Idempotency keys: the same request twice becomes one task.
//!
//! The key's record is created before the task is published and holds the task's id. So a retry after any failure
//! finds the id, and publishes *that* task again, which is a duplicate where the first publish was stored.
//!
//! Refuses: releasing a key after an ambiguous failure.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskId, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::publish::set;
use super::{Broker, Error};

/// Time that the note on a key may take.
const CONFIRM_WAIT: Duration = Duration::from_secs(5);

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Version of this record.
    pub v: u32,
    /// The task that the key's first request made.
    pub task_id: TaskId,
    /// SHA-256 of that request's body, hexadecimal.
    pub body_sha256: String,
    /// Whether the task's publish was acknowledged. False is no statement: the note may have been lost.
    #[serde(default)]
    pub stored: bool,
    /// How often the task's publishes had come to nothing and a new one was begun.
    #[serde(default)]
    pub round: u32,
    /// Where this record stands; the fence of [`Broker::next_round`].
    #[serde(skip)]
    pub sequence: u64,
}

/// The outcome of claiming a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is this request's.
    Fresh,
    /// The key was claimed before.
    Existing(KeyRecord),
}

/// The name of a key: a hash of everything within which it must be unique, such as plugin, route, caller and key.
#[must_use]
pub fn key_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

impl Broker {
    /// Claims a key (see [`key_hash`]) for `task_id`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the broker does not confirm it within `wait`. The key may then be claimed all the
    /// same; a repeat with the same `task_id` reports it as fresh.
    pub async fn claim_key(
        &self,
        key_hash: &str,
        task_id: TaskId,
        body: &[u8],
        wait: Duration,
    ) -> Result<Claim, Error> {
        let body_sha256 = hex::encode(Sha256::digest(body));
        let ours = KeyRecord { v: 1, task_id, body_sha256, stored: false, round: 0, sequence: 0 };
        let json = serde_json::to_vec(&ours).map_err(|error| Error::unreadable("a key's record", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0")?;
        let subject = self.subjects().idempotency_key(key_hash);
        match self.publish_stored(&subject, headers, Bytes::from(json), wait).await {
            Ok(_) => Ok(Claim::Fresh),
            Err(Error::Conflict { .. }) => {
                let Some(found) = self.read_key(&subject).await? else {
                    // It expired between the two requests; the next attempt will find it free.
                    return Err(Error::unavailable("the idempotency key expired just now"));
                };
                let is_ours = KeyRecord { sequence: 0, ..found.clone() } == ours;
                Ok(if is_ours { Claim::Fresh } else { Claim::Existing(found) })
            }
            Err(error) => Err(error.of_keys("stores.idempotency_max_messages")),
        }
    }

    /// Begins a new round of publishing a key's task, because the last one came to nothing. Of several that do so at
    /// the same time one succeeds, and all go on with its round.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also when the key has expired.
    pub async fn next_round(
        &self,
        key_hash: &str,
        record: &KeyRecord,
        wait: Duration,
    ) -> Result<KeyRecord, Error> {
        let subject = self.subjects().idempotency_key(key_hash);
        let next = KeyRecord { round: record.round.saturating_add(1), ..record.clone() };
        match self.write_key(&subject, &next, wait).await {
            Ok(sequence) => Ok(KeyRecord { sequence, ..next }),
            Err(Error::Conflict { .. }) => {
                let found = self.read_key(&subject).await?;
                found.ok_or_else(|| Error::unavailable("the idempotency key expired just now"))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_key(&self, subject: &str) -> Result<Option<KeyRecord>, Error> {
        let stream = self.subjects().idempotency_stream();
        let Some(message) = self.last_message(&stream, subject).await? else { return Ok(None) };
        let record: KeyRecord = serde_json::from_slice(&message.payload)
            .map_err(|error| Error::unreadable("an idempotency key's record", error))?;
        Ok(Some(KeyRecord { sequence: message.sequence, ..record }))
    }

    /// Writes over the record that stands at `record.sequence`, and only over that.
    async fn write_key(&self, subject: &str, record: &KeyRecord, wait: Duration) -> Result<u64, Error> {
        let json = serde_json::to_vec(record).map_err(|error| Error::unreadable("a key's record", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &record.sequence.to_string())?;
        self.publish_stored(subject, headers, Bytes::from(json), wait).await.map(|stored| stored.sequence)
    }

    /// Notes on a key that its task was stored, so that a repeat need not look for it, not even when the task's record
    /// is no longer kept.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; nothing is lost but the note.
    pub async fn confirm_key(&self, key_hash: &str, task_id: TaskId) -> Result<(), Error> {
        let subject = self.subjects().idempotency_key(key_hash);
        let Some(record) = self.read_key(&subject).await? else { return Ok(()) };
        if record.stored || record.task_id != task_id {
            return Ok(());
        }
        let confirmed = KeyRecord { stored: true, ..record };
        self.write_key(&subject, &confirmed, CONFIRM_WAIT).await.map(|_| ())
    }
}
