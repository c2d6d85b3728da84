//! Notes of what final records owe: tasks whose outcome is written and whose children, hook or dead letter may not be
//! published yet.
//!
//! A record owes nothing on the happy path. Where it does, its note is stored *before* the record and removed after the last
//! of the publishes, before the acknowledgement: so a note whose message is gone tells of a crash whose redelivery will never come,
//! and whoever sweeps reads the notes, not all records.
//!
//! Refuses: saying what is owed. The record does.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskId, Timestamp, header};

use super::publish::set;
use super::{Broker, Error};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A note that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedNote {
    /// The task.
    pub id: TaskId,
    /// When it was noted.
    pub noted_at: Timestamp,
}

impl Broker {
    pub(super) async fn note_owed(&self, id: TaskId) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        // One of its own each time: an earlier note may have been removed.
        set(&mut headers, header::NATS_MSG_ID, &format!("{id}.owed.{:016x}", fastrand::u64(..)))?;
        self.publish_stored(&self.subjects().owed(id), headers, Bytes::new(), WRITE_TIMEOUT).await.map(|_| ())
    }

    /// Removes a task's note: all is published.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a repeat is harmless.
    pub async fn settle_owed(&self, id: TaskId) -> Result<(), Error> {
        self.purge(&self.subjects().state_stream(), &self.subjects().owed(id)).await.map(|_| ())
    }

    /// The notes from sequence `from` on, oldest first, at most `most`, and the sequence to go on from; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn owed_page(&self, from: u64, most: usize) -> Result<Option<(Vec<OwedNote>, u64)>, Error> {
        let page =
            self.page(&self.subjects().state_stream(), &self.subjects().all_owed(), from, most).await?;
        let Some(last) = page.messages.last().map(|message| message.sequence) else { return Ok(None) };
        let read = |message: super::direct::StoredMessage| {
            let id = self.subjects().parse_owed(&message.subject)?;
            Some(OwedNote { id, noted_at: message.stored_at? })
        };
        Ok(Some((page.messages.into_iter().filter_map(read).collect(), last.saturating_add(1))))
    }
}
