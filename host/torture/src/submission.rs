//! What is submitted, and what its task may end as.
//!
//! A submission depends on the seed and its number alone. Each carries a note that comes back with its result, so that a
//! task whose receipt was lost is still known, and a result that belongs to another task is noticed.

use cardcage_protocol::exhausted::Exhausted;
use cardcage_protocol::{State, TaskId};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::ending::{Ending, Try};

/// The lease of the tortured workers; some tasks sleep for longer.
pub(crate) const LEASE_MS: u64 = 3_000;
/// How far a host's estimate of the broker's clock may be off when two hosts' times are compared.
pub(crate) const CLOCK_TOLERANCE_MS: u64 = 50;
/// Tasks of so many serial keys stand in each other's way.
const SERIAL_KEYS: u64 = 8;
/// How long each of them takes: longer than clocks may differ, so that two at the same time are seen.
const SERIAL_MS: u64 = 200;
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
    /// Enqueues so many others, as a part of its success.
    Children(u32),
    /// Ends `failed`, and another one is run for it.
    Doomed,
    /// Does so many things once, fails, and ends well in the attempt after it.
    Effects(u32),
    /// Answers, with this priority.
    Ranked(&'static str),
}

impl Kind {
    /// The tasks that come of one with this id, if it ends as it should.
    pub(crate) fn offspring(self, id: TaskId) -> Vec<TaskId> {
        match self {
            Self::Children(count) => (0..count).map(|n| TaskId::derive(id, n)).collect(),
            Self::Doomed => vec![Exhausted::id_of(id)],
            _ => Vec::new(),
        }
    }

    /// Its name, whatever its numbers are.
    pub(crate) fn name(self) -> String {
        let shown = format!("{self:?}");
        shown.split('(').next().unwrap_or_default().to_owned()
    }

    /// Whether a good end of its handler is told by the plugin itself.
    pub(crate) fn leaves_trace(self) -> bool {
        !matches!(self, Self::Echo | Self::Effects(_))
    }
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
            Kind::Ok | Kind::Delayed(_) | Kind::Ranked(_) => json!({ "mode": "ok", "note": note }),
            Kind::FailUntil(times) => json!({ "mode": "fail_until", "times": times, "note": note }),
            Kind::RetryAfter => {
                json!({ "mode": "retry_after", "times": 1, "ms": rng.u64(50..500), "note": note })
            }
            Kind::Sleep => json!({ "mode": "sleep", "ms": rng.u64(20..300), "note": note }),
            Kind::Overlong => json!({ "mode": "sleep", "ms": LEASE_MS + 1_000, "note": note }),
            Kind::Children(count) => {
                json!({ "mode": "ok", "children": count, "ms": rng.u64(..800), "note": note })
            }
            Kind::Effects(keys) => json!({ "keys": keys, "bytes": 100, "fail_until": 2 }),
            Kind::FailForGood | Kind::Doomed => json!({ "mode": "fail_for_good", "note": note }),
            Kind::Discard => json!({ "mode": "discard", "note": note }),
            Kind::Serial => {
                let serial = format!("k{}", rng.u64(..SERIAL_KEYS));
                json!({ "mode": "sleep", "ms": SERIAL_MS, "serial": serial, "note": note })
            }
            Kind::Cancelled => json!({ "mode": "sleep", "ms": 1_500, "note": note }),
        };
        let path = match kind {
            Kind::Echo => "/hello/task".to_owned(),
            Kind::Serial => "/chaos/keyed".to_owned(),
            Kind::Delayed(ms) => format!("/chaos/delayed?delay_ms={ms}"),
            Kind::Doomed => "/chaos/doomed".to_owned(),
            Kind::Effects(_) => "/chaos/effects".to_owned(),
            Kind::Ranked(priority) => format!("/chaos/ranked/{priority}"),
            _ => "/chaos/task".to_owned(),
        };
        // Only what comes back with its note may go without a key: else nobody could say whose outcome it is.
        let always_keyed = matches!(
            kind,
            Kind::FailForGood | Kind::Discard | Kind::Cancelled | Kind::Doomed | Kind::Effects(_)
        );
        // A handler that enqueues makes what it is told of a key, and that one makes nothing.
        let never_keyed = matches!(kind, Kind::Ranked(_));
        let key = (always_keyed || (!never_keyed && rng.u8(..4) != 0)).then(|| format!("torture-{seed}-{n}"));
        Self { n, kind, path, body, key, note }
    }

    /// Its serial key.
    pub(crate) fn serial(&self) -> Option<&str> {
        self.body.get("serial")?.as_str()
    }

    /// What is wrong with this ending of its task, in a sentence.
    pub(crate) fn objection(&self, ending: &Ending) -> Option<String> {
        let expected: &[State] = match self.kind {
            Kind::FailForGood | Kind::Doomed => &[State::Failed],
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
        if let Kind::Effects(keys) = self.kind {
            return wrong_effects(keys, result, &ending.attempts);
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

/// What is recorded of a thing done once stays, and it is not done again after an attempt that came to its own end had
/// recorded it. An attempt that was lost may have recorded it while the next one was doing it.
fn wrong_effects(keys: u32, result: &Value, attempts: &[Try]) -> Option<String> {
    let last = attempts.last().map(|attempt| u64::from(attempt.n));
    let recorded: Vec<u64> = result.get("by_attempt")?.as_array()?.iter().filter_map(Value::as_u64).collect();
    if recorded.len() != usize::try_from(keys).ok()? || recorded.iter().any(|by| Some(*by) > last) {
        return Some(format!("{keys} things were to be done, in at most {last:?} attempts: {result}"));
    }
    let came_to_its_end =
        |n: u64| attempts.iter().any(|attempt| u64::from(attempt.n) == n && attempt.has_failed);
    let may_be_done = recorded.iter().filter(|by| !came_to_its_end(**by)).count();
    let done = result.get("by_the_last").and_then(Value::as_u64)?;
    (done > may_be_done as u64)
        .then(|| format!("attempt {last:?} did {done} things, and {may_be_done} were left to it: {result}"))
}

/// Draws that depend on nothing but these two numbers.
fn rng(seed: u64, n: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xd1b5_4a32_d192_ed03))
}

fn kind(rng: &mut Rng) -> Kind {
    match rng.u8(..100) {
        0..23 => Kind::Ok,
        23..38 => Kind::Echo,
        38..42 => Kind::Children(rng.u32(1..=3)),
        42..44 => Kind::Doomed,
        44..48 => Kind::Effects(rng.u32(1..=3)),
        48..52 => Kind::Ranked(rng.choice(["high", "normal", "low"]).unwrap_or("normal")),
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
        assert_eq!(kinds.len(), 15);
    }
}
