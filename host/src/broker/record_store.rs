//! Task records: read, and written by compare-and-set.
//!
//! The sequence that a write returns is the fence for the next one: who does not know it has lost the task.
//! Any number of writes may be under way at once.
//!
//! A final record that owes publishes has a note beside it (`owed`), stored before it.
//!
//! A record is kept until its task has ended, and from then on for its time to live.
//!
//! Invariant: a write in doubt is settled by reading before it is reported, as far as the broker allows.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskId, TaskRecord, header};

use super::publish::set;
use super::{Broker, Error};

/// Time for one write, with its repeats.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

impl Broker {
    /// Reads a task's record and its sequence; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Timeout`]; [`Error::Unreadable`] when something else was written there.
    pub async fn read_record(&self, id: TaskId) -> Result<Option<(TaskRecord, u64)>, Error> {
        let (stream, subject) = (self.subjects().state_stream(), self.subjects().state(id));
        let Some(message) = self.last_message(&stream, &subject).await? else { return Ok(None) };
        let record = TaskRecord::decode(&message.payload)
            .map_err(|error| Error::unreadable(format!("the record of task {id}"), error))?;
        Ok(Some((record, message.sequence)))
    }

    /// Writes a task's record if the last one stands at `expected_sequence` (0: there is none). Returns its sequence.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else wrote in between; [`Error::Unavailable`] with `in_doubt` when the write
    /// may have been stored.
    pub async fn write_record(&self, record: &mut TaskRecord, expected_sequence: u64) -> Result<u64, Error> {
        self.write_record_for(record, expected_sequence, None).await
    }

    /// As [`Broker::write_record`]; with `ttl` a final one is kept for less time than records are.
    ///
    /// # Errors
    /// The same.
    pub async fn write_record_for(
        &self,
        record: &mut TaskRecord,
        expected_sequence: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, Error> {
        let json = record
            .encode()
            .map(Bytes::from)
            .map_err(|error| Error::unreadable(format!("the record of task {}", record.id), error))?;
        let id = record.id;
        if record.state.is_final() && !record.follow_up.is_empty() {
            self.note_owed(id).await?;
        }
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected_sequence.to_string())?;
        if !record.state.is_final() {
            // What a task has been through is needed for as long as it waits.
            set(&mut headers, header::NATS_TTL, header::NATS_TTL_NEVER)?;
        } else if let Some(ttl) = ttl {
            set(&mut headers, header::NATS_TTL, &format!("{}s", ttl.as_secs().max(1)))?;
        }
        let subject = self.subjects().state(id);
        match self.publish_stored(&subject, headers, json.clone(), WRITE_TIMEOUT).await {
            Ok(stored) => Ok(stored.sequence),
            // The conflict may be with our own earlier copy, whose acknowledgement was lost.
            Err(conflict @ Error::Conflict { .. }) => {
                let last = self.last_message(&self.subjects().state_stream(), &subject).await?;
                match last {
                    Some(last) if last.payload == json && last.sequence > expected_sequence => {
                        Ok(last.sequence)
                    }
                    Some(last) => Err(Error::Conflict { last_sequence: Some(last.sequence) }),
                    None => Err(conflict),
                }
            }
            Err(error) => Err(error),
        }
    }
}
