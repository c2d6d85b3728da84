//! Entries of the bucket of limits, read as values; and a copy of some of them, kept up to date.
//!
//! Anybody can write there with another tool. An entry that is none costs only itself: whoever reads many passes it over, and
//! whoever is about to write its place removes it, for nobody else would and what it stands for would never be free. Each
//! is told once. One without text is a deleted key, as NATS' own tools leave it.
//!
//! Invariant of a copy: it is read anew whenever somebody writes, whenever the connection comes back, and every few
//! seconds, since the notice of a write may be lost.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::direct::StoredMessage;
use super::scan::PAGE_MAX;
use super::{Broker, Error};

/// How often the broker is asked without a notice.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Unreadable entries that are remembered as told.
const TOLD_MAX: usize = 1_024;

/// An entry, the subject that it stands under, and its sequence.
pub(super) type Entry<T> = (T, String, u64);

/// Sequences of the unreadable entries that were told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<VecDeque<u64>>);

impl Told {
    /// Whether it is told for the first time.
    fn is_new(&self, sequence: u64) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(&sequence) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.pop_front();
        }
        told.push_back(sequence);
        true
    }
}

/// `None` for a deleted key.
fn parse<T: DeserializeOwned>(message: &StoredMessage) -> Option<Result<T, serde_json::Error>> {
    (!message.payload.is_empty()).then(|| serde_json::from_slice(&message.payload))
}

impl Broker {
    /// The entry under `subject`, for whoever is about to write there: what cannot be read is removed.
    pub(super) async fn limit_entry<T: DeserializeOwned>(
        &self,
        subject: &str,
        what: &'static str,
    ) -> Result<Option<(T, StoredMessage)>, Error> {
        let stream = self.subjects().limits_stream();
        let Some(message) = self.last_message(&stream, subject).await? else { return Ok(None) };
        if let Some(Ok(entry)) = parse(&message) {
            return Ok(Some((entry, message)));
        }
        if !message.payload.is_empty() {
            tracing::error!(
                what,
                subject,
                "an entry that cannot be read is removed, so that it holds up nobody"
            );
        }
        self.delete_message(&stream, message.sequence).await?;
        Ok(None)
    }

    /// Tells once of an entry that cannot be read and is passed over.
    fn pass_over(&self, what: &'static str, message: &StoredMessage, error: &serde_json::Error) {
        if self.told().is_new(message.sequence) {
            let subject = message.subject.as_str();
            tracing::error!(what, subject, %error, "an entry that cannot be read is passed over; remove it, or write it anew");
        }
    }

    /// All entries under `filter` that can be read.
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
                match parse(&message) {
                    Some(Ok(entry)) => found.push((entry, message.subject, message.sequence)),
                    Some(Err(error)) => self.pass_over(what, &message, &error),
                    None => {}
                }
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
