//! The states of a task and the events between them: one table, nothing beside it.
//!
//! Invariants: a final state has no exit; every state can be reached and every state that is not final can end.
//! A start may follow `retrying` or `scheduled` directly: whoever moves a message back to its queue writes no
//! record, for the happy path affords one write.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits in its queue for a worker.
    Queued,
    /// Waits for its time.
    Scheduled,
    /// An attempt is under way.
    Running,
    /// An attempt failed; the next one waits for its time.
    Retrying,
    /// Accepted, but no live worker can run it.
    Parked,
    /// Final: the handler returned a result.
    Succeeded,
    /// Final: given up, and kept as a dead letter.
    Failed,
    /// Final: cancelled on request.
    Cancelled,
    /// Final: not started before its expiry.
    Expired,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its time has come.
    BecameDue,
    /// A worker started an attempt.
    Started,
    /// The handler returned a result.
    Succeeded,
    /// The attempt failed, and another one follows.
    RetryScheduled,
    /// No further attempt follows.
    Failed,
    /// A worker handed the attempt back, or lost its lease.
    HandedBack,
    /// An attempt that was announced after a failed one was never started.
    Withdrawn,
    /// The version that had it cannot decode its body.
    Parked,
    /// A worker that can run it has appeared.
    Unparked,
    /// Somebody cancelled it.
    Cancelled,
    /// Its expiry passed before a start.
    Expired,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 11] = [
        Event::BecameDue,
        Event::Started,
        Event::Succeeded,
        Event::RetryScheduled,
        Event::Failed,
        Event::HandedBack,
        Event::Withdrawn,
        Event::Parked,
        Event::Unparked,
        Event::Cancelled,
        Event::Expired,
    ];

    /// The event's name, as the diagram shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BecameDue => "became_due",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::RetryScheduled => "retry_scheduled",
            Self::Failed => "failed",
            Self::HandedBack => "handed_back",
            Self::Withdrawn => "withdrawn",
            Self::Parked => "parked",
            Self::Unparked => "unparked",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Every transition. What is not here cannot happen.
pub const TRANSITIONS: &[(State, Event, State)] = &[
    (State::Queued, Event::Started, State::Running),
    // A supervisor ended the attempt for its child and handed it back; whoever gets it knows the policy.
    (State::Queued, Event::RetryScheduled, State::Retrying),
    (State::Queued, Event::Parked, State::Parked),
    (State::Queued, Event::Failed, State::Failed),
    (State::Queued, Event::Cancelled, State::Cancelled),
    (State::Queued, Event::Expired, State::Expired),
    (State::Scheduled, Event::BecameDue, State::Queued),
    (State::Scheduled, Event::Started, State::Running),
    (State::Scheduled, Event::Failed, State::Failed),
    (State::Scheduled, Event::Cancelled, State::Cancelled),
    (State::Scheduled, Event::Expired, State::Expired),
    (State::Running, Event::Succeeded, State::Succeeded),
    (State::Running, Event::RetryScheduled, State::Retrying),
    (State::Running, Event::Failed, State::Failed),
    (State::Running, Event::HandedBack, State::Queued),
    (State::Running, Event::Withdrawn, State::Retrying),
    // The start of a handler showed that the body cannot be decoded; it was no attempt.
    (State::Running, Event::Parked, State::Parked),
    (State::Running, Event::Cancelled, State::Cancelled),
    (State::Retrying, Event::BecameDue, State::Queued),
    (State::Retrying, Event::Started, State::Running),
    (State::Retrying, Event::Failed, State::Failed),
    (State::Retrying, Event::Cancelled, State::Cancelled),
    (State::Retrying, Event::Expired, State::Expired),
    (State::Parked, Event::Unparked, State::Queued),
    (State::Parked, Event::Started, State::Running),
    (State::Parked, Event::Failed, State::Failed),
    (State::Parked, Event::Cancelled, State::Cancelled),
    (State::Parked, Event::Expired, State::Expired),
];

/// The state after `event` in `state`; `None` when that cannot happen.
#[must_use]
pub fn next(state: State, event: Event) -> Option<State> {
    TRANSITIONS.iter().find(|(from, on, _)| *from == state && *on == event).map(|(_, _, to)| *to)
}

impl State {
    /// All states.
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Scheduled,
        State::Running,
        State::Retrying,
        State::Parked,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
        State::Expired,
    ];

    /// Says whether nothing further can happen to the task.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// The state as it is written in records, metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn reachable(from: State) -> HashSet<State> {
        let mut seen = HashSet::from([from]);
        let mut open = vec![from];
        while let Some(state) = open.pop() {
            for event in Event::ALL {
                if let Some(to) = next(state, event)
                    && seen.insert(to)
                {
                    open.push(to);
                }
            }
        }
        seen
    }

    #[test]
    fn final_states_have_no_exit_and_all_others_can_end() {
        for state in State::ALL {
            let exits = Event::ALL.iter().filter(|event| next(state, **event).is_some()).count();
            assert_eq!(exits == 0, state.is_final(), "{state}");
            assert!(reachable(state).iter().any(|s| s.is_final()), "{state}");
        }
    }

    #[test]
    fn every_state_is_reached_and_every_open_state_can_be_cancelled() {
        let seen: HashSet<_> =
            reachable(State::Queued).union(&reachable(State::Scheduled)).copied().collect();
        assert_eq!(seen.len(), State::ALL.len());
        for state in State::ALL.into_iter().filter(|s| !s.is_final()) {
            assert_eq!(next(state, Event::Cancelled), Some(State::Cancelled), "{state}");
        }
    }

    #[test]
    fn the_table_is_a_function() {
        let pairs: HashSet<_> = TRANSITIONS.iter().map(|(from, on, _)| (*from, *on)).collect();
        assert_eq!(pairs.len(), TRANSITIONS.len());
    }

    #[test]
    fn written_states_match_their_json() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        for event in Event::ALL {
            assert_eq!(serde_json::to_string(&event).unwrap(), format!("\"{}\"", event.as_str()));
        }
    }
}
