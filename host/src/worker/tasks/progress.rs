//! What handlers say of their progress: kept with the task for whoever asks, and told to whoever listens now and then.
//!
//! Invariants: what is kept is bounded, whatever a handler says; a task tells at most five times a second; what comes
//! from a handler whose attempt is over is ignored.

use super::unit::Shared;
use bytes::Bytes;
use cardcage_protocol::{TaskId, Timestamp, limits, record::cut};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Between two events of one task there is at least so much time.
pub(super) const EVENT_EVERY: Duration = Duration::from_millis(200);

/// How far a handler is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// From 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    /// How much is done, in whatever the handler counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    /// Of how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// One sentence for people.
    #[serde(default)]
    message: String,
    /// The attempt that says so.
    #[serde(default)]
    attempt: u32,
    /// When, by the broker's time.
    #[serde(default)]
    at: Option<Timestamp>,
}

impl Progress {
    fn read(attempt: u32, at: Timestamp, json: &[u8]) -> Option<Self> {
        if json.len() > limits::PROGRESS_MAX_BYTES * 8 {
            return None;
        }
        let mut progress: Self = serde_json::from_slice(json).ok()?;
        progress.attempt = attempt;
        progress.at = Some(at);
        progress.fraction = progress.fraction.filter(|f| f.is_finite()).map(|f| f.clamp(0.0, 1.0));
        progress.message = cut(&progress.message, limits::PROGRESS_MAX_BYTES).into_owned();
        Some(progress)
    }
}

/// Takes handlers' reports of progress.
#[derive(Debug, Clone)]
pub struct ProgressReports(pub(super) Arc<Shared>);

impl ProgressReports {
    /// Keeps what the handler of this attempt says; what is left to do, if anything, is to tell it.
    #[must_use]
    pub fn report(
        &self,
        id: [u8; 16],
        attempt: u32,
        json: &[u8],
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let id = TaskId::from_bytes(id).ok()?;
        let now = Timestamp::from_unix_ms(self.0.broker.now_unix_ms());
        let progress = Progress::read(attempt, now, json)?;
        let event = Bytes::from(serde_json::to_vec(&progress).ok()?);
        if !self.0.held.note(id, attempt, progress) {
            return None;
        }
        let broker = self.0.broker.clone();
        Some(async move {
            if let Err(error) = broker.publish(broker.subjects().task_event(id), event).await {
                tracing::debug!(%error, "progress could not be told");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handler_says_is_brought_within_bounds() {
        let read = |json: &str| Progress::read(2, Timestamp::now(), json.as_bytes());
        let progress = read(r#"{"fraction": 7.5, "message": "almost", "attempt": 9}"#).unwrap();
        assert_eq!((progress.fraction, progress.attempt), (Some(1.0), 2));
        let long = read(&format!("{{\"message\":\"{}\"}}", "é".repeat(2_000))).unwrap();
        assert!(long.message.len() <= limits::PROGRESS_MAX_BYTES);
        assert_eq!(read(&format!("{{\"message\":\"{}\"}}", "x".repeat(100_000))), None);
        assert_eq!(read("rubbish"), None);
        assert_eq!(read(r#"{"fraction": -1}"#).unwrap().fraction, Some(0.0));
    }
}
