//! Cron expressions as nats-server reads them: second, minute, hour, day, month and day of the week, in a time zone.
//!
//! Where both kinds of day are restricted either of them suffices, as in every cron. A time that a zone leaves out when its clocks are
//! put forward does not come; one that it has twice comes twice.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};

/// What stands for a whole expression.
const ALIASES: [(&str, &str); 7] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// No expression that comes at all waits for longer: 29 February, with a century without one.
const YEARS_MAX: i16 = 8;

/// The numbers of a field that an expression names, as bits; whether those are all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    is_any: bool,
}

impl Field {
    /// `None` for what is no field with numbers from `from` to `to`; `names` stand for those from `from` on.
    fn read(text: &str, from: u32, to: u32, names: &[&str]) -> Option<Self> {
        let number = |text: &str| {
            let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
            let named = named.and_then(|place| u32::try_from(place).ok()).map(|place| from + place);
            named.or_else(|| text.parse().ok()).filter(|number| (from..=to).contains(number))
        };
        let mut field = Self { bits: 0, is_any: false };
        for part in text.split(',') {
            let (range, step) =
                part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let step = step.map_or(Some(1), |step| step.parse::<u32>().ok().filter(|step| *step > 0))?;
            let (low, high) = match range.split_once('-') {
                _ if range == "*" || range == "?" => {
                    field.is_any |= step == 1;
                    (from, to)
                }
                Some((low, high)) => (number(low)?, number(high)?),
                // From there on, where there is a step.
                None if part.contains('/') => (number(range)?, to),
                None => (number(range)?, number(range)?),
            };
            if low > high {
                return None;
            }
            for number in (low..=high).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                field.bits |= 1 << number;
            }
        }
        Some(field)
    }

    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    zone: TimeZone,
}

impl Cron {
    /// `None` for what is no expression, or no zone; without one it is UTC.
    pub(super) fn read(pattern: &str, zone: Option<&str>) -> Option<Self> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == pattern);
        let fields: Vec<&str> =
            alias.map_or(pattern, |(_, fields)| fields).split_ascii_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields.as_slice() else { return None };
        Some(Self {
            second: Field::read(second, 0, 59, &[])?,
            minute: Field::read(minute, 0, 59, &[])?,
            hour: Field::read(hour, 0, 23, &[])?,
            day: Field::read(day, 1, 31, &[])?,
            month: Field::read(month, 1, 12, &MONTHS)?,
            weekday: Field::read(weekday, 0, 6, &DAYS)?,
            zone: zone.map_or(Some(TimeZone::UTC), |zone| TimeZone::get(zone).ok())?,
        })
    }

    /// The first time after this one, both in nanoseconds since 1970; `None` where there is none, as on 30 February.
    pub(super) fn after(&self, ns: u64) -> Option<u64> {
        let second = i64::try_from(ns / 1_000_000_000).ok()?.checked_add(1)?;
        let mut time = Timestamp::from_second(second).ok()?.to_zoned_datetime(self.zone.clone());
        let last = time.year().checked_add(YEARS_MAX)?;
        while time.year() <= last {
            match self.later(&time) {
                Some(later) => time = later.ok()?,
                None => return u64::try_from(time.timestamp().as_nanosecond()).ok(),
            }
        }
        None
    }

    /// A later time, before which none comes; `None`: this one does.
    fn later(&self, time: &ZonedDateTime) -> Option<Result<ZonedDateTime, jiff::Error>> {
        if !self.month.has(time.month()) {
            return Some(
                time.first_of_month()
                    .and_then(|first| first.checked_add(Span::new().months(1))?.start_of_day()),
            );
        }
        if !self.is_day(time) {
            return Some(time.checked_add(Span::new().days(1)).and_then(|next| next.start_of_day()));
        }
        // Of time that passes, not of the clock's: a zone may have an hour twice.
        let seconds = |seconds: i64| Some(time.checked_add(Span::new().seconds(seconds)));
        let (minute, second) = (i64::from(time.minute()), i64::from(time.second()));
        if !self.hour.has(time.hour()) {
            return seconds(3_600 - minute * 60 - second);
        }
        if !self.minute.has(time.minute()) {
            return seconds(60 - second);
        }
        if !self.second.has(time.second()) {
            return seconds(1);
        }
        None
    }

    fn is_day(&self, time: &ZonedDateTime) -> bool {
        let day = self.day.has(time.day());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset());
        if self.day.is_any || self.weekday.is_any { day && weekday } else { day || weekday }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first three times after one.
    fn times(pattern: &str, zone: Option<&str>, after: &str) -> Vec<String> {
        let cron = Cron::read(pattern, zone).unwrap();
        let mut at = u64::try_from(after.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap();
        let mut next = || {
            at = cron.after(at)?;
            Some(Timestamp::from_nanosecond(i128::from(at)).unwrap().to_string())
        };
        (0..3).map_while(|_| next()).collect()
    }

    #[test]
    fn times_of_an_expression_are_those_that_its_fields_name() {
        let of = |pattern| times(pattern, None, "2026-11-27T18:30:07.5Z");
        assert_eq!(
            of("* * * * * *"),
            ["2026-11-27T18:30:08Z", "2026-11-27T18:30:09Z", "2026-11-27T18:30:10Z"]
        );
        assert_eq!(
            of("*/20 * * * * *"),
            ["2026-11-27T18:30:20Z", "2026-11-27T18:30:40Z", "2026-11-27T18:31:00Z"]
        );
        assert_eq!(
            of("0 45/10 * * * *"),
            ["2026-11-27T18:45:00Z", "2026-11-27T18:55:00Z", "2026-11-27T19:45:00Z"]
        );
        assert_eq!(
            of("0 30 2 * * *"),
            ["2026-11-28T02:30:00Z", "2026-11-29T02:30:00Z", "2026-11-30T02:30:00Z"]
        );
        assert_eq!(of("@monthly"), ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"]);
        assert_eq!(
            of("0 0 0 29 FEB ?"),
            ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z", "2036-02-29T00:00:00Z"]
        );
        assert_eq!(of("0 0 0 30 2 *"), [""; 0], "it never comes");
        // Either kind of day where both are restricted, both where one is not.
        assert_eq!(
            of("0 0 0 1 * MON"),
            ["2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-07T00:00:00Z"]
        );
        assert_eq!(
            of("0 0 0 * * 1-2"),
            ["2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-07T00:00:00Z"]
        );
    }

    #[test]
    fn zone_says_when_it_is_so_late_and_a_day_may_have_that_time_twice_or_not_at_all() {
        let of = |pattern, after| times(pattern, Some("Europe/Berlin"), after);
        assert_eq!(
            of("0 30 2 * * *", "2026-03-28T00:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"],
            "there is no half past two on the 29th"
        );
        assert_eq!(
            of("0 30 2 * * *", "2026-10-25T00:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(Cron::read("* * * * * *", Some("Nowhere/Atall")), None);
    }
}
