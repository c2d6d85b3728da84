//! Dead letters: tasks that were given up, kept with everything that a replay needs.

use std::time::Duration;

use cardcage_protocol::record::cut;
use cardcage_protocol::{Attempt, TaskEnvelope, header};

use super::publish::set;
use super::task_queue::envelope_headers;
use super::{Broker, Error, Stored};

/// Longest reason in a dead letter's header.
const REASON_MAX_BYTES: usize = 1024;
/// Longest error message per attempt; the record has more.
const ERROR_MAX_BYTES: usize = 160;
/// Latest attempts that are listed.
const ATTEMPTS_MAX: usize = 16;

/// A task that ended `failed`.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The last attempt's envelope.
    pub envelope: &'a TaskEnvelope,
    /// Why it was given up; one line.
    pub reason: &'a str,
    /// What was tried.
    pub attempts: &'a [Attempt],
}

impl Broker {
    /// Keeps a dead letter. Publishing it again is harmless.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Envelope`].
    pub async fn publish_dead(&self, letter: DeadLetter<'_>, wait: Duration) -> Result<Stored, Error> {
        let DeadLetter { envelope, reason, attempts } = letter;
        let mut headers = envelope_headers(envelope, &format!("{}.dead", envelope.id))?;
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        set(&mut headers, header::DEAD_REASON, cut(&reason, REASON_MAX_BYTES).trim())?;
        set(&mut headers, header::ORIGINAL_SUBJECT, &self.subjects().task(&envelope.address()))?;
        set(&mut headers, header::DEAD_ATTEMPTS, &history(attempts)?)?;
        let subject = self.subjects().dead(&envelope.plugin, &envelope.task, envelope.id);
        self.publish_stored(&subject, headers, envelope.body.clone(), wait).await
    }
}

fn history(attempts: &[Attempt]) -> Result<String, Error> {
    let latest = attempts.get(attempts.len().saturating_sub(ATTEMPTS_MAX)..).unwrap_or_default();
    let mut latest = latest.to_vec();
    for error in latest.iter_mut().filter_map(|attempt| attempt.error.as_mut()) {
        error.message = cut(&error.message, ERROR_MAX_BYTES).into_owned();
        error.details = None;
    }
    serde_json::to_string(&latest).map_err(|error| Error::unreadable("the history of attempts", error))
}
