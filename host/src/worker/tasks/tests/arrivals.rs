use super::super::arrival::{Meeting, Reception, Standing, may_come_twice, meet, receive};
use super::super::ending::{Ended, Facts, end};
use super::super::held::Message;
use super::super::plan::Last;
use super::super::unreadable::{self, Unreadable};
use super::*;
use crate::loader::Outcome;
use cardcage_protocol::{Attempt, Cause, EnvelopeError, FollowUp, State, Subjects};

/// The record after attempt `n` of `me` ended so, on top of `record`.
fn after(envelope: &TaskEnvelope, me: &str, n: u32, record: Option<TaskRecord>, ended: &Ended) -> TaskRecord {
    let me = worker(me);
    let facts = Facts {
        envelope,
        me: &me,
        attempt: n,
        message: 1,
        schema: "s",
        started_at: at(0),
        ended_at: at(100),
        told: false,
    };
    let mut rng = fastrand::Rng::with_seed(1);
    end(&facts, record.map(Box::new), 0, ended, &LIMITS, &mut rng).write.unwrap().record
}

fn retry() -> Ended {
    Ended::Handler(Outcome::Retry(Bytes::from_static(b"{\"message\":\"busy\"}")))
}

fn causes(record: &TaskRecord) -> Vec<(u32, Option<Cause>)> {
    record.attempts.iter().map(|attempt| (attempt.n, attempt.cause)).collect()
}

#[test]
fn a_first_delivery_of_a_first_attempt_starts_without_a_read() {
    let envelope = envelope(1);
    let received = receive(&arrival(&envelope, 1), false);
    assert!(matches!(received, Reception::Start(Standing { attempt: 1, record: None, fence: 0 })));
    for (num_delivered, settling) in [(2, false), (1, true)] {
        assert!(matches!(receive(&arrival(&envelope, num_delivered), settling), Reception::Read));
    }
    assert!(matches!(receive(&arrival(&super::envelope(2), 1), false), Reception::Read));
}

#[test]
fn a_second_message_of_what_is_here_is_a_copy_unless_it_may_have_come_back_from_elsewhere() {
    let message = |attempt, sequence| Message { attempt, sequence };
    let plain = envelope(1);
    let unparked = TaskEnvelope { unparked: true, ..envelope(1) };
    let serial = TaskEnvelope { serial_key: Some("order-1".into()), ..envelope(1) };
    for (envelope, beside) in [(&plain, Meeting::Copy), (&unparked, Meeting::Next), (&serial, Meeting::Next)]
    {
        assert_eq!(may_come_twice(envelope), beside == Meeting::Next);
        assert_eq!(meet(envelope, message(1, 7), message(1, 7)), Meeting::Again);
        for (here, expected) in [(1, beside), (2, beside)] {
            assert_eq!(meet(envelope, message(1, 8), message(here, 7)), expected);
        }
        assert_eq!(meet(envelope, message(2, 8), message(1, 7)), Meeting::Next);
    }
}

#[test]
fn what_was_stored_in_time_starts_however_long_it_has_waited() {
    let mut envelope = envelope(1);
    envelope.accept_by = Some(at(10));
    let in_time = Arrival { stored_at: at(10), ..arrival(&envelope, 1) };
    assert!(matches!(receive(&in_time, false), Reception::Start(_)));
}

#[test]
fn a_retry_that_outlived_its_record_has_used_its_attempts_all_the_same() {
    let Decision::Append { write, attempt, .. } = decide(&arrival(&envelope(3), 1), None, "w1") else {
        panic!("it starts")
    };
    assert_eq!((attempt, super::super::history::counted(&write.record)), (3, 2));
}

#[test]
fn a_marked_task_ends_cancelled_with_whatever_delivery_comes_next() {
    let envelope = envelope(1);
    let marked = |mut record: TaskRecord| {
        record.cancel_requested_at = Some(at(50));
        record
    };
    let queued = marked(TaskRecord::new(&envelope, State::Queued));
    let retrying = || marked(after(&envelope, "w1", 1, None, &retry()));
    let next = envelope.retry();
    let due = TaskEnvelope { attempt: 2, ..next };
    let cases = [
        (arrival(&envelope, 1), queued.clone(), vec![]),
        (arrival(&envelope, 2), queued, vec![(1, Some(Cause::LeaseLost))]),
        (arrival(&due, 1), retrying(), vec![(1, Some(Cause::Error))]),
        // Its worker died before it could schedule the next attempt.
        (arrival(&envelope, 2), retrying(), vec![(1, Some(Cause::Error))]),
    ];
    for (arrival, record, left) in cases {
        let plan = finished(decide(&arrival, Some((record, 7)), "w2"));
        assert!(plan.then.is_empty(), "{plan:?}");
        let write = plan.write.unwrap();
        assert_eq!((write.record.state, write.fence, plan.last), (State::Cancelled, 7, Last::Done));
        assert_eq!(causes(&write.record), left);
    }
    // The next attempt is under way elsewhere: an old delivery says nothing about it.
    let mut running = retrying();
    running.state = State::Running;
    running.attempts.push(Attempt {
        n: 2,
        cause: None,
        ended_at: None,
        error: None,
        ..running.attempts[0].clone()
    });
    let plan = finished(decide(&arrival(&envelope, 2), Some((running, 8)), "w3"));
    assert!(plan.write.is_none() && plan.then.is_empty());
}

#[test]
fn an_expired_task_is_recorded_and_not_started() {
    let mut envelope = envelope(1);
    envelope.expires_at = Some(at(4_999));
    let Reception::Expired(plan) = receive(&arrival(&envelope, 1), false) else { panic!("not expired") };
    let write = plan.write.unwrap();
    assert_eq!((write.record.state, write.fence, plan.last), (State::Expired, 0, Last::Done));
    assert!(write.record.finished_at.is_some() && plan.then.is_empty());
    // Also after a retry.
    let mut due = envelope.retry();
    due.expires_at = Some(at(4_999));
    let record = after(&envelope, "w1", 1, None, &retry());
    let plan = finished(decide(&arrival(&due, 1), Some((record, 7)), "w2"));
    let write = plan.write.unwrap();
    assert_eq!((write.record.state, write.fence), (State::Expired, 7));
    assert_eq!(causes(&write.record), [(1, Some(Cause::Error))]);
}

#[test]
fn a_delivery_that_nobody_explains_was_lost_and_the_next_attempt_has_the_next_number() {
    let envelope = envelope(1);
    let (record, fence, attempt, lost) = appended(decide(&arrival(&envelope, 3), None, "w2"));
    assert_eq!((fence, attempt, lost, record.state), (0, 3, 2, State::Running));
    assert_eq!(causes(&record), [(1, Some(Cause::LeaseLost)), (2, Some(Cause::LeaseLost)), (3, None)]);
    assert_eq!(record.attempts[0].worker, worker("unknown"));
    assert_eq!(record.attempts[2].worker, worker("w2"));
}

#[test]
fn an_attempt_that_was_begun_and_never_ended_becomes_lost_and_is_not_counted_twice() {
    let envelope = envelope(1);
    let (record, ..) = appended(decide(&arrival(&envelope, 2), None, "w2"));
    // w2 dies as well: the third delivery is explained by w2's own entry.
    let (record, fence, attempt, lost) = appended(decide(&arrival(&envelope, 3), Some((record, 9)), "w3"));
    assert_eq!((fence, attempt, lost), (9, 3, 1));
    assert_eq!(causes(&record), [(1, Some(Cause::LeaseLost)), (2, Some(Cause::LeaseLost)), (3, None)]);
}

#[test]
fn a_task_that_loses_its_workers_too_often_becomes_a_dead_letter() {
    let envelope = envelope(1);
    let plan = finished(decide(&arrival(&envelope, 5), None, "w9"));
    let write = plan.write.unwrap();
    assert_eq!(write.record.state, State::Failed);
    assert_eq!(write.record.attempts.len(), 4);
    assert!(matches!(&plan.then[..], [FollowUp::DeadLetter { reason }] if reason.contains("4 times")));
    assert_eq!(write.record.follow_up, plan.then);
    // However high the broker counts, the record stays small.
    let plan = finished(decide(&arrival(&envelope, u64::MAX), None, "w9"));
    assert_eq!(plan.write.unwrap().record.attempts.len(), 4);
}

#[test]
fn an_interrupted_attempt_explains_its_delivery_and_counts_towards_nothing() {
    let envelope = envelope(1);
    let record = after(&envelope, "w1", 1, None, &Ended::Interrupted);
    assert_eq!(record.state, State::Queued);
    let (record, _, attempt, lost) = appended(decide(&arrival(&envelope, 2), Some((record, 3)), "w2"));
    assert_eq!((attempt, lost), (2, 0));
    assert_eq!(causes(&record), [(1, Some(Cause::Interrupted)), (2, None)]);
}

#[test]
fn a_redelivery_after_the_end_redoes_what_is_owed_and_starts_nothing() {
    let envelope = envelope(1);
    let failed = Ended::Handler(Outcome::Failed(Bytes::from_static(b"{\"message\":\"no\"}")));
    let record = after(&envelope, "w1", 1, None, &failed);
    let plan = finished(decide(&arrival(&envelope, 2), Some((record.clone(), 4)), "w2"));
    assert!(plan.write.is_none());
    assert_eq!((plan.then, plan.last), (record.follow_up, Last::Done));
    let done = after(&envelope, "w1", 1, None, &Ended::Handler(Outcome::Succeeded(Bytes::from_static(b"1"))));
    let plan = finished(decide(&arrival(&envelope, 1), Some((done, 4)), "w2"));
    assert!(plan.write.is_none() && plan.then.is_empty());
}

#[test]
fn the_old_message_of_a_scheduled_retry_redoes_the_schedule_and_the_due_one_starts() {
    let first = envelope(1);
    let record = after(&first, "w1", 1, None, &retry());
    assert_eq!(record.state, State::Retrying);
    let plan = finished(decide(&arrival(&first, 2), Some((record.clone(), 5)), "w2"));
    assert!(plan.write.is_none());
    assert!(matches!(&plan.then[..], [FollowUp::ScheduleRetry { attempt: 2, .. }]));
    let due = TaskEnvelope { attempt: 2, ..first.retry() };
    let (record, fence, attempt, lost) = appended(decide(&arrival(&due, 1), Some((record, 5)), "w2"));
    assert_eq!((fence, attempt, lost, record.state), (5, 2, 0, State::Running));
    assert!(record.follow_up.is_empty() && record.next_at.is_none());
}

#[test]
fn the_old_message_does_not_steal_the_attempt_that_came_after_it() {
    let first = envelope(1);
    let record = after(&first, "w1", 1, None, &retry());
    let due = TaskEnvelope { attempt: 2, ..first.retry() };
    let (running, ..) = appended(decide(&arrival(&due, 1), Some((record, 5)), "w2"));
    let plan = finished(decide(&arrival(&first, 2), Some((running, 6)), "w3"));
    assert!(plan.write.is_none() && plan.then.is_empty(), "the schedule was published long ago");
    assert_eq!(plan.last, Last::Done);
}

#[test]
fn while_settling_an_unknown_task_starts_on_the_happy_path_and_a_finished_one_does_not() {
    let envelope = envelope(1);
    let decision = decide(&arrival(&envelope, 1), None, "w1");
    assert!(matches!(decision, Decision::Start(Standing { attempt: 1, record: None, fence: 0 })));
    let done = after(&envelope, "w0", 1, None, &Ended::Handler(Outcome::Succeeded(Bytes::from_static(b"1"))));
    assert!(finished(decide(&arrival(&envelope, 1), Some((done, 2)), "w1")).write.is_none());
}

#[test]
fn a_due_task_whose_record_is_gone_starts_with_its_number() {
    let due = envelope(4);
    let (record, fence, attempt, lost) = appended(decide(&arrival(&due, 1), None, "w1"));
    assert_eq!((fence, attempt, lost, record.attempts.len()), (0, 4, 0, 1));
}

#[test]
fn rubbish_becomes_a_dead_letter_and_never_ends_a_living_task() {
    let subjects = Subjects::default();
    let error = EnvelopeError::Header { name: "Cardcage-Version", reason: "is missing" };
    let (plugin, task) = (Name::new("orders").unwrap(), Name::new("fulfil").unwrap());
    let big = Bytes::from(vec![b'x'; 600 * 1024]);
    let message = |subject| Unreadable {
        subject,
        stream_sequence: 9,
        stored_at: at(0),
        body: big.clone(),
        error: &error,
    };
    let nowhere = message("cardcage.task.orders.v1.fulfil.p5.not-an-id");
    let made_up = unreadable::envelope(&nowhere, &subjects, &plugin, 1, &task);
    let again = unreadable::envelope(&nowhere, &subjects, &plugin, 1, &task);
    assert_eq!(made_up.id, again.id, "whoever gets the redelivery arrives at the same id");
    assert!(made_up.check().is_ok(), "it can be published as a dead letter");
    let plan = unreadable::end(&made_up, &nowhere, None, at(9));
    let write = plan.write.unwrap();
    assert_eq!((write.record.state, write.fence), (State::Failed, 0));
    assert!(
        matches!(&plan.then[..], [FollowUp::DeadLetter { reason }] if reason.contains("Cardcage-Version"))
    );
    // Delivered again: the letter once more, and nothing else.
    let plan = unreadable::end(&made_up, &nowhere, Some((write.record, 3)), at(9));
    assert!(plan.write.is_none() && plan.then.len() == 1);
    let real = envelope(1);
    let (running, ..) = appended(decide(&arrival(&real, 2), None, "w1"));
    let plan = unreadable::end(&real, &nowhere, Some((running, 3)), at(9));
    assert!(plan.write.is_none() && plan.then.is_empty());
}
