//! When a delayed task is due, as its message says it.
//!
//! JetStream fires what is due at most four times a second, all of a quarter at once. So it is asked to fire a task a
//! little before its time, and the pump that moves it into its queue keeps it until then (decision 38).

use crate::{Timestamp, header};

/// How long before its time a delayed task is fired, in milliseconds: longer than JetStream's pause between two rounds and
/// the round itself.
pub const FIRES_EARLY_MS: u64 = 500;

/// What JetStream's schedules begin with that fire once.
const AT: &str = "@at ";

/// The headers of a message that is to come to `target` for `due`.
#[must_use]
pub fn headers(due: Timestamp, target: &str) -> [(&'static str, String); 3] {
    let fires_at = Timestamp::from_unix_ms(due.unix_ms().saturating_sub(FIRES_EARLY_MS));
    [
        (header::NATS_SCHEDULE, format!("{AT}{fires_at}")),
        (header::NATS_SCHEDULE_TARGET, target.to_owned()),
        (header::DUE_AT, due.to_string()),
    ]
}

/// When the message with these headers is due. One without [`header::DUE_AT`] is due when it fires, and when it has fired it
/// says nothing (`None`).
pub fn due_at<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Timestamp> {
    let mut fires_at = None;
    for (name, value) in headers {
        match name {
            header::DUE_AT => return value.parse().ok(),
            header::NATS_SCHEDULE => fires_at = value.strip_prefix(AT).and_then(|at| at.parse().ok()),
            _ => {}
        }
    }
    fires_at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_fires_early_and_says_when_it_is_due() {
        let due: Timestamp = "2026-11-26T12:00:00.250Z".parse().unwrap();
        let headers = headers(due, "target");
        let pairs = || headers.iter().map(|(name, value)| (*name, value.as_str()));
        assert!(
            pairs().any(|header| header == ("Nats-Schedule", "@at 2026-11-26T11:59:59.750Z")),
            "{headers:?}"
        );
        assert_eq!(due_at(pairs()), Some(due));
        assert_eq!(
            due_at(pairs().filter(|(name, _)| !name.starts_with("Nats-"))),
            Some(due),
            "when it has fired"
        );
        assert_eq!(
            due_at([("Nats-Schedule", "@at 2026-11-26T12:00:00Z")].into_iter()).map(|at| at.unix_ms() + 250),
            Some(due.unix_ms())
        );
        assert_eq!(due_at([("Nats-Schedule", "@every 1s")].into_iter()), None);
        assert_eq!(due_at(std::iter::empty()), None);
        assert_eq!(headers_of_the_beginning(), Some(Timestamp::from_unix_ms(0)));
    }

    fn headers_of_the_beginning() -> Option<Timestamp> {
        let headers = headers(Timestamp::from_unix_ms(0), "target");
        due_at(headers.iter().map(|(name, value)| (*name, value.as_str())))
    }
}
