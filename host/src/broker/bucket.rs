//! Entries of the bucket of limits, read as values; and a copy of some of them, kept up to date.
//!
//! Invariant of a copy: it is read anew whenever somebody writes, whenever the connection comes back, and every few
//! seconds, since the notice of a write may be lost.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::scan::PAGE_MAX;
use super::{Broker, Error};

/// How often the broker is asked without a notice.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// An entry, the subject that it stands under, and its sequence.
pub(super) type Entry<T> = (T, String, u64);

impl Broker {
    /// All entries under `filter`.
    pub(super) async fn limit_entries<T: DeserializeOwned>(
        &self,
        filter: &str,
        what: &'static str,
    ) -> Result<Vec<Entry<T>>, Error> {
        let stream = self.subjects().limits_stream();
        let (mut found, mut from) = (Vec::new(), 1);
        loop {
            let page = self.page(&stream, filter, from, PAGE_MAX).await?;
            let Some(last) = page.messages.last() else { return Ok(found) };
            from = last.sequence.saturating_add(1);
            for message in page.messages {
                let entry = serde_json::from_slice(&message.payload)
                    .map_err(|error| Error::unreadable(what, error))?;
                found.push((entry, message.subject, message.sequence));
            }
            if page.left == 0 {
                return Ok(found);
            }
        }
    }

    /// Calls `read` whenever something under `filter` may have changed, until it is dropped. A write that is refused is
    /// noticed as well.
    pub async fn follow_limits<R>(&self, filter: String, read: impl Fn() -> R)
    where
        R: Future<Output = Result<(), Error>>,
    {
        let mut link = self.watch();
        loop {
            let mut changes = match self.subscribe(filter.clone()).await {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::debug!(%error, filter, "cannot listen for changes yet");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let mut noticed = false;
            loop {
                let pause = match read().await {
                    // The notice of a write may be faster than the write.
                    Ok(()) if std::mem::take(&mut noticed) => AGAIN,
                    Ok(()) => LOOK_EVERY,
                    Err(error) => {
                        tracing::debug!(%error, filter, "entries cannot be read now");
                        AGAIN
                    }
                };
                tokio::select! {
                    change = changes.next() => match change {
                        Some(_) => noticed = true,
                        None => break,
                    },
                    changed = link.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}
