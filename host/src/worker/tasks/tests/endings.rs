use super::super::ending::{Ended, Facts, end, still_mine};
use super::super::plan::Last;
use super::*;
use crate::config::Tasks;
use crate::loader::{Outcome, TaskDescription};
use cardcage_protocol::{Cause, FollowUp, Parking, State, limits};

fn said(text: &str) -> Bytes {
    Bytes::from(format!("{{\"message\":\"{text}\",\"details\":{{\"code\":7}}}}"))
}

fn ended_with(ended: &Ended) -> Plan {
    ended_after(1, None, ended)
}

fn ended_after(n: u32, record: Option<TaskRecord>, ended: &Ended) -> Plan {
    let (envelope, me) = (envelope(1), worker("w1"));
    let (started_at, ended_at) = (at(10), at(30));
    let facts = Facts {
        envelope: &envelope,
        me: &me,
        attempt: n,
        message: 1,
        schema: "s",
        started_at,
        ended_at,
        told: false,
    };
    end(&facts, record.map(Box::new), 5, ended, &LIMITS, &mut fastrand::Rng::with_seed(3))
}

fn outcome(outcome: Outcome) -> Ended {
    Ended::Handler(outcome)
}

#[test]
fn success_is_one_record_with_the_result_and_nothing_owed() {
    let plan = ended_with(&outcome(Outcome::Succeeded(Bytes::from_static(b"{\"a\": [1]}"))));
    let write = plan.write.unwrap();
    assert_eq!((write.record.state, write.fence, plan.last), (State::Succeeded, 5, Last::Done));
    assert_eq!(write.record.result.unwrap().get(), "{\"a\": [1]}");
    assert!(plan.then.is_empty() && write.record.error.is_none());
    let attempt = &write.record.attempts[0];
    assert_eq!((attempt.n, attempt.cause, attempt.started_at), (1, Some(Cause::Succeeded), at(10)));
    assert_eq!(attempt.ended_at, Some(at(30)));
}

#[test]
fn a_result_that_cannot_be_kept_fails_without_a_retry() {
    for (result, code) in
        [("\"xxx", "result_not_json"), ("", "result_not_json"), (&"1".repeat(101), "result_too_large")]
    {
        let plan = ended_with(&outcome(Outcome::Succeeded(Bytes::from(result.to_owned()))));
        let record = plan.write.unwrap().record;
        assert_eq!((record.state, record.error.unwrap().code.as_str()), (State::Failed, code));
        assert!(matches!(&plan.then[..], [FollowUp::DeadLetter { .. }]));
    }
}

#[test]
fn what_may_work_later_is_tried_again_and_what_may_not_is_not() {
    let again = [
        (outcome(Outcome::Retry(said("busy"))), Cause::Error),
        (outcome(Outcome::RetryAfter(7_000, said("later"))), Cause::RetryRequested),
        (outcome(Outcome::Panicked(said("boom"))), Cause::Panic),
        (outcome(Outcome::Dropped), Cause::Error),
        (Ended::TimedOut, Cause::Timeout),
    ];
    for (ended, cause) in again {
        let plan = ended_with(&ended);
        let record = plan.write.unwrap().record;
        assert_eq!((record.state, record.attempts[0].cause), (State::Retrying, Some(cause)), "{ended:?}");
        let next_at = record.next_at.unwrap();
        assert_eq!(plan.then, [FollowUp::ScheduleRetry { attempt: 2, at: next_at }]);
        assert_eq!(record.follow_up, plan.then);
        assert!(record.finished_at.is_none() && record.error.is_none());
    }
    let over = [
        (Outcome::Failed(said("no")), State::Failed, Cause::Error, 1),
        (Outcome::Discarded(said("old")), State::Cancelled, Cause::Discarded, 0),
    ];
    for (ended, state, cause, letters) in over {
        let plan = ended_with(&outcome(ended));
        assert_eq!(plan.then.len(), letters);
        let record = plan.write.unwrap().record;
        assert_eq!((record.state, record.follow_up.len()), (state, letters));
        assert_eq!(record.attempts[0].cause, Some(cause));
        assert!(record.finished_at.is_some() && record.error.is_some());
    }
}

#[test]
fn a_body_that_this_version_cannot_decode_is_parked_and_was_no_attempt() {
    let retrying = ended_with(&outcome(Outcome::Retry(said("busy")))).write.unwrap().record;
    let plan = ended_after(2, Some(retrying), &outcome(Outcome::Undecodable(said("what"))));
    let record = plan.write.unwrap().record;
    assert_eq!((record.state, plan.last, &plan.then[..]), (State::Parked, Last::Done, &[FollowUp::Park][..]));
    assert_eq!(record.attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1]);
    assert_eq!(record.parked, Some(Parking::of(1, vec!["s".into()], None)));
    assert_eq!(record.error.as_ref().map(|error| error.code.as_str()), Some("undecodable"));

    // The parked message comes again: it is parked again, and never started. Once the task has come back it is dropped.
    let mut envelope = envelope(1);
    envelope.attempt = 2;
    let redo = finished(decide(&arrival(&envelope, 2), Some((record.clone(), 9)), "w2"));
    assert!(redo.write.is_none() && redo.then == [FollowUp::Park]);
    for state in [State::Queued, State::Running] {
        let back = TaskRecord { state, follow_up: Vec::new(), ..record.clone() };
        let dropped = finished(decide(&arrival(&envelope, 2), Some((back, 9)), "w2"));
        assert!(dropped.write.is_none() && dropped.then.is_empty() && dropped.last == Last::Done);
    }
    // The message that came back is another one.
    let back = crate::unpark::queued(record);
    let arrival = Arrival { message: 2, ..arrival(&envelope, 1) };
    let (record, _, attempt, lost) = appended(decide(&arrival, Some((back, 9)), "w2"));
    assert_eq!((record.state, attempt, lost), (State::Running, 2, 0));
    assert!(record.parked.is_some_and(|parked| parked.message == 1 && !parked.back));
}

#[test]
fn the_handlers_delay_wins_over_the_backoff_and_is_bounded() {
    let delay = |ms| {
        let plan = ended_with(&outcome(Outcome::RetryAfter(ms, said("later"))));
        plan.write.unwrap().record.next_at.unwrap().unix_ms() - at(30).unix_ms()
    };
    assert_eq!(delay(7_000), 7_000);
    assert_eq!(delay(0), 0);
    assert_eq!(delay(u64::MAX), limits::RETRY_DELAY_MAX_MS);
}

#[test]
fn the_last_attempt_that_counts_makes_a_dead_letter_with_its_error() {
    let mut record = ended_with(&outcome(Outcome::Retry(said("first")))).write.unwrap().record;
    record = ended_after(2, Some(record), &Ended::TimedOut).write.unwrap().record;
    assert_eq!(record.state, State::Retrying);
    let plan = ended_after(3, Some(record), &outcome(Outcome::Panicked(said("boom"))));
    let record = plan.write.unwrap().record;
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.error.as_ref().unwrap().message, "boom");
    let reason = "all 3 attempts are used up; the last one: boom".to_owned();
    assert_eq!(plan.then, [FollowUp::DeadLetter { reason }]);
    assert_eq!(record.next_at, None);
}

#[test]
fn losses_and_interruptions_use_up_no_attempt() {
    let mut record = ended_with(&Ended::Interrupted).write.unwrap().record;
    for n in 2..=5 {
        record = ended_after(n, Some(record), &Ended::Interrupted).write.unwrap().record;
    }
    record.attempts[0].cause = Some(Cause::LeaseLost);
    record.attempts[1].cause = Some(Cause::Crashed);
    record = ended_after(6, Some(record), &outcome(Outcome::Retry(said("busy")))).write.unwrap().record;
    assert_eq!(record.state, State::Retrying, "the first of three that counts");
    let delay = record.next_at.unwrap().unix_ms() - at(30).unix_ms();
    assert!((500..=1_000).contains(&delay), "and the backoff is the first one: {delay}");
}

#[test]
fn an_interrupted_attempt_is_recorded_and_handed_back() {
    let plan = ended_with(&Ended::Interrupted);
    assert_eq!(plan.last, Last::HandBack);
    let record = plan.write.unwrap().record;
    assert_eq!((record.state, record.attempts[0].cause), (State::Queued, Some(Cause::Interrupted)));
    assert!(plan.then.is_empty() && record.finished_at.is_none());
}

#[test]
fn any_bytes_are_an_error_and_stay_small() {
    let texts = [
        Bytes::from(vec![0xff; 5_000_000]),
        Bytes::from(format!("{{\"message\":\"{}\"}}", "é".repeat(2_500_000))),
        Bytes::from_static(b""),
        Bytes::from_static(b"{\"message\":7}"),
        Bytes::from(format!("{{\"message\":\"x\",\"details\":\"{}\"}}", "y".repeat(100_000))),
    ];
    for text in texts {
        let mut record = ended_with(&outcome(Outcome::Failed(text))).write.unwrap().record;
        let error = record.error.clone().unwrap();
        assert!(error.message.len() <= limits::LAST_ERROR_MAX_BYTES && error.details.is_none());
        assert!(record.encode().unwrap().len() < 80_000);
    }
}

#[test]
fn what_is_no_text_in_an_error_does_not_cost_the_rest_of_it() {
    let text = Bytes::from_static(b"{\"message\":\"caf\xe9 is closed\",\"details\":{\"until\":7}}");
    let error = ended_with(&outcome(Outcome::Failed(text))).write.unwrap().record.error.unwrap();
    assert_eq!(error.message, "caf\u{fffd} is closed");
    assert_eq!(error.details.unwrap()["until"], 7);
}

#[test]
fn a_refused_write_is_merged_while_the_attempt_is_still_ours_and_dropped_otherwise() {
    let (envelope, me) = (envelope(1), worker("w1"));
    let facts = |attempt| Facts {
        envelope: &envelope,
        me: &me,
        attempt,
        message: 1,
        schema: "s",
        started_at: at(10),
        ended_at: at(30),
        told: false,
    };
    let (mine, ..) = appended(decide(&arrival(&envelope, 2), None, "w1"));
    // Somebody touched the record, and left the attempt alone.
    let standing = still_mine(&facts(2), true, Some((mine.clone(), 8))).unwrap();
    assert_eq!((standing.attempt, standing.fence), (2, 8));
    let plan =
        end(&facts(2), standing.record, 8, &Ended::TimedOut, &LIMITS, &mut fastrand::Rng::with_seed(1));
    assert_eq!(plan.write.unwrap().record.attempts.len(), 2);
    // Another worker took over.
    let (taken, ..) = appended(decide(&arrival(&envelope, 3), Some((mine.clone(), 8)), "w2"));
    assert!(still_mine(&facts(2), true, Some((taken, 9))).is_none());
    // Another worker found no trace of the happy path's attempt, and took over.
    assert!(still_mine(&facts(1), false, Some((mine.clone(), 8))).is_none());
    // It has ended.
    let mut cancelled = mine;
    cancelled.state = State::Cancelled;
    assert!(still_mine(&facts(2), true, Some((cancelled, 9))).is_none());
    // A mark on a task that runs on the happy path.
    let marked = TaskRecord::new(&envelope, State::Queued);
    assert_eq!(still_mine(&facts(1), false, Some((marked, 4))).unwrap().fence, 4);
    // Gone.
    assert_eq!(still_mine(&facts(1), false, None).unwrap().fence, 0);
}

fn cancelled(told: bool, asked_at: u64, ended: &Ended) -> Plan {
    let (envelope, me) = (envelope(1), worker("w1"));
    let mut record = TaskRecord::new(&envelope, State::Queued);
    record.cancel_requested_at = Some(at(asked_at));
    let (started_at, ended_at) = (at(10), at(30));
    let facts = Facts {
        envelope: &envelope,
        me: &me,
        attempt: 1,
        message: 1,
        schema: "s",
        started_at,
        ended_at,
        told,
    };
    end(&facts, Some(Box::new(record)), 5, ended, &LIMITS, &mut fastrand::Rng::with_seed(3))
}

#[test]
fn a_cancelled_attempt_is_not_tried_again_nor_handed_back_and_leaves_no_letter() {
    let ends = [
        outcome(Outcome::Retry(said("busy"))),
        outcome(Outcome::RetryAfter(7_000, said("later"))),
        outcome(Outcome::Panicked(said("boom"))),
        outcome(Outcome::Failed(said("no"))),
        outcome(Outcome::Discarded(said("stopped"))),
        outcome(Outcome::Undecodable(said("what"))),
        outcome(Outcome::Dropped),
        Ended::TimedOut,
        Ended::Interrupted,
        Ended::Cancelled,
    ];
    // Told or not, before its start or after it.
    for (told, asked_at) in [(true, 20), (false, 20), (false, 5)] {
        for ended in &ends {
            let plan = cancelled(told, asked_at, ended);
            let record = plan.write.unwrap().record;
            assert_eq!((record.state, plan.last), (State::Cancelled, Last::Done), "{ended:?}");
            assert_eq!(record.attempts[0].cause, Some(Cause::Cancelled), "{ended:?}");
            assert!(plan.then.is_empty() && record.finished_at.is_some() && record.error.is_some());
        }
    }
}

#[test]
fn the_result_of_a_cancelled_attempt_stands_unless_nobody_told_it_of_what_came_before_it() {
    let result = outcome(Outcome::Succeeded(Bytes::from_static(b"1")));
    let state = |told, asked_at| cancelled(told, asked_at, &result).write.unwrap().record.state;
    assert_eq!(state(true, 5), State::Succeeded);
    assert_eq!(state(false, 20), State::Succeeded);
    assert_eq!(state(false, 5), State::Cancelled);
    let too_large = outcome(Outcome::Succeeded(Bytes::from("1".repeat(101))));
    assert_eq!(cancelled(true, 20, &too_large).write.unwrap().record.state, State::Cancelled);
}

#[test]
fn the_authors_limits_stand_beside_the_operators_and_the_hard_limit_is_the_shorter_one() {
    let settings: Tasks = serde_json::from_value(serde_json::json!({
        "lease_ms": 30_000, "timeout_ms": 600_000, "cancel_grace_ms": 10_000, "max_attempts": 5, "backoff": "1s..5m", "crash_limit": 3,
        "lost_limit": 10, "quarantine_after": 5, "quarantine_window_s": 600, "body_max_bytes": 524_288, "result_max_bytes": 262_144, "result_ttl_s": 86_400,
        "idempotency_ttl_s": 604_800, "dead_max_age_s": 2_592_000, "ack_pending_max": 10_000, "schedule_absent_s": 86_400,
    }))
    .unwrap();
    let mut task: TaskDescription = serde_json::from_str("{\"name\":\"t\",\"input_schema\":{}}").unwrap();
    let limits = TaskLimits::of(&task, &settings);
    assert_eq!(limits.retry, RetryPolicy { max_attempts: 5, initial_ms: 1_000, max_ms: 300_000 });
    assert_eq!(limits.timeout, Duration::from_secs(600));
    task.max_attempts = Some(8);
    task.backoff_initial_ms = Some(900_000);
    task.timeout_ms = Some(30_000);
    let limits = TaskLimits::of(&task, &settings);
    assert_eq!(limits.retry, RetryPolicy { max_attempts: 8, initial_ms: 900_000, max_ms: 900_000 });
    assert_eq!(limits.timeout, Duration::from_secs(30));
    task.timeout_ms = Some(86_400_000);
    task.max_attempts = Some(0);
    let limits = TaskLimits::of(&task, &settings);
    assert_eq!((limits.timeout, limits.retry.max_attempts), (Duration::from_secs(600), 1));
}

#[test]
fn time_scale_shortens_every_wait_between_attempts_and_nothing_else() {
    let limits = LIMITS.scaled(TimeScale::new(0.01).unwrap());
    assert_eq!(limits.retry, RetryPolicy { max_attempts: 3, initial_ms: 10, max_ms: 600 });
    assert_eq!(limits.timeout, LIMITS.timeout);
    let envelope = envelope(1);
    let me = worker("w1");
    let facts = Facts {
        envelope: &envelope,
        me: &me,
        attempt: 1,
        message: 1,
        schema: "s",
        started_at: at(0),
        ended_at: at(0),
        told: false,
    };
    let asked = Ended::Handler(Outcome::RetryAfter(7_000, Bytes::from_static(b"later")));
    let plan = end(&facts, None, 0, &asked, &limits, &mut fastrand::Rng::with_seed(1));
    assert_eq!(plan.write.unwrap().record.next_at, Some(at(70)));
}

#[test]
fn attempt_that_its_handler_gives_up_after_its_soft_limit_says_so_and_counts_as_ever() {
    let limits = TaskLimits { soft_timeout: Some(Duration::from_millis(50)), ..LIMITS };
    let gave_up = Ended::Handler(Outcome::Retry(Bytes::from_static(b"half done")));
    let code = |ended: &Ended, ended_at| {
        let envelope = envelope(1);
        let me = worker("w1");
        let facts = Facts {
            envelope: &envelope,
            me: &me,
            attempt: 1,
            message: 1,
            schema: "s",
            started_at: at(0),
            ended_at,
            told: false,
        };
        let plan = end(&facts, None, 0, ended, &limits, &mut fastrand::Rng::with_seed(1));
        let record = plan.write.unwrap().record;
        (record.state, record.attempts[0].error.clone().map(|error| error.code.to_string()))
    };
    assert_eq!(code(&gave_up, at(50)), (State::Retrying, Some("soft_timeout".to_owned())));
    assert_eq!(code(&gave_up, at(49)).1.as_deref(), Some("error"));
    let done = Ended::Handler(Outcome::Succeeded(Bytes::from_static(b"1")));
    assert_eq!(code(&done, at(500)), (State::Succeeded, None));
    assert_eq!(code(&Ended::TimedOut, at(10_000)).1.as_deref(), Some("timeout"));
}
