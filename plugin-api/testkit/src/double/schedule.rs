//! Patterns of message schedules: read, or refused as nats-server refuses them.
//!
//! Refuses: firing a cron expression. It is looked through field by field, kept, and told in the double's log.

use super::time::{parse_duration, parse_rfc3339};

/// The shortest interval.
const EVERY_MIN_NS: u64 = 1_000_000_000;
/// What stands for a whole expression.
const ALIASES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Second, minute, hour, day, month, day of the week: from, to, and names that stand for numbers from `from` on.
const FIELDS: [(u32, u32, &[&str]); 6] =
    [(0, 59, &[]), (0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];

/// When a message schedule fires; times in nanoseconds, since 1970 where they are times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Once.
    At(u64),
    /// Again and again after so long.
    Every(u64),
    /// At times that the double does not compute.
    Cron,
}

impl Schedule {
    /// `None` for what is no pattern.
    pub(super) fn read(pattern: &str) -> Option<Self> {
        if let Some(at) = pattern.strip_prefix("@at ") {
            return parse_rfc3339(at.trim()).map(Self::At);
        }
        if let Some(every) = pattern.strip_prefix("@every ") {
            return parse_duration(every).filter(|every| *every >= EVERY_MIN_NS).map(Self::Every);
        }
        let fields: Vec<&str> = pattern.split_ascii_whitespace().collect();
        let is_cron = fields.len() == FIELDS.len()
            && fields.iter().zip(FIELDS).all(|(field, bounds)| is_field(field, bounds));
        (is_cron || ALIASES.contains(&pattern)).then_some(Self::Cron)
    }
}

fn is_field(field: &str, (from, to, names): (u32, u32, &[&str])) -> bool {
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|place| u32::try_from(place).ok()).map(|place| from + place);
        named.or_else(|| text.parse().ok()).filter(|number| (from..=to).contains(number))
    };
    field.split(',').all(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let is_range = match range.split_once('-') {
            _ if range == "*" || range == "?" => true,
            Some((low, high)) => number(low).zip(number(high)).is_some_and(|(low, high)| low <= high),
            None => number(range).is_some(),
        };
        is_range && step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step > 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_or_are_none() {
        assert_eq!(Schedule::read("@at 2026-01-31T12:00:00Z"), Some(Schedule::At(1_769_860_800_000_000_000)));
        assert_eq!(Schedule::read("@every 90s"), Some(Schedule::Every(90_000_000_000)));
        for cron in ["0 0 2 * * *", "*/5 0-30/10 1,2 ? JAN-mar MON", "@daily"] {
            assert_eq!(Schedule::read(cron), Some(Schedule::Cron), "{cron}");
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
            assert_eq!(Schedule::read(none), None, "{none}");
        }
    }
}
