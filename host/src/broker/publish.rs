//! Publishing with an acknowledgement: the promise that something is stored.
//!
//! A publish whose answer is lost is in doubt. It is repeated within the deadline, which is harmless because it carries
//! either a message id (the repeat is a duplicate) or an expected sequence (the repeat is a conflict with itself).
//!
//! Refuses: publishing without one of the two.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Broker, Error, api};

/// JetStream: the stream cannot store it; with `discard: new`, that is the queue's bound.
const STORE_FAILED: u32 = 10077;
/// JetStream: the server or the account has no room left.
const NO_ROOM: [u32; 4] = [10023, 10028, 10047, 10077];
/// JetStream: not the expected last sequence.
const WRONG_LAST_SEQUENCE: [u32; 2] = [10071, 10164];
/// JetStream: passing states, after which a repeat works.
pub(super) const PASSING: [u32; 5] = [10006, 10008, 10009, 10118, 10158];
/// Pause before a repeat that was refused for a passing reason.
pub(super) const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Proof that a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The same message id was stored before; this publish added nothing.
    pub duplicate: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Value>,
}

impl Broker {
    /// Publishes, and repeats while in doubt, until `wait` is over.
    pub(super) async fn publish_stored(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Stored, Error> {
        let end = Instant::now() + wait;
        // Half of the time for the first attempt, so that there is one for a lost answer.
        let attempt_max = wait / 2;
        let mut in_doubt = false;
        let mut last = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(give_up(last, in_doubt));
            }
            let wait = if in_doubt { left } else { attempt_max.min(left) };
            let answer = self.request(subject.to_owned(), Some(headers.clone()), payload.clone(), wait).await;
            let error = match answer.and_then(|message| read(subject, &message.payload)) {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
            match &error {
                Error::Timeout { .. } => in_doubt = true,
                Error::Unavailable { in_doubt: true, .. } => {
                    in_doubt = true;
                    tokio::time::sleep(REPEAT_AFTER).await;
                }
                // Known to be down before anything was sent: the caller learns it at once.
                Error::Unavailable { .. } if !in_doubt => return Err(error),
                Error::Unavailable { .. } => {
                    let _ = self.wait_connected(end.saturating_duration_since(Instant::now())).await;
                }
                // JetStream of a broker that is just starting, or electing, is not there yet.
                Error::NoResponders { .. } => tokio::time::sleep(REPEAT_AFTER).await,
                Error::Refused { code, .. } if PASSING.contains(code) => {
                    tokio::time::sleep(REPEAT_AFTER).await
                }
                _ => return Err(error),
            }
            last = Some(error);
        }
    }
}

pub(super) fn give_up(last: Option<Error>, in_doubt: bool) -> Error {
    match last {
        Some(error @ Error::NoResponders { .. }) if !in_doubt => error,
        Some(error) => Error::Unavailable { reason: error.to_string(), in_doubt },
        None => Error::Unavailable { reason: "no time was left".into(), in_doubt },
    }
}

pub(super) fn read(subject: &str, payload: &[u8]) -> Result<Stored, Error> {
    let answer: Answer = serde_json::from_slice(payload)
        .map_err(|error| Error::unreadable(format!("the acknowledgement of {subject}"), error))?;
    let Some(error) = answer.error else {
        return Ok(Stored { sequence: answer.seq, duplicate: answer.duplicate });
    };
    Err(match api::refusal(&error) {
        Error::Refused { code: STORE_FAILED, description } if description.contains("maximum") => {
            Error::QueueFull { description }
        }
        Error::Refused { code, description } if NO_ROOM.contains(&code) => {
            tracing::warn!(
                code,
                description,
                "the broker has no room left: give it storage, or purge what it keeps"
            );
            Error::unavailable(format!("the broker has no room left ({description})"))
        }
        Error::Refused { code, description } if WRONG_LAST_SEQUENCE.contains(&code) => {
            Error::Conflict { last_sequence: description.rsplit(' ').next().and_then(|n| n.parse().ok()) }
        }
        other => other,
    })
}

/// Sets a header whose value comes from data: one that NATS cannot carry is an error, where the library would panic.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Error> {
    let value: HeaderValue = value
        .parse()
        .map_err(|_| Error::unreadable(format!("header {name}"), "its value holds a line break"))?;
    headers.insert(name, value);
    Ok(())
}

/// The headers of a message as pairs.
pub(super) fn pairs(headers: Option<&HeaderMap>) -> impl Iterator<Item = (&str, &str)> {
    headers.into_iter().flat_map(|headers| {
        headers.iter().flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, value.as_str()))
        })
    })
}
