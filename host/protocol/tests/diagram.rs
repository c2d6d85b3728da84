//! The diagram of a task's states in the book is made from the table of transitions, and says what the table says.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml covers only the test functions"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cardcage_protocol::State;
use cardcage_protocol::state::{Event, TRANSITIONS};

const FILE: &str = "docs/reference/task-states.md";

fn of_state(state: State) -> &'static str {
    match state {
        State::Queued => "waits in its plugin's queue for a worker",
        State::Scheduled => "was enqueued for later and waits for its time",
        State::Running => "an attempt is under way",
        State::Retrying => "an attempt failed; the next one waits for its time",
        State::Parked => {
            "no version that had it can decode its body; it waits with a reason for one that can"
        }
        State::Succeeded => "final: the handler returned a result",
        State::Failed => "final: given up, and kept as a dead letter",
        State::Cancelled => "final: cancelled on request, or discarded by its handler",
        State::Expired => "final: not started before its expiry",
    }
}

fn of_event(event: Event) -> &'static str {
    match event {
        Event::BecameDue => "its time has come, and the pump moves it to its queue; writes no record",
        Event::Started => "a worker starts an attempt; on the happy path, writes no record",
        Event::Succeeded => "the handler returned a result",
        Event::RetryScheduled => "the attempt failed, and another one follows",
        Event::Failed => "no attempt follows: the handler said so, or a bound is reached",
        Event::HandedBack => {
            "a worker handed the attempt back, or its lease was lost; then it writes no record"
        }
        Event::Withdrawn => {
            "an attempt was announced after a failed one, and its worker died before it started"
        }
        Event::Parked => "the version that had it cannot decode its body; it was no attempt",
        Event::Unparked => "a worker that can run it has appeared",
        Event::Cancelled => "somebody cancelled it, or its handler discarded it",
        Event::Expired => "its expiry passed before a start",
    }
}

fn markdown() -> String {
    let mut text = String::from(
        "# The states of a task\n\nGenerated from `host/protocol/src/state.rs`; do not edit.\n\n\
         ```mermaid\nstateDiagram-v2\n    [*] --> queued: enqueued\n    [*] --> scheduled: enqueued for later\n",
    );
    // One arrow for each pair of states, however many events lead there.
    let mut arrows: Vec<((State, State), Vec<&str>)> = Vec::new();
    for (from, event, to) in TRANSITIONS {
        match arrows.iter_mut().find(|(pair, _)| *pair == (*from, *to)) {
            Some((_, events)) => events.push(event.as_str()),
            None => arrows.push(((*from, *to), vec![event.as_str()])),
        }
    }
    for ((from, to), events) in arrows {
        writeln!(text, "    {from} --> {to}: {}", events.join(", ")).unwrap();
    }
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        writeln!(text, "    {state} --> [*]").unwrap();
    }
    text.push_str("```\n\n| state | what it means | what can happen, and where it leads |\n|---|---|---|\n");
    for state in State::ALL {
        let exits: Vec<_> = TRANSITIONS
            .iter()
            .filter(|(from, ..)| *from == state)
            .map(|(_, event, to)| format!("{} → `{to}`", event.as_str()))
            .collect();
        let exits = if exits.is_empty() { "nothing".to_owned() } else { exits.join(", ") };
        writeln!(text, "| `{state}` | {} | {exits} |", of_state(state)).unwrap();
    }
    text.push_str("\n| event | what happened |\n|---|---|\n");
    for event in Event::ALL {
        writeln!(text, "| {} | {} |", event.as_str(), of_event(event)).unwrap();
    }
    text
}

#[test]
fn the_diagram_of_states_is_generated() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FILE);
    let generated = markdown();
    if std::env::var_os("CARDCAGE_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&file, generated).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let again = "`CARDCAGE_BLESS=1 cargo test -p cardcage-protocol --test diagram`";
    assert!(
        committed == generated,
        "{FILE} differs from the table of transitions; write it anew with {again}"
    );
}

#[test]
fn every_state_and_every_transition_stands_in_the_diagram() {
    let text = markdown();
    let diagram = text.split("```").nth(1).unwrap();
    let mut arrows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for line in diagram.lines().filter_map(|line| line.trim().split_once(": ")) {
        let ends = line.0.split_once(" --> ").unwrap();
        arrows.entry(ends).or_default().extend(line.1.split(", "));
    }
    for (from, event, to) in TRANSITIONS {
        let events = &arrows[&(from.as_str(), to.as_str())];
        assert!(events.contains(&event.as_str()), "{from} --> {to}: {}", event.as_str());
    }
    assert!(State::ALL.iter().all(|state| text.contains(&format!("| `{state}` |"))));
}
