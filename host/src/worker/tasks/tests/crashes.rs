//! What a dead child's supervisor says of its tasks, and what the next holder makes of it.

use super::super::history;
use super::super::obituary::close;
use super::*;
use crate::crash::{Entry, Kind};
use crate::process::{Death, Fate};
use cardcage_protocol::{Cause, FollowUp, State};

pub(super) fn entry(envelope: &TaskEnvelope, attempt: u32) -> Entry {
    Entry {
        kind: Kind::Task,
        id: *envelope.id.as_bytes(),
        subject: "ack".into(),
        plugin: "orders".into(),
        name: "fulfil".into(),
        attempt,
        hard_deadline_unix_ms: u64::MAX,
        since_unix_ms: Timestamp::now().unix_ms(),
    }
}

fn segv() -> Death {
    Death::Signalled("SIGSEGV".into())
}

/// Starts the task's next attempt on `w1`, which then dies.
fn die(envelope: &TaskEnvelope, record: Option<TaskRecord>, deliveries: u64, fate: Fate) -> TaskRecord {
    let (record, attempt) = match record {
        None => (TaskRecord::new(envelope, State::Queued), 1),
        Some(record) => {
            let (record, _, attempt, lost) =
                appended(decide(&arrival(envelope, deliveries), Some((record, 9)), "w1"));
            assert_eq!(lost, 0, "the delivery before is explained");
            (record, attempt)
        }
    };
    close(record, &worker("w1"), &entry(envelope, attempt), fate, &segv(), (at(0), at(50))).unwrap()
}

#[test]
fn task_that_crashes_its_worker_three_times_becomes_a_dead_letter_that_names_the_signal() {
    let envelope = envelope(1);
    let once = die(&envelope, None, 1, Fate::Crashed);
    assert_eq!((once.state, once.attempts[0].cause), (State::Queued, Some(Cause::Crashed)));
    assert!(once.attempts[0].started_at <= at(50));
    let thrice = die(&envelope, Some(die(&envelope, Some(once), 2, Fate::Crashed)), 3, Fate::Crashed);
    let plan = finished(decide(&arrival(&envelope, 4), Some((thrice, 9)), "w2"));
    let record = plan.write.unwrap().record;
    assert_eq!((record.state, record.attempts.len()), (State::Failed, 3));
    assert!(
        matches!(&plan.then[..], [FollowUp::DeadLetter { reason }] if reason.contains("3 times") && reason.contains("SIGSEGV"))
    );
}

#[test]
fn sharing_a_process_with_a_culprit_counts_towards_nothing_however_often() {
    let envelope = envelope(1);
    let mut record = die(&envelope, None, 1, Fate::Interrupted);
    for deliveries in 2..30 {
        record = die(&envelope, Some(record), deliveries, Fate::Interrupted);
    }
    assert_eq!((history::crashed(&record), history::lost(&record), history::counted(&record)), (0, 0, 0));
}

#[test]
fn delivery_that_was_handed_back_unstarted_is_neither_an_attempt_nor_a_loss() {
    let envelope = envelope(1);
    let record = die(&envelope, None, 1, Fate::Unstarted);
    assert_eq!((record.attempts.len(), record.handed_back, record.state), (0, 1, State::Queued));
    let (record, _, attempt, lost) = appended(decide(&arrival(&envelope, 2), Some((record, 3)), "w2"));
    assert_eq!((attempt, lost, record.attempts.len()), (1, 0, 1));
}

#[test]
fn attempt_of_an_earlier_child_that_nobody_ended_is_lost_and_not_taken_for_one_that_never_started() {
    let envelope = envelope(1);
    let queued = TaskRecord::new(&envelope, State::Queued);
    // Announced at 5,000 ms: by this child, or by one before it.
    let (announced, ..) = appended(decide(&arrival(&envelope, 2), Some((queued, 3)), "w1"));
    for (born, causes) in
        [(at(4_900), vec![Some(Cause::LeaseLost)]), (at(5_100), vec![Some(Cause::LeaseLost); 2])]
    {
        let (record, entry) = (announced.clone(), entry(&envelope, 0));
        let record =
            close(record, &worker("w1"), &entry, Fate::Unstarted, &segv(), (born, at(5_900))).unwrap();
        let found: Vec<_> = record.attempts.iter().map(|attempt| attempt.cause).collect();
        assert_eq!((found, record.state, record.handed_back), (causes, State::Queued, 1));
    }
}

#[test]
fn suspicion_lasts_until_an_attempt_comes_to_its_own_end() {
    let envelope = envelope(1);
    let suspected = die(&envelope, None, 1, Fate::Suspected);
    assert!(history::is_suspect(&suspected) && history::crashed(&suspected) == 0);
    let again = die(&envelope, Some(suspected), 2, Fate::Interrupted);
    assert!(history::is_suspect(&again), "it was cut off before it proved anything");
    let mut crashed = die(&envelope, Some(again), 3, Fate::Crashed);
    assert!(history::is_suspect(&crashed), "what crashes where nobody polls it must run alone to be known");
    crashed.attempts.last_mut().unwrap().cause = Some(Cause::Error);
    assert!(!history::is_suspect(&crashed));
}

#[test]
fn an_end_that_is_recorded_or_somebody_elses_is_left_alone() {
    let envelope = envelope(1);
    let say = |record: TaskRecord| {
        close(record, &worker("w1"), &entry(&envelope, 1), Fate::Crashed, &segv(), (at(0), at(50)))
    };
    let mut done = TaskRecord::new(&envelope, State::Succeeded);
    done.finished_at = Some(at(1));
    assert!(say(done).is_none());
    let known = die(&envelope, None, 1, Fate::Interrupted);
    assert!(say(known.clone()).is_none(), "it was said before");
    let (others, ..) = appended(decide(&arrival(&envelope, 2), Some((known, 9)), "w2"));
    assert!(say(others).is_none());
}

#[test]
fn task_that_must_not_be_started_twice_fails_whatever_cut_its_attempt_off() {
    let envelope = envelope(1);
    for (fate, code, how) in [
        (Fate::Crashed, "crashed", "SIGSEGV"),
        (Fate::Suspected, "interrupted", "SIGSEGV"),
        (Fate::Interrupted, "interrupted", "only shared its process"),
        (Fate::Lost, "lease_lost", "SIGSEGV"),
    ] {
        let record = die(&envelope, None, 1, fate);
        let arrival = arrival(&envelope, 2);
        let decision = consider(&arrival, Some((record, 9)), &worker("w2"), &worker("unknown"), &ONCE);
        let plan = finished(decision);
        let record = plan.write.unwrap().record;
        assert_eq!((record.state, record.attempts.len()), (State::Failed, 1), "{fate:?}");
        assert_eq!(record.error.unwrap().code, code, "{fate:?}");
        let [FollowUp::DeadLetter { reason }] = &plan.then[..] else { panic!("{:?}", plan.then) };
        assert!(reason.contains(how) && reason.contains("on_lost"), "{reason}");
    }
    // It was handed back unstarted, or ended by itself and is tried again.
    let unstarted = die(&envelope, None, 1, Fate::Unstarted);
    let timed_out = die(&envelope, None, 1, Fate::TimedOut);
    for (record, is_started) in [(unstarted, true), (timed_out, false)] {
        let arrival = arrival(&envelope, 2);
        match consider(&arrival, Some((record, 9)), &worker("w2"), &worker("unknown"), &ONCE) {
            Decision::Append { attempt: 1, .. } => assert!(is_started),
            Decision::Finish(plan) => {
                assert!(!is_started && matches!(plan.then[..], [FollowUp::ScheduleRetry { attempt: 2, .. }]));
            }
            other => panic!("{other:?}"),
        }
    }
}
