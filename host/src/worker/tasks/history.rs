//! What a record's attempts say: which count, which were lost, which belong to a message.

use super::obituary;
use cardcage_protocol::{Attempt, Cause, FollowUp, InstanceId, State, TaskError, TaskRecord, Timestamp};

/// Attempts that count. Those that the record had no room for, or never knew, are taken to have counted, but for those of which it
/// says otherwise.
pub(super) fn counted(record: &TaskRecord) -> u32 {
    let omitted = record.attempts_omitted.saturating_sub(record.omitted.uncounted);
    omitted.saturating_add(kept(record, Cause::counts))
}

/// Attempts whose lease was lost.
pub(super) fn lost(record: &TaskRecord) -> u32 {
    record.omitted.lost.saturating_add(kept(record, |cause| cause == Cause::LeaseLost))
}

/// Attempts that crashed their worker.
pub(super) fn crashed(record: &TaskRecord) -> u32 {
    record.omitted.crashed.saturating_add(kept(record, |cause| cause == Cause::Crashed))
}

fn kept(record: &TaskRecord, is_such: impl Fn(Cause) -> bool) -> u32 {
    let kept = record.attempts.iter().filter(|attempt| attempt.cause.is_some_and(&is_such)).count();
    u32::try_from(kept).unwrap_or(u32::MAX)
}

/// How the last of them went.
pub(super) fn last_crash(record: &TaskRecord) -> &str {
    let last = record.attempts.iter().rev().find(|attempt| attempt.cause == Some(Cause::Crashed));
    last.and_then(|attempt| attempt.error.as_ref()).map_or("", |error| error.message.as_str())
}

/// Whether the task may have crashed a worker, and no attempt has come to its own end since.
pub(super) fn is_suspect(record: &TaskRecord) -> bool {
    let proves_nothing =
        |cause| matches!(cause, None | Some(Cause::Interrupted | Cause::LeaseLost | Cause::Crashed));
    let recent = record.attempts.iter().rev().take_while(|attempt| proves_nothing(attempt.cause));
    recent.filter_map(|attempt| attempt.error.as_ref()).any(|error| error.code == obituary::SUSPECTED)
}

/// The number of the latest attempt; 0 when there was none.
pub(super) fn latest(record: &TaskRecord) -> u32 {
    record.attempts.last().map_or(record.attempts_omitted, |attempt| attempt.n)
}

/// The attempts that were started from the message for attempt `message` or later.
pub(super) fn since(record: &TaskRecord, message: u32) -> impl Iterator<Item = &Attempt> {
    record.attempts.iter().filter(move |attempt| attempt.n >= message)
}

/// The attempt of the message for attempt `message` that began and that nobody let come to its end; one is enough where a task
/// must not be started twice.
pub(super) fn cut_off(record: &TaskRecord, message: u32) -> Option<&Attempt> {
    let is_cut_off = |cause| matches!(cause, Cause::LeaseLost | Cause::Crashed | Cause::Interrupted);
    since(record, message).find(|attempt| attempt.cause.is_some_and(is_cut_off))
}

/// Whether it must have its turn alone: it may have crashed a worker, and nothing has settled what becomes of it.
pub(super) fn runs_alone(record: &TaskRecord) -> bool {
    !record.state.is_final() && record.cancel_requested_at.is_none() && is_suspect(record)
}

/// Whether the message for attempt `message` has had its outcome: another message follows it, or has followed.
pub(super) fn is_concluded(record: &TaskRecord, message: u32) -> bool {
    let followed = record.follow_up.iter().any(
        |owed| matches!(owed, FollowUp::ScheduleRetry { attempt, .. } if record.state == State::Retrying && message < *attempt),
    );
    let handed_back = was_cut_off_in_full(record).then(|| latest(record));
    followed
        || since(record, message)
            .any(|attempt| Some(attempt.n) != handed_back && attempt.cause.is_some_and(Cause::counts))
}

/// Takes out an attempt that was announced and not started. The state is what it was before, as far as anyone asks:
/// `queued` after an attempt that counts would say that what follows it is undecided.
pub(super) fn withdraw(record: &mut TaskRecord) {
    record.attempts.retain(|attempt| attempt.cause.is_some());
    let is_retry = record.attempts.last().is_some_and(|attempt| attempt.cause.is_some_and(Cause::counts));
    record.state = if is_retry { State::Retrying } else { State::Queued };
}

/// Whether a supervisor ended the last attempt for its worker, and it counts: its message was handed back, and what
/// follows is still to be decided.
pub(super) fn was_cut_off_in_full(record: &TaskRecord) -> bool {
    let came_back = record.parked.as_ref().is_some_and(|parked| parked.back);
    record.state == State::Queued
        && !came_back
        && record.attempts.last().is_some_and(|attempt| attempt.cause.is_some_and(Cause::counts))
}

/// Ends an attempt that nobody ended.
pub(super) fn lose(attempt: &mut Attempt, now: Timestamp) {
    attempt.ended_at = Some(now);
    attempt.cause = Some(Cause::LeaseLost);
    attempt.error = Some(TaskError::new("lease_lost", "the worker fell silent and its lease ran out", None));
}

/// A delivery that nobody explained.
pub(super) fn unexplained(n: u32, worker: InstanceId, delivered_at: Timestamp, now: Timestamp) -> Attempt {
    let mut attempt =
        Attempt { n, worker, started_at: delivered_at, ended_at: None, cause: None, error: None };
    lose(&mut attempt, now);
    attempt
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cardcage_protocol::{Name, Priority, TaskAddress, TaskEnvelope, TaskId};
    use std::sync::Arc;

    #[test]
    fn attempts_that_a_record_has_no_room_for_go_on_counting_towards_what_they_counted_for() {
        let (plugin, task) = (Name::new("p").unwrap(), Name::new("t").unwrap());
        let (major, priority, id) = (1, Priority::Normal, TaskId::generate());
        let address = TaskAddress { plugin, major, task, priority, id };
        let envelope = TaskEnvelope::new(address, Arc::from("1.0.0"), Timestamp::now(), Bytes::new());
        let mut record = TaskRecord::new(&envelope, State::Queued);
        let causes = [Cause::Interrupted, Cause::Crashed, Cause::LeaseLost, Cause::Error];
        for n in 1..=200 {
            let cause = causes[n as usize % causes.len()];
            let worker = InstanceId::new("worker-1").unwrap();
            let now = Timestamp::now();
            let (ended_at, cause) = (Some(now), Some(cause));
            record.attempts.push(Attempt { n, worker, started_at: now, ended_at, cause, error: None });
            // As each write does.
            record.bound();
        }
        assert!(record.attempts.len() < 200 && record.omitted.uncounted > 0, "{:?}", record.omitted);
        assert_eq!((counted(&record), crashed(&record), lost(&record)), (50, 50, 50));
        let json = serde_json::to_vec(&record).unwrap();
        assert_eq!(lost(&TaskRecord::decode(&json).unwrap()), 50, "over a write and a read");
    }
}
