//! Sweeping serial keys: turns that nobody will end, and lines that nobody has started.
//!
//! Invariants: only what is older than the sweep's age is touched; a bounded number of keys is looked at in one round; a key
//! that cannot be helped now, because its plugin's queue is full or its task's record cannot be read, holds up no other.

use std::time::Duration;

use cardcage_protocol::State;
use serde_json::{Value, json};

use super::api::API_TIMEOUT;
use super::serial::Turn;
use super::{Broker, Error, Place};

/// Locks, and lines, that one sweep looks at.
const SWEEP_MAX: usize = 256;

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

/// What one key came to, for the count.
fn found_one(found: Result<bool, Error>, key_hash: &str) -> Result<u64, Error> {
    match found {
        Ok(found) => Ok(u64::from(found)),
        Err(error @ (Error::QueueFull { .. } | Error::Unreadable { .. })) => {
            tracing::debug!(key_hash, %error, "a serial key cannot be helped now");
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

impl Broker {
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
            found += found_one(self.sweep_turn(&subject, key_hash, age).await, key_hash)?;
        }
        let lines = self.subjects_of(&self.subjects().lines_stream(), &self.subjects().lines()).await?;
        let mut keys: Vec<String> =
            lines.iter().filter_map(|line| self.subjects().key_of_line(line).map(str::to_owned)).collect();
        keys.dedup();
        for key_hash in take_from(keys, &mut cursor.line) {
            found += found_one(self.sweep_line(&key_hash).await, &key_hash)?;
        }
        Ok(found)
    }

    /// Whether a turn was passed on, or the head of a line put back.
    async fn sweep_turn(&self, lock: &str, key_hash: &str, age: Duration) -> Result<bool, Error> {
        let Some(message) = self.last_message(&self.subjects().limits_stream(), lock).await? else {
            return Ok(false);
        };
        let stored_ms = message.stored_at.map_or(u64::MAX, |at| at.unix_ms());
        if u128::from(self.now_unix_ms().saturating_sub(stored_ms)) < age.as_millis() {
            return Ok(false);
        }
        // One that cannot be read goes when its line is looked at.
        let Ok(holder) = serde_json::from_slice::<Turn>(&message.payload) else { return Ok(false) };
        let is_over = match self.find_task(holder.task_id).await? {
            None => true,
            Some(Place::Recorded(record, _)) => {
                let attempt = record.attempts.last().map_or(0, |attempt| attempt.n);
                record.state.is_final() || (record.state == State::Retrying && attempt >= holder.attempt)
            }
            Some(_) => false,
        };
        if is_over {
            self.pass_on(key_hash, holder).await?;
            return Ok(true);
        }
        // It may have been given the lock and left in the line, where nobody delivers it.
        let head = self.head(key_hash).await?;
        self.put_back_if_its_turn(head, holder).await
    }

    /// Whether nobody had started a line.
    async fn sweep_line(&self, key_hash: &str) -> Result<bool, Error> {
        if self.lock(key_hash).await?.is_some() {
            return Ok(false);
        }
        self.start_line(key_hash).await?;
        Ok(true)
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
