//! Whether what is written agrees with the table of transitions in `cardcage_protocol::state`.
//!
//! Records tell less than happens: whoever moves a message writes none, and on the happy path neither does whoever starts
//! it. So between two records there may be any number of such silent events. The last event before a record is the one that
//! its writer had in hand.

use cardcage_protocol::State;
use cardcage_protocol::state::{Event, TRANSITIONS};
use std::collections::HashSet;

/// A record's state, and that of the one which replaced it; `None` before the first.
pub(super) type Change = (Option<State>, State);

/// Who writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// Whoever has a delivery in hand and starts it.
    Starter,
    /// Whoever has a delivery in hand and will not start it.
    Refuser,
    /// Whose attempt has ended.
    Holder,
    /// Whose child has died.
    Undertaker,
    /// Who brings parked tasks back.
    Unparker,
    /// Who cancels: a mark, which is no event.
    Canceller,
}

impl Writer {
    fn may_write(self, (from, event, _): &(State, Event, State)) -> bool {
        match self {
            Self::Starter => *event == Event::Started,
            Self::Refuser => !is_silent(*event) && *from != State::Running,
            Self::Holder => !matches!(event, Event::Started | Event::Withdrawn) && *from == State::Running,
            Self::Undertaker => matches!(event, Event::HandedBack | Event::Withdrawn),
            Self::Unparker => *from == State::Parked && matches!(event, Event::Unparked | Event::Cancelled),
            Self::Canceller => false,
        }
    }

    /// Whether a record may be written anew without an event.
    fn may_amend(self) -> bool {
        matches!(self, Self::Undertaker | Self::Canceller)
    }
}

fn is_silent(event: Event) -> bool {
    matches!(event, Event::BecameDue | Event::Started | Event::HandedBack | Event::Unparked)
}

/// The states that silent events lead to.
fn silently(from: impl IntoIterator<Item = State>) -> HashSet<State> {
    let mut reached: HashSet<State> = from.into_iter().collect();
    loop {
        let known = reached.len();
        for (from, event, to) in TRANSITIONS {
            if is_silent(*event) && reached.contains(from) {
                reached.insert(*to);
            }
        }
        if reached.len() == known {
            return reached;
        }
    }
}

/// Panics where the table knows no way from one record to the next.
pub(super) fn assert_known((from, to): Change, writer: Writer) {
    assert!(!from.is_some_and(State::is_final), "after {from:?} came {to:?}");
    // A task that has been parked for long has no record any more.
    let unrecorded = || vec![State::Queued, State::Scheduled, State::Parked];
    let reached = silently(from.map_or_else(unrecorded, |from| vec![from]));
    let is_step =
        |step: &&(State, Event, State)| writer.may_write(step) && reached.contains(&step.0) && step.2 == to;
    let is_amended = writer.may_amend() && (from == Some(to) || from.is_none() && reached.contains(&to));
    assert!(
        is_amended || TRANSITIONS.iter().any(|step| is_step(&step)),
        "{writer:?}: after {from:?} came {to:?}"
    );
}

/// Panics where a transition that workers write into records was never seen.
pub(super) fn assert_covered(seen: &HashSet<Change>) {
    // A record that says `scheduled` is a canceller's mark, after which nothing but the cancellation comes.
    let is_marked = |from: &State, to: &State| *from == State::Scheduled && *to != State::Cancelled;
    let missing: Vec<_> = TRANSITIONS
        .iter()
        .filter(|(from, event, to)| *event != Event::BecameDue && !is_marked(from, to))
        .filter(|(from, _, to)| !seen.contains(&(Some(*from), *to)))
        .collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

#[test]
fn ways_that_the_table_does_not_know_are_refused() {
    assert_known((None, State::Succeeded), Writer::Holder);
    assert_known((Some(State::Retrying), State::Running), Writer::Starter);
    assert_known((Some(State::Running), State::Failed), Writer::Refuser);
    for (from, to, writer) in [
        (State::Failed, State::Queued, Writer::Undertaker),
        (State::Running, State::Scheduled, Writer::Holder),
        (State::Running, State::Expired, Writer::Holder),
        (State::Queued, State::Succeeded, Writer::Refuser),
        (State::Queued, State::Cancelled, Writer::Canceller),
    ] {
        let checked = std::panic::catch_unwind(|| assert_known((Some(from), to), writer));
        assert!(checked.is_err(), "{writer:?}: {from}, then {to}");
    }
}
