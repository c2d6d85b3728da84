//! Starts of a task at a rate that holds over all workers.
//!
//! One record per task says when the next start is free. A worker that wants some moves that time on by compare-and-set,
//! and may start from where it stood: so all workers together never get ahead of the rate, and nobody is in charge.
//!
//! Invariants: times are the broker's; a reservation whose write is in doubt counts as used, so an outage slows a task
//! down and never speeds it up.
//! Refuses: taking reservations back. A worker that dies wastes those that it has in hand.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Name, Rate, header};
use serde::{Deserialize, Serialize};

use super::publish::set;
use super::{Broker, Error};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a reservation that others were faster with is tried anew.
const ROUNDS: usize = 64;
/// Longest pause before that; drawn, so that those that collided do not collide again.
const PAUSE_MAX_MS: u64 = 10;

/// When the next start is free.
#[derive(Debug, Serialize, Deserialize)]
struct NextStart {
    v: u32,
    /// Microseconds since 1970, by the broker's clock.
    next_unix_us: u64,
    /// Microseconds between two starts, when that was written.
    #[serde(default)]
    interval_us: u64,
}

/// What an entry is called.
const WHAT: &str = "a rate's record";

impl Broker {
    /// When the next start of a task is free, in microseconds since 1970 by the broker's clock; `None` where none was ever
    /// reserved.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn next_start(&self, plugin: &Name, task: &Name) -> Result<Option<u64>, Error> {
        let (stream, subject) = (self.subjects().limits_stream(), self.subjects().rate(plugin, task));
        let message = self.last_message(&stream, &subject).await?;
        // One that cannot be read is removed by whoever reserves.
        let next = message.and_then(|message| serde_json::from_slice::<NextStart>(&message.payload).ok());
        Ok(next.map(|next| next.next_unix_us))
    }

    /// Reserves `count` starts of a task; returns how long to wait before the first of them may happen.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Conflict`] when others are faster all the time; a retry helps.
    pub async fn reserve_starts(
        &self,
        plugin: &Name,
        task: &Name,
        rate: Rate,
        count: u32,
    ) -> Result<Duration, Error> {
        let subject = self.subjects().rate(plugin, task);
        let mut conflict = Error::Conflict { last_sequence: None };
        for _ in 0..ROUNDS {
            let (next, before_us, sequence) = match self.limit_entry::<NextStart>(&subject, WHAT).await? {
                Some((next, message)) => (next.next_unix_us, next.interval_us, message.sequence),
                None => (0, 0, 0),
            };
            let now = self.now_unix_ms().saturating_mul(1_000);
            let interval_us = rate.interval_us();
            // What was reserved at a slower rate, perhaps an hour ahead, must not hold up a faster one.
            let next = if before_us > interval_us { next.min(now.saturating_add(interval_us)) } else { next };
            let start = next.max(now);
            let taken = interval_us.saturating_mul(u64::from(count));
            let record = NextStart { v: 1, next_unix_us: start.saturating_add(taken), interval_us };
            let json = serde_json::to_vec(&record).map_err(|error| Error::unreadable(WHAT, error))?;
            let mut headers = HeaderMap::new();
            set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string())?;
            match self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await {
                Ok(_) => return Ok(Duration::from_micros(start - now)),
                Err(error @ Error::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=PAUSE_MAX_MS))).await;
        }
        Err(conflict)
    }
}
