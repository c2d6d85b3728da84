//! Schedules that plugins declare: the broker holds them, and fires them whether or not any host runs.
//!
//! Each is one message, whose text is its record. While the record is active the message is a message schedule; a paused
//! one is an ordinary message in the same place. So whoever changes anything replaces one message by compare-and-set.
//!
//! Invariants: a schedule that is not rewritten keeps its rhythm; what is deleted or paused leaves no firing behind.
//! Refuses: deciding who may change a schedule; that is `worker::schedules`'.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{LastFiring, Name, ScheduleRecord, header};

use super::direct::StoredMessage;
use super::publish::set;
use super::{Broker, Error};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Schedules that one page asks for.
const PAGE: usize = 256;

impl Broker {
    /// The schedules of one plugin, or of all, with the sequences at which they stand. One that cannot be read is passed over.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn recurring(&self, plugin: Option<&Name>) -> Result<Vec<(ScheduleRecord, u64)>, Error> {
        let (stream, filter) = (self.subjects().recurring_stream(), self.subjects().recurring_of(plugin));
        let (mut found, mut from) = (Vec::new(), 1);
        loop {
            let page = self.page(&stream, &filter, from, PAGE).await?;
            let Some(last) = page.messages.last() else { return Ok(found) };
            from = last.sequence.saturating_add(1);
            found.extend(page.messages.iter().filter_map(read_record));
            if page.left == 0 {
                return Ok(found);
            }
        }
    }

    /// Writes a schedule over what stands at `expected`, or as the first one for 0.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has written; [`Error::Unavailable`]; [`Error::Refused`] when the broker does
    /// not take it.
    pub async fn write_recurring(&self, record: &ScheduleRecord, expected: u64) -> Result<(), Error> {
        let ScheduleRecord { plugin, name, definition, .. } = record;
        let unreadable = |error: &dyn std::fmt::Display| Error::unreadable("a schedule's record", error);
        let json = serde_json::to_vec(record).map_err(|error| unreadable(&error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        set(&mut headers, header::NATS_ROLLUP, "sub")?;
        if record.is_active() {
            let cadence = definition.cadence().map_err(|error| unreadable(&error))?;
            set(&mut headers, header::NATS_SCHEDULE, &cadence.pattern())?;
            set(&mut headers, header::NATS_SCHEDULE_TARGET, &self.subjects().slot(plugin, name))?;
            if let Some(zone) = cadence.zone_name() {
                set(&mut headers, header::NATS_SCHEDULE_TIME_ZONE, zone)?;
            }
        }
        let subject = self.subjects().recurring(plugin, name);
        self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await.map(|_| ())
    }

    /// Deletes the schedule that stands at `sequence`, and what it has left behind. Nothing is deleted when somebody has
    /// written meanwhile.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a repeat is harmless.
    pub async fn delete_recurring(&self, plugin: &Name, name: &Name, sequence: u64) -> Result<(), Error> {
        let stream = self.subjects().recurring_stream();
        self.delete_message(&stream, sequence).await?;
        let subject = self.subjects().recurring(plugin, name);
        if self.last_message(&stream, &subject).await?.is_some() {
            return Ok(());
        }
        self.drop_firings(plugin, name).await?;
        self.purge(&self.subjects().limits_stream(), &self.subjects().last_firing(plugin, name)).await?;
        Ok(())
    }

    /// Drops the firings of a schedule that no worker has taken up.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn drop_firings(&self, plugin: &Name, name: &Name) -> Result<(), Error> {
        self.purge(&self.subjects().recurring_stream(), &self.subjects().slot(plugin, name)).await?;
        Ok(())
    }

    /// What is remembered of a schedule's last firing, and the sequence at which it stands.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn last_firing(&self, plugin: &Name, name: &Name) -> Result<Option<(LastFiring, u64)>, Error> {
        let subject = self.subjects().last_firing(plugin, name);
        let found = self.limit_entry(&subject, "a schedule's last firing").await?;
        Ok(found.map(|(firing, message)| (firing, message.sequence)))
    }

    /// Remembers a firing over what stands at `expected`.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has written; [`Error::Unavailable`].
    pub async fn write_last_firing(
        &self,
        plugin: &Name,
        name: &Name,
        firing: &LastFiring,
        expected: u64,
    ) -> Result<(), Error> {
        let json = serde_json::to_vec(firing)
            .map_err(|error| Error::unreadable("a schedule's last firing", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        let subject = self.subjects().last_firing(plugin, name);
        self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await.map(|_| ())
    }

    /// Says for `kept` that workers have this plugin.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn say_seen(&self, plugin: &Name, kept: Duration) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_TTL, &format!("{}s", kept.as_secs().max(1)))?;
        // The id makes a repeat within one publish harmless; two publishes of one millisecond say the same.
        let id = format!("seen.{plugin}.{}", self.now_unix_ms());
        set(&mut headers, header::NATS_MSG_ID, &id)?;
        let subject = self.subjects().seen(plugin);
        self.publish_stored(&subject, headers, Bytes::new(), WRITE_TIMEOUT).await.map(|_| ())
    }

    /// Whether workers have had this plugin lately.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_seen(&self, plugin: &Name) -> Result<bool, Error> {
        let (stream, subject) = (self.subjects().limits_stream(), self.subjects().seen(plugin));
        Ok(self.last_message(&stream, &subject).await?.is_some())
    }
}

fn read_record(message: &StoredMessage) -> Option<(ScheduleRecord, u64)> {
    match serde_json::from_slice(&message.payload) {
        Ok(record) => Some((record, message.sequence)),
        Err(error) => {
            tracing::warn!(subject = message.subject, %error, "a schedule cannot be read");
            None
        }
    }
}
