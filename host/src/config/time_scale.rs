//! How fast time passes between attempts. For tests, where nobody wants to wait for a backoff.
//!
//! Invariant: from 0 to 1, so that nothing waits longer than its author and its operator said.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const WHOLE: u64 = 1_000_000;

/// A factor from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeScale {
    millionths: u64,
}

impl Default for TimeScale {
    fn default() -> Self {
        Self::REAL
    }
}

impl TimeScale {
    /// Time as it is.
    pub const REAL: Self = Self { millionths: WHOLE };

    /// The factor, where it is one.
    #[must_use]
    pub fn new(factor: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&factor) {
            return None;
        }
        // From 0 to a million.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
        Some(Self { millionths: (factor * 1e6).round() as u64 })
    }

    /// So many milliseconds, scaled; what is less than one passes at once.
    #[must_use]
    pub fn ms(self, ms: u64) -> u64 {
        let scaled = u128::from(ms) * u128::from(self.millionths) / u128::from(WHOLE);
        u64::try_from(scaled).unwrap_or(ms)
    }

    fn factor(self) -> f64 {
        // Small enough to be exact.
        #[allow(clippy::cast_precision_loss, reason = "at most a million")]
        let factor = self.millionths as f64 / 1e6;
        factor
    }
}

impl Serialize for TimeScale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.factor())
    }
}

impl<'de> Deserialize<'de> for TimeScale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let factor = f64::deserialize(deserializer)?;
        Self::new(factor).ok_or_else(|| serde::de::Error::custom("a time scale is a number from 0 to 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_scaled_and_never_longer() {
        assert_eq!(TimeScale::default().ms(u64::MAX), u64::MAX);
        assert_eq!(TimeScale::new(0.01).unwrap().ms(2_000), 20);
        assert_eq!(TimeScale::new(0.0).unwrap().ms(u64::MAX), 0);
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(TimeScale::new(wrong), None);
        }
    }
}
