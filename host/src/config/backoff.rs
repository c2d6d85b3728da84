//! Waiting times between attempts, written as operators write them: `"1s..5m"`.
//!
//! Invariant: 1 ms ≤ first ≤ longest ≤ 7 days. It refuses numbers without a unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const LONGEST_MS: u64 = 7 * 86_400_000;

/// First and longest wait between attempts; the waits double from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first_ms: u64,
    longest_ms: u64,
}

impl Backoff {
    /// Wait before the second attempt.
    #[must_use]
    pub fn first(&self) -> Duration {
        Duration::from_millis(self.first_ms)
    }

    /// Longest wait.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms)
    }
}

impl FromStr for Backoff {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, longest) = text.split_once("..").ok_or("two times with `..` between them")?;
        let (first_ms, longest_ms) = (millis(first)?, millis(longest)?);
        if first_ms == 0 || first_ms > longest_ms || longest_ms > LONGEST_MS {
            return Err("1ms ≤ first ≤ longest ≤ 7d");
        }
        Ok(Self { first_ms, longest_ms })
    }
}

fn millis(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or("the units ms, s, m, h or d")?;
    let number: u64 = number.parse().map_err(|_| "whole numbers")?;
    number.checked_mul(*factor).ok_or("1ms ≤ first ≤ longest ≤ 7d")
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Shortest(self.first_ms), Shortest(self.longest_ms))
    }
}

struct Shortest(u64);

impl fmt::Display for Shortest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            UNITS.iter().rev().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_is_read_and_written_alike() {
        for text in ["1s..5m", "250ms..10s", "2h..7d", "90s..90s"] {
            assert_eq!(text.parse::<Backoff>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1s", "1..5", "5m..1s", "0s..1s", "1s..8d", "1s..99999999999999999999d", "-1s..1s"] {
            assert!(text.parse::<Backoff>().is_err(), "{text}");
        }
    }
}
