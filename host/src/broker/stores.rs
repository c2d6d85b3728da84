//! The stores: the streams beside the queues, how much each holds at most, and how much it holds now.
//!
//! Every one has a bound and one of two things that happen there: it refuses what is new, where losing it would lose a
//! task or a promise; or its oldest goes, where refusing would stop the work of all (decision 19).
//!
//! Refuses: counting. The broker's own numbers are told.

use cardcage_protocol::{Subjects, Timestamp};
use serde_json::{Map, Value, json};

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::{Broker, Error};

/// The option that bounds keys of all kinds but idempotency keys.
pub(super) const LIMITS: &str = "stores.limits_max_messages";

/// How much each store holds at most; of bytes, `None` is as many as its messages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the options `stores.<name>`, which say what they are")]
pub struct StoreBounds {
    pub records_max_messages: u64,
    pub records_max_bytes: Option<u64>,
    pub dead_max_messages: u64,
    pub dead_max_bytes: Option<u64>,
    pub delayed_max_messages: u64,
    pub delayed_max_bytes: u64,
    pub parked_max_messages: u64,
    pub lines_max_messages: u64,
    pub idempotency_max_messages: u64,
    pub limits_max_messages: u64,
}

impl Default for StoreBounds {
    fn default() -> Self {
        Self {
            records_max_messages: 50_000_000,
            records_max_bytes: None,
            dead_max_messages: 1_000_000,
            dead_max_bytes: None,
            delayed_max_messages: 5_000_000,
            delayed_max_bytes: 8 << 30,
            parked_max_messages: 1_000_000,
            lines_max_messages: 10_000_000,
            idempotency_max_messages: 50_000_000,
            limits_max_messages: 10_000_000,
        }
    }
}

/// A store as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// Its name, as in the options `stores.<name>_max_messages`.
    pub name: &'static str,
    /// What it holds.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it may hold.
    pub max_messages: u64,
    /// Their bytes, where they are bounded.
    pub max_bytes: Option<u64>,
    /// Since when the oldest is there.
    pub oldest: Option<Timestamp>,
    /// Whether its oldest goes when one more comes. Otherwise what comes is refused.
    pub drops_oldest: bool,
}

impl Store {
    /// How full it is: 1 is full.
    #[must_use]
    pub fn fill(&self) -> f64 {
        let part = |have: u64, most: u64| precise(have) / precise(most.max(1));
        let bytes = self.max_bytes.map_or(0.0, |most| part(self.bytes, most));
        part(self.messages, self.max_messages).max(bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part of a bound needs no more than 52 bits")]
fn precise(number: u64) -> f64 {
    number as f64
}

/// Name, stream, and whether the oldest goes at the bound.
fn all(subjects: &Subjects) -> [(&'static str, String, bool); 7] {
    [
        ("records", subjects.state_stream(), true),
        ("dead", subjects.dead_stream(), true),
        ("delayed", subjects.schedule_stream(), false),
        ("parked", subjects.parked_stream(), false),
        ("lines", subjects.lines_stream(), false),
        ("idempotency", subjects.idempotency_stream(), false),
        ("limits", subjects.limits_stream(), false),
    ]
}

/// The option that a stream's bound comes from.
pub(super) fn option_of(stream: &str, field: &str) -> Option<&'static str> {
    let is = |suffix: &str| stream.ends_with(suffix);
    Some(match field {
        "max_msgs" if is("_STATE") => "stores.records_max_messages",
        "max_msgs" if is("_DEAD") => "stores.dead_max_messages",
        "max_msgs" if is("_PARKED") => "stores.parked_max_messages",
        "max_msgs" if is("_LINES") => "stores.lines_max_messages",
        "max_msgs" if is("_IDEMPOTENCY") => "stores.idempotency_max_messages",
        "max_msgs" if is("_LIMITS") => LIMITS,
        "max_bytes" if is("_STATE") => "stores.records_max_bytes",
        "max_bytes" if is("_DEAD") => "stores.dead_max_bytes",
        "max_msgs" if stream.contains("_TASKS_") => "broker.queue_max_messages",
        "max_bytes" if stream.contains("_TASKS_") => "broker.queue_max_bytes",
        _ => return None,
    })
}

impl Broker {
    /// What each store holds now; those that do not exist yet are left out.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`].
    pub async fn stores(&self) -> Result<Vec<Store>, Error> {
        let mut stores = Vec::new();
        for (name, stream, drops_oldest) in all(self.subjects()) {
            match self.api(&format!("STREAM.INFO.{stream}"), &json!(null), API_TIMEOUT).await {
                Ok(answer) => stores.push(self.read_store(name, drops_oldest, &answer)),
                Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stores)
    }

    fn read_store(&self, name: &'static str, drops_oldest: bool, answer: &Map<String, Value>) -> Store {
        let number = |part: &str, field: &str| answer.get(part)?.get(field)?.as_u64();
        let messages = number("state", "messages").unwrap_or(0);
        let oldest = answer.get("state").and_then(|state| state.get("first_ts")).and_then(Value::as_str);
        let ours = &self.options().stores;
        // The broker knows of no bound on what hosts count.
        let (max_messages, max_bytes) = if name == "delayed" {
            (ours.delayed_max_messages, Some(ours.delayed_max_bytes))
        } else {
            (number("config", "max_msgs").unwrap_or(u64::MAX), number("config", "max_bytes"))
        };
        Store {
            name,
            messages,
            bytes: number("state", "bytes").unwrap_or(0),
            max_messages,
            max_bytes,
            oldest: oldest.filter(|_| messages > 0).and_then(|text| text.parse().ok()),
            drops_oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_as_full_as_the_fuller_of_its_bounds() {
        let store = Store {
            name: "dead",
            messages: 20,
            bytes: 90,
            max_messages: 100,
            max_bytes: Some(100),
            oldest: None,
            drops_oldest: true,
        };
        assert!((store.fill() - 0.9).abs() < 1e-9);
        assert!((Store { max_bytes: None, ..store }.fill() - 0.2).abs() < 1e-9);
    }
}
