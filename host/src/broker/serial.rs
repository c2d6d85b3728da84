//! Serial keys: of the tasks with one key, one is running at a time, in the order in which they came.
//!
//! The key's **lock** names the task whose turn it is. Whoever arrives and finds it taken moves into the key's **line**, a
//! subject of its own, and holds neither slot nor lease there. Whoever ends its turn passes the lock on to the head of the
//! line *before* putting it back into its queue, so that nobody who arrives meanwhile gets ahead of it.
//!
//! ```text
//! arrival ─▶ lock free or mine? ─ yes ─▶ run ─▶ record ─▶ pass on: lock := head of the line, head ─▶ queue ─▶ ack
//!                               └ no ──▶ line ─▶ lock free now? pass on ─▶ ack
//! ```
//!
//! Invariants: a message leaves the line only when its queue has stored it; a lock changes hands by compare-and-set; every
//! step can be repeated, so whoever gets the redelivery of one that died half-way does it again.
//! Refuses: a lock without end (it has a time to live), and waiting: an arrival is told at once.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{State, TaskAddress, TaskId, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::API_TIMEOUT;
use super::delivery::Delivery;
use super::direct::StoredMessage;
use super::publish::{pairs, set};
use super::stores::LIMITS;
use super::unique::KEPT;
use super::{Broker, Error, Place};

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Locks, and lines, that one sweep looks at.
const SWEEP_MAX: usize = 256;
/// How often a lock that changes hands is looked at.
const ROUNDS: usize = 16;

/// Whose turn it is: a task, by the attempt that its message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The task.
    pub task_id: TaskId,
    /// The attempt.
    pub attempt: u32,
}

/// Where a sweep of turns goes on.
#[derive(Debug, Clone, Default)]
pub struct SerialCursor {
    lock: String,
    line: String,
}

/// The next names of a sorted list after `last`, which moves on to where they end; from the beginning after the end.
fn take_from(names: Vec<String>, last: &mut String) -> Vec<String> {
    let mut next: Vec<String> = names.into_iter().filter(|name| *name > *last).collect();
    let goes_on = next.len() > SWEEP_MAX;
    next.truncate(SWEEP_MAX);
    *last = next.last().filter(|_| goes_on).cloned().unwrap_or_default();
    next
}

/// The first message of a line.
struct Head {
    turn: Turn,
    address: TaskAddress,
    message: StoredMessage,
}

impl Broker {
    /// Takes a key's lock. Says whether it is this turn's now, or was already.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a retry is harmless.
    pub async fn take_turn(&self, key_hash: &str, turn: Turn) -> Result<bool, Error> {
        let mut expected = 0;
        for _ in 0..ROUNDS {
            if self.write_lock(key_hash, turn, expected).await? {
                return Ok(true);
            }
            expected = match self.lock(key_hash).await? {
                None => 0,
                Some((holder, _)) if holder == turn => return Ok(true),
                // Its own, of an attempt that is over.
                Some((holder, sequence)) if holder.task_id == turn.task_id => sequence,
                Some(_) => return Ok(false),
            };
        }
        Err(Error::unavailable("a serial key changes hands too fast"))
    }

    /// Moves a delivery, which was stored in time, into its key's line. The delivery may be acknowledged then.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::QueueFull`] when the lines are at their bound.
    pub async fn join_line(
        &self,
        key_hash: &str,
        delivery: &Delivery,
        address: &TaskAddress,
        turn: Turn,
    ) -> Result<(), Error> {
        let id = format!("{}.{}.q{}", turn.task_id, turn.attempt, delivery.stream_sequence);
        // It was stored in time, and will be stored again later than its enqueuer waited.
        let kept = delivery.headers().filter(|(name, _)| *name != header::ACCEPT_BY);
        let headers = headers(kept, &id)?;
        let subject = self.subjects().line(key_hash, address);
        self.publish_stored(&subject, headers, delivery.payload(), WRITE_TIMEOUT).await?;
        // The lock may have become free since it was looked at, and nobody would know of this one.
        self.start_line(key_hash).await
    }

    /// Ends a turn: the next in line gets the lock and goes back into its queue. Does what somebody who died left undone.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::QueueFull`]; then it must be tried again.
    pub async fn pass_on(&self, key_hash: &str, turn: Turn) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let Some((holder, sequence)) = self.lock(key_hash).await? else {
                return self.start_line(key_hash).await;
            };
            let head = self.head(key_hash).await?;
            if holder.task_id != turn.task_id || holder.attempt > turn.attempt {
                // Whoever passed it on may not have come to putting it back.
                return match head.filter(|head| head.turn == holder) {
                    Some(head) => self.put_back(head).await,
                    None => Ok(()),
                };
            }
            match head {
                // A copy that was left behind when it was put back.
                Some(head) if head.turn.task_id == turn.task_id && head.turn.attempt <= turn.attempt => {
                    self.delete_message(&self.subjects().lines_stream(), head.message.sequence).await?;
                }
                Some(head) => {
                    if self.write_lock(key_hash, head.turn, sequence).await? {
                        return self.put_back(head).await;
                    }
                }
                None => {
                    self.delete_message(&self.subjects().limits_stream(), sequence).await?;
                    return self.start_line(key_hash).await;
                }
            }
        }
        Err(Error::unavailable("a serial key changes hands too fast"))
    }

    /// Finds turns that nobody will end, because their messages were removed or their ends got lost, and passes them on;
    /// starts lines that nobody has started. Only what is older than `age` is touched, and a bounded number of keys is
    /// looked at from `cursor` on. Returns how many were found.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn sweep_serial(&self, age: Duration, cursor: &mut SerialCursor) -> Result<u64, Error> {
        let mut found = 0;
        let locks = self.subjects_of(&self.subjects().limits_stream(), &self.subjects().locks()).await?;
        for subject in take_from(locks, &mut cursor.lock) {
            let Some(key_hash) = subject.rsplit('.').next() else { continue };
            let Some(message) = self.last_message(&self.subjects().limits_stream(), &subject).await? else {
                continue;
            };
            let stored_ms = message.stored_at.map_or(u64::MAX, |at| at.unix_ms());
            if u128::from(self.now_unix_ms().saturating_sub(stored_ms)) < age.as_millis() {
                continue;
            }
            let Ok(holder) = serde_json::from_slice::<Turn>(&message.payload) else { continue };
            let is_over = match self.find_task(holder.task_id).await? {
                None => true,
                Some(Place::Recorded(record, _)) => {
                    let attempt = record.attempts.last().map_or(0, |attempt| attempt.n);
                    record.state.is_final() || (record.state == State::Retrying && attempt >= holder.attempt)
                }
                Some(_) => false,
            };
            if is_over {
                found += 1;
                self.pass_on(key_hash, holder).await?;
            } else if let Some(head) = self.head(key_hash).await?.filter(|head| head.turn == holder) {
                // It was given the lock and left in the line, where nobody delivers it.
                found += 1;
                self.put_back(head).await?;
            }
        }
        let lines = self.subjects_of(&self.subjects().lines_stream(), &self.subjects().lines()).await?;
        let mut keys: Vec<String> =
            lines.iter().filter_map(|line| self.subjects().key_of_line(line).map(str::to_owned)).collect();
        keys.dedup();
        for key_hash in take_from(keys, &mut cursor.line) {
            if self.lock(&key_hash).await?.is_none() {
                found += 1;
                self.start_line(&key_hash).await?;
            }
        }
        Ok(found)
    }

    /// Gives a free lock to the head of its line, if there is one.
    async fn start_line(&self, key_hash: &str) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let lock = self.lock(key_hash).await?;
            let Some(head) = self.head(key_hash).await? else { return Ok(()) };
            if let Some((holder, _)) = lock {
                // Whoever gave it the lock may not have come to putting it back, and nobody else would.
                return if head.turn == holder { self.put_back(head).await } else { Ok(()) };
            }
            if self.write_lock(key_hash, head.turn, 0).await? {
                return self.put_back(head).await;
            }
        }
        Ok(())
    }

    async fn lock(&self, key_hash: &str) -> Result<Option<(Turn, u64)>, Error> {
        let (stream, subject) = (self.subjects().limits_stream(), self.subjects().lock(key_hash));
        let Some(message) = self.last_message(&stream, &subject).await? else { return Ok(None) };
        let turn = serde_json::from_slice(&message.payload)
            .map_err(|error| Error::unreadable("a serial key's lock", error))?;
        Ok(Some((turn, message.sequence)))
    }

    /// Says whether it was written: whether the lock stood at `expected`.
    async fn write_lock(&self, key_hash: &str, turn: Turn, expected: u64) -> Result<bool, Error> {
        let json =
            serde_json::to_vec(&turn).map_err(|error| Error::unreadable("a serial key's lock", error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())?;
        set(&mut headers, header::NATS_TTL, &format!("{}s", KEPT.as_secs()))?;
        let subject = self.subjects().lock(key_hash);
        match self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.of_keys(LIMITS)),
        }
    }

    async fn head(&self, key_hash: &str) -> Result<Option<Head>, Error> {
        let (stream, filter) = (self.subjects().lines_stream(), self.subjects().line_of(key_hash));
        loop {
            let Some(message) = self.first_message(&stream, &filter).await? else { return Ok(None) };
            let Ok(address) = self.subjects().parse_line(&message.subject) else {
                tracing::warn!(subject = message.subject, "a message in a line that is no task was removed");
                self.delete_message(&stream, message.sequence).await?;
                continue;
            };
            let attempt = pairs(message.headers.as_ref()).find(|(name, _)| *name == header::ATTEMPT);
            let attempt = attempt.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
            return Ok(Some(Head { turn: Turn { task_id: address.id, attempt }, address, message }));
        }
    }

    /// Puts the head of a line back into its queue.
    async fn put_back(&self, head: Head) -> Result<(), Error> {
        let Head { turn, address, message } = head;
        let id = format!("{}.{}.l{}", turn.task_id, turn.attempt, message.sequence);
        let headers = headers(pairs(message.headers.as_ref()), &id)?;
        let subject = self.subjects().task(&address);
        self.publish_stored(&subject, headers, message.payload, WRITE_TIMEOUT).await?;
        self.delete_message(&self.subjects().lines_stream(), message.sequence).await
    }

    /// The subjects of a stream that hold messages and match a filter; as many as the broker tells at once.
    async fn subjects_of(&self, stream: &str, filter: &str) -> Result<Vec<String>, Error> {
        let request = json!({ "subjects_filter": filter });
        let answer = self.api(&format!("STREAM.INFO.{stream}"), &request, API_TIMEOUT).await?;
        let subjects = answer.get("state").and_then(|state| state.get("subjects")).and_then(Value::as_object);
        let mut subjects: Vec<String> =
            subjects.into_iter().flat_map(|subjects| subjects.keys().cloned()).collect();
        subjects.sort_unstable();
        Ok(subjects)
    }
}

/// The headers as they came, without NATS' own, under another identity: a neighbouring version may have written more.
fn headers<'a>(all: impl Iterator<Item = (&'a str, &'a str)>, message_id: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in all.filter(|(name, _)| !name.starts_with(header::NATS_PREFIX)) {
        let unreadable = |error: &dyn std::fmt::Display| Error::unreadable(format!("header {name}"), error);
        let name: async_nats::HeaderName = name.parse().map_err(|error| unreadable(&error))?;
        let value: async_nats::HeaderValue = value.parse().map_err(|error| unreadable(&error))?;
        headers.insert(name, value);
    }
    set(&mut headers, header::NATS_MSG_ID, message_id)?;
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_through_all_names_in_portions_and_begins_anew() {
        let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
        let mut last = String::new();
        assert_eq!(take_from(names.clone(), &mut last).len(), 256);
        assert_eq!(take_from(names.clone(), &mut last), names[256..]);
        assert_eq!(take_from(names.clone(), &mut last).first(), names.first());
    }
}
