//! What a task's attempts have recorded of their side effects, for the attempts after them.
//!
//! One entry per task and key, in the bucket of limits, created once. Whoever comes second is told what stands there,
//! whichever attempt it is: the effect has happened, and that is all there is to know.
//!
//! Invariants: an entry is never overwritten with another value. It lives until its task has ended, and from then on as long as
//! the task's record: an attempt whose lease was lost may still ask. The end is noted by the worker that wrote it; an entry
//! of which that was not noted lives for a month, counted anew when an attempt reads it after half of that.

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskId, header, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

use super::direct::StoredMessage;
use super::publish::set;
use super::stores::LIMITS;
use super::{Broker, Error, unique};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an entry outlives its last reading while its task has not ended, as it may wait for its next attempt.
const KEPT: Duration = unique::KEPT;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    v: u32,
    /// The attempt that recorded it.
    attempt: u32,
    value: Box<RawValue>,
}

impl Broker {
    /// What stands under a key (a hash, see [`super::key_hash`]) of a task.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn recorded_once(&self, id: TaskId, key_hash: &str) -> Result<Option<Box<RawValue>>, Error> {
        let (stream, subject) = (self.subjects().limits_stream(), self.subjects().once(id, key_hash));
        let Some(message) = self.last_message(&stream, &subject).await? else { return Ok(None) };
        let age_ms = message.stored_at.map_or(0, |at| self.now_unix_ms().saturating_sub(at.unix_ms()));
        if u128::from(age_ms) > KEPT.as_millis() / 2 {
            let renewed = self.write_effect(&subject, message.payload.clone(), message.sequence, KEPT).await;
            if let Err(error) = renewed {
                tracing::debug!(task = %id, %error, "what a task did once is not kept for longer");
            }
        }
        let entry: Entry = serde_json::from_slice(&message.payload)
            .map_err(|error| Error::unreadable(format!("what task {id} did once"), error))?;
        Ok(Some(entry.value))
    }

    /// Records a value under a key, unless there is one; then that is returned.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; it may have been recorded, and a repeat is harmless.
    pub async fn record_once(
        &self,
        id: TaskId,
        key_hash: &str,
        attempt: u32,
        value: &RawValue,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let subject = self.subjects().once(id, key_hash);
        let entry = Entry { v: 1, attempt, value: value.to_owned() };
        let json = serde_json::to_vec(&entry)
            .map_err(|error| Error::unreadable(format!("what task {id} did once"), error))?;
        match self.write_effect(&subject, Bytes::from(json), 0, KEPT).await {
            Ok(()) => Ok(None),
            Err(conflict @ Error::Conflict { .. }) => {
                self.recorded_once(id, key_hash).await?.map(Some).ok_or(conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// How many keys a task has.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn count_once(&self, id: TaskId) -> Result<u64, Error> {
        let filter = self.subjects().once(id, "*");
        Ok(self.amount(&self.subjects().limits_stream(), &filter, 1).await?.count)
    }

    /// Says that the task has ended: what it did once is forgotten with its outcome.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`]; what was not reached is kept for longer.
    pub async fn end_once(&self, id: TaskId) -> Result<(), Error> {
        let filter = self.subjects().once(id, "*");
        let most = usize::try_from(limits::ONCE_KEYS_MAX).unwrap_or(usize::MAX);
        let entries = self.page(&self.subjects().limits_stream(), &filter, 1, most).await?.messages;
        for StoredMessage { subject, payload, sequence, .. } in entries {
            match self.write_effect(&subject, payload, sequence, self.options().result_ttl).await {
                // By somebody who has noted the end as well.
                Ok(()) | Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write_effect(
        &self,
        subject: &str,
        json: Bytes,
        expected: u64,
        kept: Duration,
    ) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        set(&mut headers, header::NATS_TTL, &format!("{}s", kept.as_secs().max(1)))?;
        let stored = self.publish_stored(subject, headers, json, WRITE_TIMEOUT).await;
        stored.map(|_| ()).map_err(|error| error.of_keys(LIMITS))
    }
}
