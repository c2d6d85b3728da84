//! Patterns of message schedules: read, or refused as nats-server refuses them.

use super::cron::Cron;
use super::time::{parse_duration, parse_rfc3339};

/// The shortest interval.
const EVERY_MIN_NS: u64 = 1_000_000_000;
/// When a message schedule fires; times in nanoseconds, since 1970 where they are times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Once.
    At(u64),
    /// Again and again after so long.
    Every(u64),
    /// At the times of an expression.
    Cron(Cron),
}

impl Schedule {
    /// `None` for what is no pattern; `zone` is that of a cron expression.
    pub(super) fn read(pattern: &str, zone: Option<&str>) -> Option<Self> {
        if let Some(at) = pattern.strip_prefix("@at ") {
            return parse_rfc3339(at.trim()).map(Self::At);
        }
        if let Some(every) = pattern.strip_prefix("@every ") {
            return parse_duration(every).filter(|every| *every >= EVERY_MIN_NS).map(Self::Every);
        }
        Cron::read(pattern, zone).map(Self::Cron)
    }

    /// When one that was stored then fires first; `None`: never.
    pub(super) fn first(&self, stored_ns: u64) -> Option<u64> {
        match self {
            Self::At(at) => Some(*at),
            Self::Every(every) => Some(stored_ns.saturating_add(*every)),
            Self::Cron(cron) => cron.after(stored_ns),
        }
    }

    /// When it fires again after it did; `None`: no more.
    pub(super) fn next(&self, fired_ns: u64, now_ns: u64) -> Option<u64> {
        match self {
            Self::At(_) => None,
            Self::Every(every) => Some(fired_ns.saturating_add(*every).max(now_ns)),
            Self::Cron(cron) => cron.after(now_ns.max(fired_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_or_are_none() {
        let read = |pattern| Schedule::read(pattern, None);
        assert_eq!(read("@at 2026-01-31T12:00:00Z"), Some(Schedule::At(1_769_860_800_000_000_000)));
        assert_eq!(read("@every 90s"), Some(Schedule::Every(90_000_000_000)));
        for cron in ["0 0 2 * * *", "*/5 0-30/10 1,2 ? JAN-mar MON", "@daily"] {
            assert!(matches!(read(cron), Some(Schedule::Cron(_))), "{cron}");
        }
        for none in [
            "",
            "@every 10ms",
            "@at soon",
            "0 2 * * *",
            "60 * * * * *",
            "* * * 0 * *",
            "*/0 * * * * *",
            "@sometimes",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
