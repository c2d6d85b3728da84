//! Crash histories of plugin versions, in the bucket of limits: noted, read, released.
//!
//! Invariants: a history is changed by compare-and-set, so that no crash is lost; one without a quarantine goes with its
//! time to live, a quarantine stays until it is released.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Crash, CrashHistory, Name, QuarantinePolicy, header};

use super::bucket::Entry;
use super::publish::set;
use super::{Broker, Error};

/// What an entry is called.
const WHAT: &str = "a crash history";
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
        let subject = self.subjects().crash_history(plugin, version);
        let mut conflict = Error::Conflict { last_sequence: None };
        for _ in 0..ROUNDS {
            let (mut history, sequence) = match self.limit_entry::<CrashHistory>(&subject, WHAT).await? {
                Some((history, message)) => (history, message.sequence),
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
    /// [`Error::Unavailable`].
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

    async fn histories(&self, plugin: Option<&Name>) -> Result<Vec<Entry<CrashHistory>>, Error> {
        self.limit_entries(&self.subjects().crash_histories(plugin), WHAT).await
    }

    async fn write_history(
        &self,
        subject: &str,
        history: &CrashHistory,
        expected: u64,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let json = serde_json::to_vec(history).map_err(|error| Error::unreadable(WHAT, error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        if let Some(ttl) = ttl {
            set(&mut headers, header::NATS_TTL, &format!("{}s", ttl.as_secs().max(1)))?;
        }
        self.publish_stored(subject, headers, Bytes::from(json), WRITE_TIMEOUT).await.map(|_| ())
    }
}
