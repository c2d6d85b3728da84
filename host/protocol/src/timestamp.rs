//! Points in time, to the millisecond, in UTC.
//!
//! Records and headers are read by people and by other languages, so a time is written as RFC 3339 with exactly three
//! decimals; inside the host it is one integer.
//!
//! Refuses: local time zones, and more precision than a message carries.

use std::fmt;
use std::str::FromStr;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Milliseconds since 1970-01-01T00:00:00Z, up to the year 9999.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

/// The text is no RFC 3339 time between 1970 and 9999. Whoever wrote it must correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time between 1970 and 9999, such as 2026-01-31T12:00:00.000Z")]
pub struct TimestampError;

impl Timestamp {
    /// The last millisecond of the year 9998: printable everywhere, in every offset.
    pub const MAX: Timestamp = Timestamp(253_370_764_799_999);

    /// The time `unix_ms` milliseconds after 1970; later than [`Timestamp::MAX`] becomes `MAX`.
    #[must_use]
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        if unix_ms > Self::MAX.0 { Self::MAX } else { Self(unix_ms) }
    }

    /// The local clock. Deadlines that others judge use the broker's time instead.
    #[must_use]
    pub fn now() -> Self {
        let ms = jiff::Timestamp::now().as_millisecond();
        Self::from_unix_ms(u64::try_from(ms).unwrap_or(0))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// This time plus `ms` milliseconds, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::from_unix_ms(self.0.saturating_add(ms))
    }

    /// So many milliseconds earlier.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self::from_unix_ms(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let time = jiff::Timestamp::from_millisecond(ms).map_err(|_| fmt::Error)?;
        PRINTER.print_timestamp(&time, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        let ms = u64::try_from(time.as_millisecond()).map_err(|_| TimestampError)?;
        if ms > Self::MAX.0 { Err(TimestampError) } else { Ok(Self(ms)) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_with_three_decimals_and_read_back() {
        let time = Timestamp::from_unix_ms(1_769_860_800_000);
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.000Z");
        assert_eq!("2026-01-31T13:00:00+01:00".parse(), Ok(time));
        assert_eq!(Timestamp::MAX.to_string().parse(), Ok(Timestamp::MAX));
        assert_eq!(Timestamp::from_unix_ms(u64::MAX), Timestamp::MAX);
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
