//! Dead letters: tasks that were given up, kept with everything that a replay needs.
//!
//! A letter is the last attempt's envelope with headers of its own beside it: reason, code, and the attempts as the
//! record had them, which outlives the record itself. They stand in a header, of which the broker takes 64 KiB altogether: so
//! long errors are cut further than in the record. Reading them back is [`super::Letter`]'s part.
//!
//! Invariant: one letter per task, however often and by however many it is published. The broker knows a message id for two
//! minutes only; that nothing stands on the letter's subject yet, it knows for good.

use std::time::Duration;

use cardcage_protocol::record::{cut, cut_json};
use cardcage_protocol::{Attempt, TaskEnvelope, TaskError, TaskId, header, limits};

use super::publish::set;
use super::task_queue::envelope_headers;
use super::{Broker, Error, replay_id};

/// Longest reason in a dead letter's header.
pub(super) const REASON_MAX_BYTES: usize = 1024;
/// Of the last error so much is kept.
const LAST_ERROR_MAX_BYTES: usize = 24 * 1024;
/// How long each error before the last may be, and whether details stay: the first that fits is taken.
const HISTORY_CUTS: [(usize, bool); 4] =
    [(limits::ERROR_MAX_BYTES, true), (limits::ERROR_MAX_BYTES, false), (1024, false), (160, false)];

/// A task that ended `failed`.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The last attempt's envelope.
    pub envelope: &'a TaskEnvelope,
    /// Why it was given up; one line.
    pub reason: &'a str,
    /// The code of the error that ended it.
    pub code: &'a str,
    /// That error, where it is the last attempt's, which the record keeps in full only once.
    pub error: Option<&'a TaskError>,
    /// What was tried.
    pub attempts: &'a [Attempt],
    /// Older attempts that are not among them.
    pub attempts_omitted: u32,
}

impl Broker {
    /// Keeps a dead letter. Publishing it again is harmless: the first one stays.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Envelope`].
    pub async fn publish_dead(&self, letter: DeadLetter<'_>, wait: Duration) -> Result<(), Error> {
        let DeadLetter { envelope, reason, code, error, attempts, attempts_omitted } = letter;
        let mut headers = envelope_headers(envelope, &format!("{}.dead", envelope.id))?;
        set(&mut headers, header::DEAD_REASON, &line(reason, REASON_MAX_BYTES))?;
        set(&mut headers, header::DEAD_CODE, &line(code, limits::CODE_MAX_BYTES))?;
        set(&mut headers, header::ORIGINAL_SUBJECT, &self.subjects().task(&envelope.address()))?;
        set(&mut headers, header::DEAD_ATTEMPTS, &history(attempts, error)?)?;
        if attempts_omitted > 0 {
            set(&mut headers, header::DEAD_ATTEMPTS_OMITTED, &attempts_omitted.to_string())?;
        }
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0")?;
        let subject = self.subjects().dead(&envelope.plugin, &envelope.task, envelope.id);
        match self.publish_stored(&subject, headers, envelope.body.clone(), wait).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a dead task's letter was published: it is there, or was replayed since.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn has_letter(&self, id: TaskId) -> Result<bool, Error> {
        Ok(self.find_letter(id).await?.is_some() || self.find_task(replay_id(id)).await?.is_some())
    }
}

/// A header's value: one line, without blanks at its ends.
pub(super) fn line(text: &str, max_bytes: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&text, max_bytes).trim().to_owned()
}

fn history(attempts: &[Attempt], last: Option<&TaskError>) -> Result<String, Error> {
    let mut json = String::new();
    for (message_max, with_details) in HISTORY_CUTS {
        let mut attempts = attempts.to_vec();
        if let (Some(error), Some(last)) =
            (attempts.last_mut().and_then(|attempt| attempt.error.as_mut()), last)
            && error.code == last.code
        {
            error.clone_from(last);
        }
        let count = attempts.len();
        for (n, attempt) in (1..).zip(&mut attempts) {
            let Some(error) = &mut attempt.error else { continue };
            let max = if n == count { LAST_ERROR_MAX_BYTES } else { message_max };
            error.message = cut_json(&error.message, max).into_owned();
            error.details = error.details.take().filter(|_| with_details);
        }
        json = serde_json::to_string(&attempts)
            .map_err(|error| Error::unreadable("the history of attempts", error))?;
        if json.len() <= limits::DEAD_HISTORY_MAX_BYTES {
            break;
        }
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardcage_protocol::{Cause, InstanceId, Timestamp};

    #[test]
    fn history_keeps_every_attempt_whatever_the_errors_are() {
        let attempt = |n: u32| Attempt {
            n,
            worker: InstanceId::new("worker-1").unwrap(),
            started_at: Timestamp::from_unix_ms(1),
            ended_at: None,
            cause: Some(Cause::Error),
            error: Some(TaskError::new(
                "x",
                // Six bytes each in JSON.
                &"\u{1}".repeat(600),
                Some(serde_json::json!("y".repeat(3000))),
            )),
        };
        let count = |json: &str| serde_json::from_str::<Vec<Attempt>>(json).unwrap().len();
        let all: Vec<Attempt> = (1..=32).map(attempt).collect();
        let json = history(&all, None).unwrap();
        assert!(json.len() <= limits::DEAD_HISTORY_MAX_BYTES);
        assert_eq!(count(&json), 32);
        let few: Vec<Attempt> = serde_json::from_str(&history(&all[..2], None).unwrap()).unwrap();
        assert_eq!(few, all[..2], "what fits is kept whole");
        let last = TaskError::new("x", &"\u{1}".repeat(20_000), None);
        for (attempts, kept) in [(&all[..2], 600), (&all[..], 100)] {
            let json = history(attempts, Some(&last)).unwrap();
            assert!(json.len() <= limits::DEAD_HISTORY_MAX_BYTES);
            let errors: Vec<Attempt> = serde_json::from_str(&json).unwrap();
            let length = |n: usize| errors[n].error.as_ref().unwrap().message.chars().count();
            assert!(length(0).min(600) <= kept && length(attempts.len() - 1) > 4_000, "{}", length(0));
        }
    }
}
