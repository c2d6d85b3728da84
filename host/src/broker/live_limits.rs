//! What operators have set for tasks, in the bucket of limits: read, and changed by compare-and-set.
//!
//! Invariants: an entry stays until it is lifted, and no starting host writes one.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{LiveLimits, Name, Timestamp, header};

use super::publish::set;
use super::{Broker, Error};

/// What an entry is called.
const WHAT: &str = "a task's live limits";
/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a write that others were faster with is tried anew.
const ROUNDS: usize = 16;
/// How long it is told that nothing is set any more.
const LIFTED_FOR: Duration = Duration::from_secs(86_400);

impl Broker {
    /// What is set, of all tasks.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn live_limits(&self) -> Result<Vec<LiveLimits>, Error> {
        let entries = self.limit_entries(&self.subjects().all_live_limits(), WHAT).await?;
        Ok(entries
            .into_iter()
            .map(|(limits, ..)| limits)
            .filter(|limits: &LiveLimits| !limits.is_empty())
            .collect())
    }

    /// Changes what is set for one task; answers what is set now.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Conflict`] when others are faster all the time. A repeat is harmless.
    pub async fn change_live_limits(
        &self,
        plugin: &Name,
        task: &Name,
        change: impl Fn(&mut LiveLimits),
    ) -> Result<LiveLimits, Error> {
        let subject = self.subjects().live_limits(plugin, task);
        let mut conflict = Error::Conflict { last_sequence: None };
        for _ in 0..ROUNDS {
            let now = Timestamp::from_unix_ms(self.now_unix_ms());
            let (mut limits, sequence) = match self.limit_entry(&subject, WHAT).await? {
                Some((limits, message)) => (limits, message.sequence),
                None => (LiveLimits::new(plugin.clone(), task.clone(), now), 0),
            };
            change(&mut limits);
            limits.set_at = now;
            let mut headers = HeaderMap::new();
            set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string())?;
            if limits.is_empty() {
                set(&mut headers, header::NATS_TTL, &format!("{}s", LIFTED_FOR.as_secs()))?;
            }
            let json = serde_json::to_vec(&limits).map_err(|error| Error::unreadable(WHAT, error))?;
            match self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await {
                Ok(_) => return Ok(limits),
                Err(error @ Error::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error),
            }
        }
        Err(conflict)
    }
}
