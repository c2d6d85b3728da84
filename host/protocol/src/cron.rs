//! Cron expressions of six fields, as the broker understands them: second, minute, hour, day, month, weekday.
//!
//! The broker fires; here an expression is checked before it gets there, so that a mistake is one sentence at load, and
//! the next slot is computed for people and for telling a slot that is late from one that was missed.
//!
//! Invariants: what parses here, the broker takes. Where both day and weekday are restricted, either one is enough.
//! Refuses: `@daily` and the like, `L`, `W` and `#`: one way to write a time.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::timestamp::Timestamp;

/// Days that are looked through for the next slot: 29 February may be eight years away.
const DAYS_MAX: usize = 366 * 9;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field's name, bounds and spelled-out values.
struct FieldSpec {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const fn field(name: &'static str, min: u32, max: u32, names: &'static [&'static str]) -> FieldSpec {
    FieldSpec { name, min, max, names }
}

static FIELDS: [FieldSpec; 6] = [
    field("second", 0, 59, &[]),
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of the month", 1, 31, &[]),
    field("month", 1, 12, &MONTHS),
    field("weekday", 0, 6, &WEEKDAYS),
];

/// The values of one field as bits; `any` for `*` and `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn has(self, value: u32) -> bool {
        self.bits >> value & 1 == 1
    }

    /// The first value from `from` on.
    fn first_from(self, from: u32, max: u32) -> Option<u32> {
        (from..=max).find(|value| self.has(*value))
    }
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// Why a text is no cron expression. Whoever wrote it must correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not six fields.
    #[error("it has {count} fields, where six are needed: second minute hour day month weekday")]
    Count {
        /// How many it has.
        count: usize,
    },
    /// One field is wrong.
    #[error("`{text}` is no {field}: write values from {min} to {max}, ranges, lists, steps or `*`")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What stands there.
        text: String,
        /// The lowest value.
        min: u32,
        /// The highest value.
        max: u32,
    },
    /// It is none of the calendar's days.
    #[error("no day ever matches it")]
    Never,
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(CronError::Count { count: fields.len() });
        };
        let [s, m, h, d, mo, w] = &FIELDS;
        let cron = Self {
            text: fields.join(" "),
            second: read(second, s)?,
            minute: read(minute, m)?,
            hour: read(hour, h)?,
            day: read(day, d)?,
            month: read(month, mo)?,
            weekday: read(weekday, w)?,
        };
        match cron.next_after(Timestamp::from_unix_ms(0), &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn read(text: &str, spec: &FieldSpec) -> Result<Field, CronError> {
    let error = || CronError::Field { field: spec.name, text: text.to_owned(), min: spec.min, max: spec.max };
    let mut field = Field { bits: 0, any: false };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| (1..=spec.max).contains(step)))),
            None => (part, None),
        };
        let step_given = step.is_some();
        let step = step.unwrap_or(Some(1)).ok_or_else(error)?;
        let (from, to) = match range {
            "*" | "?" => {
                field.any |= !step_given;
                (spec.min, spec.max)
            }
            range => match range.split_once('-') {
                Some((from, to)) => {
                    (value(from, spec).ok_or_else(error)?, value(to, spec).ok_or_else(error)?)
                }
                None => {
                    let from = value(range, spec).ok_or_else(error)?;
                    (from, if step_given { spec.max } else { from })
                }
            },
        };
        if from > to {
            return Err(error());
        }
        let mut value = from;
        while value <= to {
            field.bits |= 1 << value;
            value = value.saturating_add(step);
        }
    }
    Ok(field)
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn value(text: &str, spec: &FieldSpec) -> Option<u32> {
    let named = spec.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let value = match named {
        Some(place) => u32::try_from(place).ok()?.checked_add(spec.min)?,
        None => number(text)?,
    };
    (spec.min..=spec.max).contains(&value).then_some(value)
}

impl Cron {
    /// The first slot after `after`, by the clocks of `zone`.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_second(i64::try_from(after.unix_ms() / 1_000).ok()?).ok()?;
        let start = zone.to_datetime(after);
        let mut date = start.date();
        for nth in 0..DAYS_MAX {
            if self.is_day(date) {
                let mut from = if nth == 0 { Some(start.time()) } else { Some(Time::MIN) };
                while let Some(time) = from.and_then(|from| self.time_from(from)) {
                    let slot = zone.to_timestamp(DateTime::from_parts(date, time)).ok()?;
                    if slot > after {
                        return u64::try_from(slot.as_millisecond()).ok().map(Timestamp::from_unix_ms);
                    }
                    from = second_after(time);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let of = |value: i8| u32::try_from(value).unwrap_or(0);
        if !self.month.has(of(date.month())) {
            return false;
        }
        let day = self.day.has(of(date.day()));
        let weekday = self.weekday.has(of(date.weekday().to_sunday_zero_offset()));
        if self.day.any || self.weekday.any { day && weekday } else { day || weekday }
    }

    /// The first time of a day from `from` on.
    fn time_from(&self, from: Time) -> Option<Time> {
        let of = |value: i8| u32::try_from(value).unwrap_or(0);
        let (from_hour, from_minute, from_second) = (of(from.hour()), of(from.minute()), of(from.second()));
        let mut hour = self.hour.first_from(from_hour, 23);
        while let Some(h) = hour {
            let mut minute = self.minute.first_from(if h == from_hour { from_minute } else { 0 }, 59);
            while let Some(m) = minute {
                let least = if h == from_hour && m == from_minute { from_second } else { 0 };
                if let Some(s) = self.second.first_from(least, 59) {
                    let of = |value: u32| i8::try_from(value).ok();
                    return Time::new(of(h)?, of(m)?, of(s)?, 0).ok();
                }
                minute = self.minute.first_from(m.saturating_add(1), 59);
            }
            hour = self.hour.first_from(h.saturating_add(1), 23);
        }
        None
    }
}

/// `None` at the end of the day.
fn second_after(time: Time) -> Option<Time> {
    time.checked_add(jiff::SignedDuration::from_secs(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, zone: &str, after: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let next = cron.parse::<Cron>().unwrap().next_after(after.parse().unwrap(), &zone);
        next.unwrap().to_string()
    }

    #[test]
    fn the_next_slot_is_the_first_that_matches_by_the_zones_clocks() {
        for (cron, zone, after, slot) in [
            ("*/2 * * * * *", "UTC", "2026-01-31T12:00:00.500Z", "2026-01-31T12:00:02.000Z"),
            ("0 0 12 * * MON-FRI", "UTC", "2026-01-31T12:00:00.000Z", "2026-02-02T12:00:00.000Z"),
            ("0 0 12 ? jan *", "UTC", "2026-01-31T12:00:00.000Z", "2027-01-01T12:00:00.000Z"),
            ("0 0 0 29 2 *", "UTC", "2026-01-31T12:00:00.000Z", "2028-02-29T00:00:00.000Z"),
            ("0 0 0 1 * sun", "UTC", "2026-01-30T12:00:00.000Z", "2026-02-01T00:00:00.000Z"),
            ("0 0 0 13 * fri", "UTC", "2026-01-30T12:00:00.000Z", "2026-02-06T00:00:00.000Z"),
            ("5-50/20 59 23 * * *", "UTC", "2026-12-31T23:59:45.000Z", "2027-01-01T23:59:05.000Z"),
            ("0 0 8 * * *", "Europe/Berlin", "2026-01-31T12:00:00.000Z", "2026-02-01T07:00:00.000Z"),
            ("0 0 8 * * *", "Europe/Berlin", "2026-07-31T12:00:00.000Z", "2026-08-01T06:00:00.000Z"),
        ] {
            assert_eq!(next(cron, zone, after), slot, "{cron} in {zone} after {after}");
        }
    }

    #[test]
    fn the_hour_that_clocks_skip_or_repeat_neither_stops_nor_loops() {
        let skipped = next("0 30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00.000Z");
        assert_eq!(skipped, "2026-03-29T01:30:00.000Z");
        let repeated = next("0 30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00.000Z");
        assert_eq!(repeated, "2026-10-26T01:30:00.000Z");
    }

    #[test]
    fn what_the_broker_would_refuse_is_refused_with_the_field_that_is_wrong() {
        for (cron, said) in [
            ("0 0 12 * *", "it has 5 fields"),
            ("", "it has 0 fields"),
            ("@hourly", "it has 1 fields"),
            ("0 0 25 * * *", "`25` is no hour"),
            ("0 0 12 L * *", "`L` is no day of the month"),
            ("0 0 12 * * 7", "`7` is no weekday"),
            ("*/0 * * * * *", "`*/0` is no second"),
            ("30-10 * * * * *", "`30-10` is no second"),
            ("0 0 0 31 2 *", "no day ever matches"),
        ] {
            let error = cron.parse::<Cron>().unwrap_err().to_string();
            assert!(error.starts_with(said), "{cron}: {error}");
        }
    }
}
