//! Crash histories of plugin versions, in the bucket of limits: noted, read, released.
//!
//! Invariants: a history is changed by compare-and-set, so that no crash is lost; one without a quarantine goes with its
//! time to live, a quarantine stays until it is released. Every write is also seen by who listens
//! ([`super::Broker::crash_histories_changed`]), which is a hint and no truth: a write that was refused is seen as well.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Crash, CrashHistory, Name, QuarantinePolicy, header};

use super::publish::set;
use super::scan::PAGE_MAX;
use super::{Broker, Error, Subscription};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a write that others were faster with is tried anew.
const ROUNDS: usize = 16;
/// How long a history is kept beyond its policy's window.
const KEPT_BEYOND: Duration = Duration::from_secs(60);
/// How long it is told that there is nothing to tell any more.
const RELEASED_FOR: Duration = Duration::from_secs(86_400);

impl Broker {
    /// Adds a crash to the history of a plugin's version. Answers the history where this crash led to a quarantine.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Conflict`] when others are faster all the time. A repeat is harmless.
    pub async fn note_crash(
        &self,
        plugin: &Name,
        version: &str,
        crash: Crash,
        policy: QuarantinePolicy,
    ) -> Result<Option<CrashHistory>, Error> {
        let (stream, subject) =
            (self.subjects().limits_stream(), self.subjects().crash_history(plugin, version));
        let mut conflict = Error::Conflict { last_sequence: None };
        for _ in 0..ROUNDS {
            let (mut history, sequence) = match self.last_message(&stream, &subject).await? {
                Some(message) => (parse(&message.payload)?, message.sequence),
                None => (CrashHistory::new(plugin.clone(), version), 0),
            };
            let is_quarantined = history.note(crash.clone(), policy);
            let ttl = Duration::from_millis(policy.window_ms).saturating_add(KEPT_BEYOND);
            let ttl = history.quarantined_at.is_none().then_some(ttl);
            match self.write_history(&subject, &history, sequence, ttl).await {
                Ok(()) => return Ok(is_quarantined.then_some(history)),
                Err(error @ Error::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error),
            }
        }
        Err(conflict)
    }

    /// The histories of one plugin's versions, or of all plugins'.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Unreadable`] for what a newer host may have written.
    pub async fn crash_histories(&self, plugin: Option<&Name>) -> Result<Vec<CrashHistory>, Error> {
        Ok(self.histories(plugin).await?.into_iter().map(|(history, ..)| history).collect())
    }

    /// Lifts the quarantine of a plugin's versions, or of one of them; answers which. Their crashes are forgotten.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Conflict`] when it has just crashed again. A repeat is harmless.
    pub async fn release(&self, plugin: &Name, version: Option<&str>) -> Result<Vec<CrashHistory>, Error> {
        let mut released = Vec::new();
        for (history, subject, sequence) in self.histories(Some(plugin)).await? {
            if history.quarantined_at.is_none() || version.is_some_and(|version| version != history.version) {
                continue;
            }
            let clean = CrashHistory::new(plugin.clone(), &history.version);
            self.write_history(&subject, &clean, sequence, Some(RELEASED_FOR)).await?;
            released.push(history);
        }
        Ok(released)
    }

    /// A message for each write of a history, also for one that is refused.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn crash_histories_changed(&self) -> Result<Subscription, Error> {
        self.subscribe(self.subjects().crash_histories(None)).await
    }

    async fn histories(&self, plugin: Option<&Name>) -> Result<Vec<(CrashHistory, String, u64)>, Error> {
        let (stream, filter) = (self.subjects().limits_stream(), self.subjects().crash_histories(plugin));
        let (mut found, mut from) = (Vec::new(), 1);
        loop {
            let page = self.page(&stream, &filter, from, PAGE_MAX).await?;
            let Some(last) = page.messages.last() else { return Ok(found) };
            from = last.sequence.saturating_add(1);
            for message in page.messages {
                found.push((parse(&message.payload)?, message.subject, message.sequence));
            }
            if page.left == 0 {
                return Ok(found);
            }
        }
    }

    async fn write_history(
        &self,
        subject: &str,
        history: &CrashHistory,
        expected: u64,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let json =
            serde_json::to_vec(history).map_err(|error| Error::unreadable("a crash history", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        if let Some(ttl) = ttl {
            set(&mut headers, header::NATS_TTL, &format!("{}s", ttl.as_secs().max(1)))?;
        }
        self.publish_stored(subject, headers, Bytes::from(json), WRITE_TIMEOUT).await.map(|_| ())
    }
}

fn parse(payload: &[u8]) -> Result<CrashHistory, Error> {
    serde_json::from_slice(payload).map_err(|error| Error::unreadable("a crash history", error))
}
