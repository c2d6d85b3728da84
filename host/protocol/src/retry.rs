//! When a failed attempt is followed by another one, and how much later.
//!
//! The delay after attempt *n* is drawn evenly from the upper half of `min(max, initial · 2^(n-1))`: the randomness
//! keeps tasks that failed together from coming back together, the lower bound keeps a retry from being immediate.
//!
//! Invariants: no overflow for any attempt; a delay is at most `max_ms`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{ATTEMPTS_MAX, RETRY_DELAY_MAX_MS};

/// How often a task is attempted, and with which pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Starts of the handler in all, at least 1.
    pub max_attempts: u32,
    /// Delay after the first attempt, in milliseconds, before the random part.
    pub initial_ms: u64,
    /// Longest delay, in milliseconds.
    pub max_ms: u64,
}

/// Why a text or a pair of numbers is no policy. The task's author must correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// The text is no backoff.
    #[error("a backoff is two durations, such as 2s..10m, with the units ms, s, m, h or d")]
    Backoff,
    /// The numbers are out of bounds.
    #[error("a retry policy needs 1 to {ATTEMPTS_MAX} attempts and delays with initial ≤ max ≤ 7 days")]
    Range,
}

impl Default for RetryPolicy {
    /// Five attempts, 1 s to 5 min.
    fn default() -> Self {
        Self { max_attempts: 5, initial_ms: 1_000, max_ms: 300_000 }
    }
}

impl RetryPolicy {
    /// The factor between two delays.
    pub const MULTIPLIER: u64 = 2;

    /// A policy within bounds.
    ///
    /// # Errors
    /// [`RetryError::Range`].
    pub fn new(max_attempts: u32, backoff: Backoff) -> Result<Self, RetryError> {
        let policy = Self { max_attempts, initial_ms: backoff.initial_ms, max_ms: backoff.max_ms };
        policy.check().map(|()| policy)
    }

    /// Says whether the policy is within bounds: one that came from elsewhere may not be.
    ///
    /// # Errors
    /// [`RetryError::Range`].
    pub fn check(&self) -> Result<(), RetryError> {
        let attempts = (1..=ATTEMPTS_MAX).contains(&self.max_attempts);
        let delays = self.initial_ms <= self.max_ms && self.max_ms <= RETRY_DELAY_MAX_MS;
        if attempts && delays { Ok(()) } else { Err(RetryError::Range) }
    }

    /// Milliseconds to wait after attempt number `attempt` (from 1); `None` when it was the last one.
    pub fn delay_ms(&self, attempt: u32, rng: &mut fastrand::Rng) -> Option<u64> {
        (attempt < self.max_attempts).then(|| self.backoff_ms(attempt, rng))
    }

    /// As [`RetryPolicy::delay_ms`], whatever the number of attempts.
    pub fn backoff_ms(&self, attempt: u32, rng: &mut fastrand::Rng) -> u64 {
        let factor = Self::MULTIPLIER.saturating_pow(attempt.saturating_sub(1));
        let full = self.initial_ms.saturating_mul(factor).min(self.max_ms);
        rng.u64(full / 2..=full)
    }
}

/// The pauses of a policy, written `2s..10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First delay in milliseconds.
    pub initial_ms: u64,
    /// Longest delay in milliseconds.
    pub max_ms: u64,
}

impl FromStr for Backoff {
    type Err = RetryError;
    fn from_str(text: &str) -> Result<Self, RetryError> {
        let (initial, max) = text.split_once("..").ok_or(RetryError::Backoff)?;
        Ok(Self { initial_ms: parse_duration_ms(initial)?, max_ms: parse_duration_ms(max)? })
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms..{}ms", self.initial_ms, self.max_ms)
    }
}

/// Reads a duration such as `250ms`, `30s`, `10m`, `2h` or `7d`, in milliseconds.
///
/// # Errors
/// [`RetryError::Backoff`].
pub fn parse_duration_ms(text: &str) -> Result<u64, RetryError> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or(RetryError::Backoff)?;
    let (digits, unit) = text.split_at(at);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(RetryError::Backoff),
    };
    let number: u64 = digits.parse().map_err(|_| RetryError::Backoff)?;
    number.checked_mul(unit_ms).ok_or(RetryError::Backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_stay_in_the_upper_half_and_never_overflow() {
        let policy = RetryPolicy::new(8, "2s..10m".parse().unwrap()).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for (attempt, full) in
            [(1, 2_000), (2, 4_000), (3, 8_000), (9, 512_000), (10, 600_000), (u32::MAX, 600_000)]
        {
            for _ in 0..200 {
                let delay = policy.backoff_ms(attempt, &mut rng);
                assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
            }
        }
        assert_eq!(policy.delay_ms(8, &mut rng), None);
        assert!(policy.delay_ms(7, &mut rng).is_some());
        let zero = RetryPolicy { max_attempts: 2, initial_ms: 0, max_ms: 0 };
        assert_eq!(zero.delay_ms(1, &mut rng), Some(0));
    }

    #[test]
    fn backoffs_are_read_with_units() {
        assert_eq!("250ms..1h".parse(), Ok(Backoff { initial_ms: 250, max_ms: 3_600_000 }));
        for bad in ["", "2s", "2..3", "2s..", "-1s..2s", "1w..2w", "99999999999999999999s..1s"] {
            assert!(bad.parse::<Backoff>().is_err(), "{bad}");
        }
        assert!(RetryPolicy::new(0, "1s..2s".parse().unwrap()).is_err());
        assert!(RetryPolicy::new(3, "3s..2s".parse().unwrap()).is_err());
        assert!(RetryPolicy::new(3, "3s..8d".parse().unwrap()).is_err());
    }
}
