//! A clock that goes on with the test's and can be put forward.
//!
//! Invariant: it never goes back. In a test with `start_paused` it stands still with tokio's own.

use crate::host_side::lock;
use plugin_api::tokio::time::Instant;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(super) struct Clock {
    wall: SystemTime,
    began: Instant,
    ahead: Mutex<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { wall: SystemTime::now(), began: Instant::now(), ahead: Mutex::default() }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.wall + self.began.elapsed() + *lock(&self.ahead)
    }

    /// Puts it forward to this time; not back, where it is past.
    pub(super) fn forward_to(&self, time: SystemTime) {
        let mut ahead = lock(&self.ahead);
        let now = self.wall + self.began.elapsed() + *ahead;
        *ahead += time.duration_since(now).unwrap_or_default();
    }
}

/// RFC 3339 in UTC with milliseconds, as hosts write times.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (Howard Hinnant, `civil_from_days`).
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_hosts_write_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_826_154_007, "2000-02-29T12:09:14.007Z"),
            (1_769_860_800_000, "2026-01-31T12:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn clock_goes_forward_and_never_back() {
        let clock = Clock::new();
        let start = clock.now();
        clock.forward_to(start + Duration::from_secs(3_600));
        assert!(clock.now() >= start + Duration::from_secs(3_600));
        clock.forward_to(start);
        assert!(clock.now() >= start + Duration::from_secs(3_600));
    }
}
