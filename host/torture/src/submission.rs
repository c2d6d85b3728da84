//! What is submitted, and what its task may end as.
//!
//! A submission depends on the seed and its number alone. Each carries a note that comes back with its result, so that a
//! task whose receipt was lost is still known, and a result that belongs to another task is noticed.

use cardcage_protocol::State;
use fastrand::Rng;
use serde_json::{Value, json};

use crate::ending::Ending;

/// The lease of the tortured workers; some tasks sleep for longer.
pub(crate) const LEASE_MS: u64 = 3_000;
/// How far a host's estimate of the broker's clock may be off when two hosts' times are compared.
const CLOCK_TOLERANCE_MS: u64 = 50;
/// Tasks of so many serial keys stand in each other's way.
const SERIAL_KEYS: u64 = 8;
/// The longest text of a body.
const TEXT_MAX: usize = 4_000;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers at once.
    Ok,
    /// Answers with its body, which has a few kilobytes.
    Echo,
    /// Fails before this attempt.
    FailUntil(u32),
    /// Asks once for a later attempt.
    RetryAfter,
    /// Waits for a moment.
    Sleep,
    /// Waits for longer than a lease.
    Overlong,
    /// Ends `failed`, with a dead letter.
    FailForGood,
    /// Ends `cancelled` by its own decision.
    Discard,
    /// Answers under a serial key.
    Serial,
    /// Is enqueued for so many milliseconds later.
    Delayed(u64),
    /// Is cancelled by its caller, who comes in time or does not.
    Cancelled,
}

/// One submission.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) n: u64,
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// With a key it is sent until it is accepted, without one it is sent once.
    pub(crate) key: Option<String>,
    pub(crate) note: String,
}

impl Submission {
    /// Number `n` of this seed.
    pub(crate) fn draw(seed: u64, n: u64) -> Self {
        let mut rng = rng(seed, n);
        let note = format!("s{n}-{:016x}", rng.u64(..));
        let kind = kind(&mut rng);
        let body = match kind {
            Kind::Echo => {
                let text: String = (0..rng.usize(..TEXT_MAX)).map(|_| rng.alphanumeric()).collect();
                json!({ "note": note, "text": text })
            }
            Kind::Ok | Kind::Delayed(_) => json!({ "mode": "ok", "note": note }),
            Kind::FailUntil(times) => json!({ "mode": "fail_until", "times": times, "note": note }),
            Kind::RetryAfter => {
                json!({ "mode": "retry_after", "times": 1, "ms": rng.u64(50..500), "note": note })
            }
            Kind::Sleep => json!({ "mode": "sleep", "ms": rng.u64(20..300), "note": note }),
            Kind::Overlong => json!({ "mode": "sleep", "ms": LEASE_MS + 1_000, "note": note }),
            Kind::FailForGood => json!({ "mode": "fail_for_good", "note": note }),
            Kind::Discard => json!({ "mode": "discard", "note": note }),
            Kind::Serial => {
                let serial = format!("k{}", rng.u64(..SERIAL_KEYS));
                json!({ "mode": "sleep", "ms": 20, "serial": serial, "note": note })
            }
            Kind::Cancelled => json!({ "mode": "sleep", "ms": 1_500, "note": note }),
        };
        let path = match kind {
            Kind::Echo => "/hello/task".to_owned(),
            Kind::Serial => "/chaos/keyed".to_owned(),
            Kind::Delayed(ms) => format!("/chaos/delayed?delay_ms={ms}"),
            _ => "/chaos/task".to_owned(),
        };
        // Only what comes back with its note may go without a key: else nobody could say whose outcome it is.
        let always_keyed = matches!(kind, Kind::FailForGood | Kind::Discard | Kind::Cancelled);
        let key = (always_keyed || rng.u8(..4) != 0).then(|| format!("torture-{seed}-{n}"));
        Self { n, kind, path, body, key, note }
    }

    /// What is wrong with this ending of its task, in a sentence.
    pub(crate) fn objection(&self, ending: &Ending) -> Option<String> {
        let expected: &[State] = match self.kind {
            Kind::FailForGood => &[State::Failed],
            Kind::Discard => &[State::Cancelled],
            Kind::Cancelled => &[State::Cancelled, State::Succeeded],
            _ => &[State::Succeeded],
        };
        if !expected.contains(&ending.state) {
            return Some(format!(
                "a task that {:?} describes ended {}: {}",
                self.kind, ending.state, ending.why
            ));
        }
        let successes = ending.attempts.iter().filter(|attempt| attempt.has_succeeded).count();
        if successes != usize::from(ending.state == State::Succeeded) {
            return Some(format!("a task that ended {} has {successes} successful attempts", ending.state));
        }
        if ending.state == State::Succeeded {
            return self.wrong_result(ending).or_else(|| self.too_early(ending));
        }
        None
    }

    fn wrong_result(&self, ending: &Ending) -> Option<String> {
        let result = ending.result.as_ref()?;
        if self.kind == Kind::Echo {
            return (*result != self.body).then(|| "the result is not the body that was sent".to_owned());
        }
        let told = |member: &str| result.get(member);
        if told("note").and_then(Value::as_str) != Some(self.note.as_str()) {
            return Some(format!("the result is another task's: {result}"));
        }
        if told("mode") != self.body.get("mode") {
            return Some(format!("the result is another mode's: {result}"));
        }
        let attempt = told("attempt").and_then(Value::as_u64);
        let last = ending.attempts.last().map(|attempt| u64::from(attempt.n));
        if attempt != last {
            return Some(format!("the result is of attempt {attempt:?}, the last recorded one is {last:?}"));
        }
        let least = match self.kind {
            Kind::FailUntil(times) => u64::from(times),
            Kind::RetryAfter => 2,
            _ => 1,
        };
        (attempt < Some(least)).then(|| format!("it succeeded in attempt {attempt:?}, before {least}"))
    }

    fn too_early(&self, ending: &Ending) -> Option<String> {
        let Kind::Delayed(delay_ms) = self.kind else { return None };
        let first = ending.attempts.first()?;
        let due = ending.enqueued_at.plus_ms(delay_ms.saturating_sub(CLOCK_TOLERANCE_MS));
        (first.started_at < due).then(|| format!("it was due at {due} and started at {}", first.started_at))
    }
}

/// Draws that depend on nothing but these two numbers.
fn rng(seed: u64, n: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xd1b5_4a32_d192_ed03))
}

fn kind(rng: &mut Rng) -> Kind {
    match rng.u8(..100) {
        0..34 => Kind::Ok,
        34..52 => Kind::Echo,
        52..62 => Kind::FailUntil(rng.u32(2..=3)),
        62..69 => Kind::RetryAfter,
        69..77 => Kind::Sleep,
        77..79 => Kind::Overlong,
        79..82 => Kind::FailForGood,
        82..84 => Kind::Discard,
        84..91 => Kind::Serial,
        91..97 => Kind::Delayed(rng.u64(300..4_000)),
        _ => Kind::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_and_number_make_the_same_submission_and_others_do_not() {
        let sent = |seed, n| {
            let Submission { path, body, key, .. } = Submission::draw(seed, n);
            (path, body, key)
        };
        assert_eq!(sent(1, 7), sent(1, 7));
        assert_ne!(sent(1, 7), sent(1, 8));
        assert_ne!(sent(1, 7), sent(2, 7));
    }

    #[test]
    fn every_kind_is_among_a_thousand_submissions() {
        let kinds: std::collections::HashSet<_> =
            (0..1_000).map(|n| std::mem::discriminant(&Submission::draw(1, n).kind)).collect();
        assert_eq!(kinds.len(), 11);
    }
}
