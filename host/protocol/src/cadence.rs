//! When a schedule fires: at an interval, or at the times of a cron expression in a time zone.
//!
//! Invariants: an interval is whole seconds, from one second to a year, for the broker fires no finer; a time zone is one
//! that the host knows, and an interval has none.

use std::fmt;

use jiff::tz::TimeZone;

use crate::cron::{Cron, CronError};
use crate::timestamp::Timestamp;

/// Longest interval: a year.
const EVERY_MAX_S: u64 = 366 * 86_400;
/// The units of an interval.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

/// When a schedule fires.
#[derive(Debug, Clone, PartialEq)]
pub enum Cadence {
    /// Every so many seconds, counted from when it was declared.
    Every {
        /// From one slot to the next.
        seconds: u64,
    },
    /// At these times.
    Cron {
        /// The expression.
        cron: Cron,
        /// Whose clocks count.
        zone: TimeZone,
        /// The zone's name, as declared; `None`: UTC.
        zone_name: Option<String>,
    },
}

/// Why something is no cadence. Whoever declared it must correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// Neither, or both.
    #[error("it needs either an interval or a cron expression")]
    One,
    /// Not an interval.
    #[error("`{0}` is no interval from 1s to 366d, such as 90s, 5m or 1h30m")]
    Every(String),
    /// An interval has no clock to read.
    #[error("a time zone belongs to a cron expression, not to an interval")]
    ZoneOfInterval,
    /// Not a cron expression.
    #[error("`{0}` is no cron expression: {1}")]
    Cron(String, CronError),
    /// Not a time zone.
    #[error("`{0}` is no time zone, such as Europe/Berlin")]
    Zone(String),
}

impl Cadence {
    /// Reads what was declared.
    ///
    /// # Errors
    /// [`CadenceError`] says what is wrong with it.
    pub fn parse(
        every: Option<&str>,
        cron: Option<&str>,
        time_zone: Option<&str>,
    ) -> Result<Self, CadenceError> {
        match (every, cron) {
            (Some(_), None) if time_zone.is_some() => Err(CadenceError::ZoneOfInterval),
            (Some(text), None) => match seconds(text) {
                Some(seconds) => Ok(Self::Every { seconds }),
                None => Err(CadenceError::Every(text.to_owned())),
            },
            (None, Some(text)) => {
                let cron = text.parse().map_err(|error| CadenceError::Cron(text.to_owned(), error))?;
                let zone = time_zone.map_or(Ok(TimeZone::UTC), |name| {
                    TimeZone::get(name).map_err(|_| CadenceError::Zone(name.to_owned()))
                })?;
                Ok(Self::Cron { cron, zone, zone_name: time_zone.map(str::to_owned) })
            }
            _ => Err(CadenceError::One),
        }
    }

    /// The text for the broker's header.
    #[must_use]
    pub fn pattern(&self) -> String {
        match self {
            Self::Every { seconds } => format!("@every {seconds}s"),
            Self::Cron { cron, .. } => cron.to_string(),
        }
    }

    /// The zone for the broker's header.
    #[must_use]
    pub fn zone_name(&self) -> Option<&str> {
        match self {
            Self::Every { .. } => None,
            Self::Cron { zone_name, .. } => zone_name.as_deref(),
        }
    }

    /// The first slot after `after`, where that can be known: an interval is counted by the broker.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { .. } => None,
            Self::Cron { cron, zone, .. } => cron.next_after(after, zone),
        }
    }

    /// Whether a firing that the broker stored at `fired_at` and that somebody takes up `now` comes later than `grace`
    /// after its slot. A broker that was down at the slot fires it when it is back.
    #[must_use]
    pub fn is_missed(&self, fired_at: Timestamp, now: Timestamp, grace_ms: u64) -> bool {
        let earliest = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(grace_ms));
        match self {
            Self::Every { .. } => fired_at < earliest,
            // No slot between then and the firing: it belongs to an earlier one. A firing may come a moment early.
            Self::Cron { cron, zone, .. } => {
                let slot = cron.next_after(earliest, zone);
                slot.is_none_or(|slot| slot > fired_at.plus_ms(1_000))
            }
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every { seconds } => {
                let (unit, one) = UNITS.iter().rev().find(|(_, one)| seconds % one == 0).unwrap_or(&('s', 1));
                write!(f, "every {}{unit}", seconds / one)
            }
            Self::Cron { cron, zone_name, .. } => {
                write!(f, "{cron} {}", zone_name.as_deref().unwrap_or("UTC"))
            }
        }
    }
}

/// `90s`, `1h30m`.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.chars().next()?;
        let (_, one) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*one)?)?;
        rest = tail.get(1..)?;
    }
    (1..=EVERY_MAX_S).contains(&total).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn cadences_are_read_and_mistakes_named() {
        let every = |text| Cadence::parse(Some(text), None, None);
        assert_eq!(every("1h30m").unwrap().pattern(), "@every 5400s");
        assert_eq!(every("120m").unwrap().to_string(), "every 2h");
        for bad in ["", "0s", "5", "m", "1.5s", "500ms", "400d", "5m "] {
            assert_eq!(every(bad), Err(CadenceError::Every(bad.to_owned())));
        }
        let cron = |zone| Cadence::parse(None, Some("0 0 8 * * *"), zone);
        assert_eq!(cron(Some("Europe/Berlin")).unwrap().to_string(), "0 0 8 * * * Europe/Berlin");
        assert_eq!(cron(Some("Europe/Atlantis")), Err(CadenceError::Zone("Europe/Atlantis".to_owned())));
        assert_eq!(Cadence::parse(Some("5m"), None, Some("UTC")), Err(CadenceError::ZoneOfInterval));
        assert_eq!(Cadence::parse(Some("5m"), Some("0 0 8 * * *"), None), Err(CadenceError::One));
    }

    #[test]
    fn firing_is_missed_when_nobody_takes_it_up_or_the_broker_comes_back_late() {
        let nightly = Cadence::parse(None, Some("0 0 2 * * *"), None).unwrap();
        let (slot, minute) = (at("2026-02-01T02:00:00.012Z"), 60_000);
        assert!(!nightly.is_missed(slot, slot.plus_ms(30_000), minute));
        assert!(nightly.is_missed(slot, slot.plus_ms(90_000), minute), "taken up late");
        let late = at("2026-02-01T05:00:00.000Z");
        assert!(nightly.is_missed(late, late, minute), "fired late");
        let every = Cadence::parse(Some("5m"), None, None).unwrap();
        assert!(!every.is_missed(slot, slot.plus_ms(30_000), minute));
        assert!(every.is_missed(slot, slot.plus_ms(90_000), minute));
    }
}
