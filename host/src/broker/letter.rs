//! Dead letters as operators meet them: read, replayed as new tasks, removed.
//!
//! Invariants:
//! - A replay's id depends only on the dead task's id. So a replay that was killed half-way and is made again, or that
//!   two people make at once, is one task; it is known as long as its message or its record exists (`tasks.result_ttl_s`).
//! - A letter is removed after its replay was stored, never before.
//! - The new task is linked to the old one: its parent is the dead task, and its root the dead task's.
//!
//! Refuses: changing a letter. What is in doubt stays as it is.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Attempt, Name, TaskEnvelope, TaskId, Timestamp, header};

use super::direct::StoredMessage;
use super::publish::pairs;
use super::scan::{EVERYTHING, PAGE_MAX};
use super::unique::UniqueClaim;
use super::{Broker, Error, Extent};
use crate::terms::unique_hash_of;

/// A dead letter that was read.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The dead task.
    pub id: TaskId,
    /// Its plugin.
    pub plugin: Name,
    /// Its name.
    pub task: Name,
    /// When the letter was stored.
    pub died_at: Timestamp,
    /// Why it was given up.
    pub reason: String,
    /// The code of the error that ended it.
    pub code: String,
    /// What was tried, oldest first.
    pub attempts: Vec<Attempt>,
    /// Older attempts that are not among them.
    pub attempts_omitted: u32,
    /// The last attempt's envelope; the reason where it cannot be read.
    pub envelope: Result<TaskEnvelope, String>,
    subject: String,
}

/// Which letters.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Of this plugin.
    pub plugin: Option<Name>,
    /// Of the task with this name.
    pub task: Option<Name>,
    /// Ended by an error with this code.
    pub code: Option<String>,
    /// Stored at this time or later.
    pub since: Option<Timestamp>,
}

impl LetterFilter {
    fn takes(&self, letter: &Letter) -> bool {
        self.plugin.as_ref().is_none_or(|plugin| *plugin == letter.plugin)
            && self.task.as_ref().is_none_or(|task| *task == letter.task)
            && self.code.as_ref().is_none_or(|code| *code == letter.code)
            && self.since.is_none_or(|since| letter.died_at >= since)
    }
}

/// A walk over letters, oldest first. It ends where the stream ended when it began: letters that arise meanwhile, perhaps
/// from the very replays that it serves, are not part of it.
#[derive(Debug)]
pub struct Letters {
    broker: Broker,
    filter: LetterFilter,
    next: u64,
    last: u64,
}

impl Letters {
    /// The next letters; empty at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn next_page(&mut self) -> Result<Vec<Letter>, Error> {
        let subjects = self.broker.subjects();
        let subject_filter = match (&self.filter.plugin, &self.filter.task) {
            (None, None) => EVERYTHING.to_owned(),
            (plugin, task) => subjects.deads_of(plugin.as_ref(), task.as_ref()),
        };
        while self.next <= self.last {
            let page =
                self.broker.page(&subjects.dead_stream(), &subject_filter, self.next, PAGE_MAX).await?;
            self.next = page.messages.last().map_or(u64::MAX, |message| message.sequence.saturating_add(1));
            let in_reach = page.messages.into_iter().filter(|message| message.sequence <= self.last);
            let letters: Vec<Letter> = in_reach
                .filter_map(|message| self.broker.read_letter(message))
                .filter(|letter| self.filter.takes(letter))
                .collect();
            if !letters.is_empty() {
                return Ok(letters);
            }
        }
        Ok(Vec::new())
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The new task.
    pub id: TaskId,
    /// An earlier replay had made it already.
    pub earlier: bool,
}

/// The id of the task that a replay of `dead` makes.
#[must_use]
pub fn replay_id(dead: TaskId) -> TaskId {
    TaskId::derive_from(dead.unix_ms(), &[b"replay", dead.as_bytes()])
}

impl Broker {
    /// The newest letters that the filter takes, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn newest_letters(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<(Vec<Letter>, Extent), Error> {
        let mut letters = Vec::new();
        let extent = self
            .newest(&self.subjects().dead_stream(), |message| {
                let letter = self.read_letter(message).filter(|letter| filter.takes(letter));
                if letters.len() == limit && letter.is_some() {
                    return std::ops::ControlFlow::Break(());
                }
                letters.extend(letter);
                std::ops::ControlFlow::Continue(())
            })
            .await?;
        Ok((letters, extent))
    }

    /// All letters of now that the filter takes.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn letters(&self, filter: LetterFilter) -> Result<Letters, Error> {
        let last = self.bounds(&self.subjects().dead_stream()).await?.map_or(0, |(_, last)| last);
        Ok(Letters { broker: self.clone(), filter, next: 1, last })
    }

    /// One task's letter.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn find_letter(&self, id: TaskId) -> Result<Option<Letter>, Error> {
        let found = self.first_message(&self.subjects().dead_stream(), &self.subjects().dead_by_id(id)).await;
        match found {
            Err(Error::NoResponders { .. }) => Ok(None),
            other => Ok(other?.and_then(|message| self.read_letter(message))),
        }
    }

    /// Makes a new task of a letter, then removes the letter. Doing it again is harmless. A unique key is the new task's from then on.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when the letter holds no envelope, [`Error::BodyLost`], [`Error::KeyHeld`], [`Error::QueueFull`], [`Error::NoResponders`] when the
    /// plugin has no queue, [`Error::Unavailable`]. The letter is still there.
    pub async fn replay_letter(&self, letter: &Letter, wait: Duration) -> Result<Replayed, Error> {
        let envelope = letter
            .envelope
            .as_ref()
            .map_err(|reason| Error::unreadable(format!("the dead letter of {}", letter.id), reason))?;
        if envelope.body.is_empty() {
            return Err(Error::BodyLost);
        }
        let id = replay_id(letter.id);
        let mut replayed = Replayed { id, earlier: true };
        if self.find_task(id).await?.is_none() {
            let again = TaskEnvelope {
                id,
                attempt: 1,
                accept_by: None,
                // It was asked for now, by somebody who knows how old it is.
                expires_at: None,
                root_id: envelope.root_id,
                parent_id: Some(letter.id),
                enqueued_at: Timestamp::from_unix_ms(self.now_unix_ms()),
                ..envelope.clone()
            };
            if let Some(hash) = unique_hash_of(&again)
                && let UniqueClaim::Held(holder) | UniqueClaim::Unstored(holder) =
                    self.claim_unique(&hash, id, Duration::ZERO, wait).await?
            {
                return Err(Error::KeyHeld { holder });
            }
            replayed.earlier = self.publish_task(&again, wait).await?.duplicate;
        }
        self.remove_letter(letter).await?;
        Ok(replayed)
    }

    /// Removes a letter for good; says whether it was there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove_letter(&self, letter: &Letter) -> Result<bool, Error> {
        Ok(self.purge(&self.subjects().dead_stream(), &letter.subject).await? > 0)
    }

    /// `None` for what is no letter of this installation's.
    fn read_letter(&self, message: StoredMessage) -> Option<Letter> {
        let StoredMessage { subject, stored_at, headers, payload, .. } = message;
        let (plugin, task, id) = self.subjects().parse_dead(&subject)?;
        let headers = headers.unwrap_or_default();
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let attempts: Vec<Attempt> =
            text(header::DEAD_ATTEMPTS).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        let last_code = || attempts.last().and_then(|attempt| Some(attempt.error.as_ref()?.code.clone()));
        Some(Letter {
            id,
            plugin,
            task,
            died_at: stored_at.unwrap_or_default(),
            reason: text(header::DEAD_REASON).unwrap_or_default(),
            code: text(header::DEAD_CODE).or_else(last_code).unwrap_or_else(|| "unknown".to_owned()),
            attempts_omitted: text(header::DEAD_ATTEMPTS_OMITTED).and_then(|n| n.parse().ok()).unwrap_or(0),
            envelope: self.letter_envelope(&headers, payload),
            attempts,
            subject,
        })
    }

    fn letter_envelope(&self, headers: &HeaderMap, payload: Bytes) -> Result<TaskEnvelope, String> {
        let original =
            headers.get(header::ORIGINAL_SUBJECT).ok_or("it does not name its original subject")?;
        let own = |name: &str| {
            name == header::ORIGINAL_SUBJECT
                || name.starts_with(header::DEAD_PREFIX)
                || name.starts_with(header::NATS_PREFIX)
        };
        let of_the_task = pairs(Some(headers)).filter(|(name, _)| !own(name));
        TaskEnvelope::decode(self.subjects(), original.as_str(), of_the_task, payload)
            .map_err(|error| error.to_string())
    }
}
