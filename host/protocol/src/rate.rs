//! How often something may start: `10/s`, `100/m` or `5/h`, over all workers together.
//!
//! Invariant: the time between two starts is at least a microsecond and at most an hour.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most starts in one period.
const COUNT_MAX: u32 = 1_000_000;
/// The periods.
const PERIODS: [(&str, u64); 3] = [("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
/// What one worker has in hand is used within this time.
const IN_HAND_US: u64 = 100_000;

/// A rate of starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: u32,
    period_us: u64,
}

/// Why a text is no rate. Whoever wrote it must correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number from 1 to {COUNT_MAX} and a period, such as 10/s, 100/m or 5/h")]
pub struct RateError;

impl Rate {
    /// Microseconds from one start to the next.
    #[must_use]
    pub fn interval_us(&self) -> u64 {
        (self.period_us / u64::from(self.count.max(1))).max(1)
    }

    /// The most starts that one worker may have in hand: 100 ms' worth, and at least one.
    #[must_use]
    pub fn in_hand_max(&self) -> u32 {
        u32::try_from(IN_HAND_US / self.interval_us()).unwrap_or(u32::MAX).max(1)
    }
}

impl FromStr for Rate {
    type Err = RateError;
    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, period) = text.split_once('/').ok_or(RateError)?;
        let count: u32 = count.trim().parse().map_err(|_| RateError)?;
        let (_, period_us) = PERIODS.iter().find(|(name, _)| *name == period.trim()).ok_or(RateError)?;
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(RateError);
        }
        Ok(Self { count, period_us: *period_us })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PERIODS.iter().find(|(_, us)| *us == self.period_us).map_or("s", |(name, _)| name);
        write!(f, "{}/{name}", self.count)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;
    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_period_and_written_back() {
        for (text, interval_us, in_hand) in
            [("10/s", 100_000, 1), ("1000/s", 1_000, 100), ("100/m", 600_000, 1), ("5/h", 720_000_000, 1)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.interval_us(), rate.in_hand_max()), (interval_us, in_hand), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for bad in ["", "10", "0/s", "10/d", "-1/s", "1000001/s", "/s"] {
            assert_eq!(bad.parse::<Rate>(), Err(RateError), "{bad}");
        }
    }
}
