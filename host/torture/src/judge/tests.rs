//! The judge is judged: each kind of broken promise, made up, is found.

use cardcage_protocol::Timestamp;
use serde_json::json;

use super::*;
use crate::ending::Try;
use crate::submission::Submission;

/// An honest run of a minute: as many tasks and kills as are due, and nothing wrong.
fn honest() -> Evidence {
    let mut evidence = Evidence {
        kills: BTreeMap::from([(Target::Broker, 5), (Target::WorkerChild, 15)]),
        answers: [("202 ", 2_100), ("503 broker_unavailable", 7), ("none", 3)]
            .map(|(answer, count)| (answer.to_owned(), count))
            .into(),
        seconds: 60,
        ..Evidence::default()
    };
    for n in 0..2_100 {
        let submission = Submission::draw(1, n);
        let id = TaskId::generate();
        let end = end_of(&submission, id);
        if end.state == State::Failed {
            evidence.letters.insert(id, 1);
        }
        if end.state == State::Succeeded && submission.kind.leaves_trace() {
            evidence.runs.insert(id, 1);
        }
        evidence.endings.insert(id, vec![end]);
        for child in submission.kind.offspring(id) {
            evidence.endings.insert(child, vec![plain(child, json!({ "attempt": 1 }))]);
            evidence.runs.insert(child, 1);
        }
        evidence.entries.push(Entry { submission, promised: vec![id], denials: 0 });
    }
    for slot in 0..30 {
        let id = TaskId::derive_from(slot * 2_000, &[b"slot"]);
        evidence.endings.insert(id, vec![plain(id, json!({ "note": SLOT_NOTE }))]);
        evidence.runs.insert(id, 1);
    }
    evidence
}

/// A task that nobody submitted, and that succeeded.
fn plain(id: TaskId, result: serde_json::Value) -> Ending {
    let enqueued_at = Timestamp::from_unix_ms(1_000_000);
    let ended_at = Some(enqueued_at.plus_ms(1));
    let attempt = Try { n: 1, started_at: enqueued_at, ended_at, has_succeeded: true, has_failed: false };
    Ending {
        id,
        state: State::Succeeded,
        result: Some(result),
        why: String::new(),
        key: None,
        attempts: vec![attempt],
        enqueued_at,
        finished_at: Some(enqueued_at.plus_ms(1)),
    }
}

fn end_of(submission: &Submission, id: TaskId) -> Ending {
    let n = match submission.kind {
        Kind::FailUntil(times) => times,
        Kind::RetryAfter | Kind::Effects(_) => 2,
        _ => 1,
    };
    let state = match submission.kind {
        Kind::FailForGood | Kind::Doomed => State::Failed,
        Kind::Discard => State::Cancelled,
        _ => State::Succeeded,
    };
    let told = json!({ "mode": submission.body["mode"], "note": submission.note, "attempt": n, "pid": 1 });
    let result = match submission.kind {
        Kind::Echo => submission.body.clone(),
        Kind::Effects(keys) => json!({ "by_attempt": vec![1; keys as usize], "by_the_last": 0 }),
        _ => told,
    };
    let has_succeeded = state == State::Succeeded;
    let enqueued_at = Timestamp::from_unix_ms(1_000_000);
    // Of one serial key one after the other.
    let started_at = enqueued_at.plus_ms(5_000 + submission.n * 1_000);
    let ended_at = Some(started_at.plus_ms(900));
    let started = Try { n, started_at, ended_at, has_succeeded, has_failed: false };
    let last = started;
    Ending {
        id,
        state,
        result: has_succeeded.then_some(result),
        why: String::new(),
        key: submission.key.clone(),
        attempts: (1..n)
            .map(|n| Try { n, has_succeeded: false, has_failed: true, ..started })
            .chain([last])
            .collect(),
        enqueued_at,
        finished_at: Some(enqueued_at.plus_ms(6_000)),
    }
}

/// The first task of this kind.
fn some(evidence: &Evidence, is: impl Fn(&Kind) -> bool) -> (usize, TaskId) {
    let at = evidence.entries.iter().position(|entry| is(&entry.submission.kind)).unwrap();
    (at, evidence.entries[at].promised[0])
}

fn counts(verdict: &Verdict) -> [usize; 6] {
    [
        &verdict.lost,
        &verdict.phantom,
        &verdict.corrupt,
        &verdict.double_final,
        &verdict.denied,
        &verdict.vacuous,
    ]
    .map(Vec::len)
}

#[test]
fn honest_run_is_passed() {
    let verdict = judge(&honest());
    assert!(verdict.is_passed(), "{verdict:?}");
    assert_eq!((verdict.accepted, verdict.refused, verdict.duplicates), (2_100, 0, 0));
}

#[test]
fn ledger_with_a_lost_task_is_refused() {
    let mut evidence = honest();
    let (_, id) = some(&evidence, |kind| *kind == Kind::Ok);
    evidence.endings.remove(&id);
    let verdict = judge(&evidence);
    assert_eq!(counts(&verdict), [1, 0, 0, 0, 0, 0], "{verdict:?}");
    assert!(!verdict.is_passed() && verdict.lost[0].contains(&id.to_string()));
}

#[test]
fn outcome_that_nobody_submitted_is_a_phantom() {
    let mut evidence = honest();
    let stranger = end_of(&Submission::draw(2, 0), TaskId::generate());
    evidence.endings.insert(stranger.id, vec![stranger]);
    assert_eq!(counts(&judge(&evidence)), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn run_that_neither_promise_nor_record_knows_is_a_phantom() {
    let mut evidence = honest();
    evidence.runs.insert(TaskId::generate(), 1);
    assert_eq!(counts(&judge(&evidence)), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn results_of_others_wrong_states_and_early_starts_are_corrupt() {
    type Corruption = (fn(&Kind) -> bool, fn(&mut Ending));
    let corrupting: [Corruption; 6] = [
        (
            |kind| *kind == Kind::Ok,
            |end| end.result = Some(json!({ "mode": "ok", "note": "s0-0", "attempt": 1 })),
        ),
        (|kind| *kind == Kind::Echo, |end| end.result = Some(json!({}))),
        (|kind| *kind == Kind::Sleep, |end| end.state = State::Expired),
        (|kind| *kind == Kind::Ok, |end| end.attempts.push(end.attempts[0])),
        (|kind| matches!(kind, Kind::FailUntil(_)), |end| end.attempts.last_mut().unwrap().n = 1),
        (|kind| matches!(kind, Kind::Delayed(_)), |end| end.attempts[0].started_at = end.enqueued_at),
    ];
    for (at, (is, corrupt)) in corrupting.into_iter().enumerate() {
        let mut evidence = honest();
        let (_, id) = some(&evidence, is);
        corrupt(&mut evidence.endings.get_mut(&id).unwrap()[0]);
        let verdict = judge(&evidence);
        assert_eq!(counts(&verdict), [0, 0, 1, 0, 0, 0], "corruption {at}: {verdict:?}");
    }
}

#[test]
fn success_without_a_run_and_failure_without_a_letter_are_corrupt() {
    let mut evidence = honest();
    evidence.runs.remove(&some(&evidence, |kind| *kind == Kind::Ok).1);
    evidence.letters.remove(&some(&evidence, |kind| *kind == Kind::FailForGood).1);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 2, 0, 0, 0]);
}

#[test]
fn letters_of_what_did_not_fail_and_of_what_never_ended_are_found_whoever_submitted_it() {
    let mut evidence = honest();
    let (_, parent) = some(&evidence, |kind| matches!(kind, Kind::Children(_)));
    evidence.letters.insert(TaskId::derive(parent, 0), 1);
    evidence.letters.insert(some(&evidence, |kind| *kind == Kind::FailForGood).1, 2);
    evidence.letters.insert(TaskId::generate(), 1);
    assert_eq!(counts(&judge(&evidence)), [0, 1, 2, 0, 0, 0]);
}

#[test]
fn tasks_of_one_serial_key_that_ran_at_the_same_time_are_corrupt() {
    let mut evidence = honest();
    let of_key = |entry: &&Entry| entry.submission.serial() == Some("k1");
    let ids: Vec<TaskId> =
        evidence.entries.iter().filter(of_key).take(2).map(|entry| entry.promised[0]).collect();
    let first = evidence.endings[&ids[0]][0].attempts[0];
    let second = &mut evidence.endings.get_mut(&ids[1]).unwrap()[0].attempts[0];
    second.started_at = first.started_at.plus_ms(100);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 1, 0, 0, 0]);
    evidence.endings.get_mut(&ids[0]).unwrap()[0].attempts[0].ended_at = Some(first.started_at.plus_ms(140));
    assert_eq!(counts(&judge(&evidence)), [0; 6], "clocks may differ so much");
}

#[test]
fn answer_that_is_neither_promise_nor_refusal_for_now_is_told() {
    let mut evidence = honest();
    evidence.answers.insert("500 internal".to_owned(), 1);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 0, 1, 0]);
}

#[test]
fn kind_of_task_that_was_never_accepted_proves_nothing() {
    let mut evidence = honest();
    for entry in evidence.entries.iter_mut().filter(|entry| entry.submission.kind == Kind::Discard) {
        entry.promised.clear();
    }
    let verdict = judge(&evidence);
    assert_eq!(counts(&verdict), [0, 0, 0, 0, 0, 1]);
    assert!(verdict.vacuous[0].contains("Discard"), "{verdict:?}");
}

#[test]
fn second_end_second_task_and_second_promise_are_double_final() {
    let mut evidence = honest();
    let (_, id) = some(&evidence, |kind| *kind == Kind::Ok);
    let mut again = evidence.endings[&id][0].clone();
    again.finished_at = again.finished_at.map(|at| at.plus_ms(1));
    evidence.endings.get_mut(&id).unwrap().push(again);

    let (_, first) = some(&evidence, |kind| *kind == Kind::RetryAfter);
    let twin = Ending { id: TaskId::generate(), ..evidence.endings[&first][0].clone() };
    evidence.runs.insert(twin.id, 1);
    evidence.endings.insert(twin.id, vec![twin]);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 2, 0, 0]);

    let (at, _) = some(&evidence, |kind| *kind == Kind::Sleep);
    evidence.entries[at].promised.push(TaskId::generate());
    assert_eq!(counts(&judge(&evidence)), [1, 0, 0, 3, 0, 0]);
}

#[test]
fn refused_submission_may_end_once_or_never() {
    let mut evidence = honest();
    let (at, id) = some(&evidence, |kind| *kind == Kind::Ok);
    evidence.entries[at].promised.clear();
    assert_eq!((counts(&judge(&evidence)), judge(&evidence).refused_and_ended), ([0; 6], 1));
    evidence.endings.remove(&id);
    evidence.runs.remove(&id);
    assert_eq!((counts(&judge(&evidence)), judge(&evidence).refused_and_ended), ([0; 6], 0));
}

#[test]
fn promised_task_that_the_api_denies_is_refused() {
    let mut evidence = honest();
    evidence.entries[0].denials = 1;
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 0, 1, 0]);
}

#[test]
fn run_in_which_too_little_happened_is_refused() {
    let mut evidence = honest();
    evidence.kills = BTreeMap::from([(Target::Broker, 4), (Target::Api, 15)]);
    evidence.seconds = 61;
    evidence.left_over = 1;
    let few = evidence.entries.len() - 200;
    evidence.entries.truncate(few);
    let known_of = |entry: &Entry| {
        let id = entry.promised[0];
        [vec![id], entry.submission.kind.offspring(id)].concat()
    };
    let known: BTreeSet<TaskId> = evidence.entries.iter().flat_map(known_of).collect();
    evidence.endings.retain(|id, ends| known.contains(id) || ends[0].note() == Some(SLOT_NOTE));
    evidence.runs.retain(|id, _| evidence.endings.contains_key(id));
    evidence.letters.retain(|id, _| evidence.endings.contains_key(id));
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 0, 0, 4]);
}

#[test]
fn good_ends_beyond_the_first_are_counted_and_allowed() {
    let mut evidence = honest();
    let (_, id) = some(&evidence, |kind| *kind == Kind::Ok);
    evidence.runs.insert(id, 3);
    let verdict = judge(&evidence);
    assert!(verdict.is_passed());
    assert_eq!(verdict.duplicates, 2);
}

#[test]
fn success_whose_child_never_ended_and_failure_whose_hook_did_not_run_are_refused() {
    let mut evidence = honest();
    let (_, parent) = some(&evidence, |kind| matches!(kind, Kind::Children(_)));
    evidence.endings.remove(&TaskId::derive(parent, 0));
    let (_, doomed) = some(&evidence, |kind| *kind == Kind::Doomed);
    evidence.runs.remove(&Kind::Doomed.offspring(doomed)[0]);
    assert_eq!(counts(&judge(&evidence)), [1, 0, 1, 0, 0, 0]);
}

#[test]
fn child_of_nobody_is_a_phantom() {
    let mut evidence = honest();
    let (_, id) = some(&evidence, |kind| *kind == Kind::Ok);
    let child = TaskId::derive(id, 0);
    evidence.endings.insert(child, vec![plain(child, json!({ "attempt": 1 }))]);
    assert_eq!(counts(&judge(&evidence)), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn slot_that_became_two_tasks_and_a_schedule_that_did_not_fire_are_refused() {
    let mut evidence = honest();
    let second = TaskId::derive_from(4_000, &[b"the same slot"]);
    evidence.endings.insert(second, vec![plain(second, json!({ "note": SLOT_NOTE }))]);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 1, 0, 0]);
    let mut evidence = honest();
    evidence.endings.retain(|_, ends| ends[0].note() != Some(SLOT_NOTE));
    evidence.runs.retain(|id, _| evidence.endings.contains_key(id));
    assert_eq!(counts(&judge(&evidence)), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn thing_that_was_done_again_after_it_was_recorded_is_refused_unless_its_attempt_was_lost() {
    let mut evidence = honest();
    let (_, id) = some(&evidence, |kind| matches!(kind, Kind::Effects(_)));
    let end = &mut evidence.endings.get_mut(&id).unwrap()[0];
    end.result.as_mut().unwrap()["by_the_last"] = json!(1);
    assert_eq!(counts(&judge(&evidence)), [0, 0, 1, 0, 0, 0]);
    evidence.endings.get_mut(&id).unwrap()[0].attempts[0].has_failed = false;
    assert_eq!(counts(&judge(&evidence)), [0; 6]);
}
