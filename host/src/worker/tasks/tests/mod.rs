//! The decisions, without a broker: each rule by itself, and then all of them against random deaths.

mod arrivals;
mod crashes;
mod deaths;
mod endings;
mod transitions;
mod world;

use super::arrival::{Arrival, Decision, consider};
use super::limits::TaskLimits;
use super::plan::{Plan, Write};
use crate::config::TimeScale;
use bytes::Bytes;
use cardcage_protocol::{
    InstanceId, Name, Priority, RetryPolicy, TaskAddress, TaskEnvelope, TaskId, TaskRecord, Timestamp,
};
use std::sync::Arc;
use std::time::Duration;

const LIMITS: TaskLimits = TaskLimits {
    retry: RetryPolicy { max_attempts: 3, initial_ms: 1_000, max_ms: 60_000 },
    time_scale: TimeScale::REAL,
    timeout: Duration::from_secs(10),
    soft_timeout: None,
    result_max_bytes: 100,
    crash_limit: 3,
    lost_limit: 4,
    result_ttl: None,
    concurrency: None,
    max_running: None,
    priorities: false,
    rate: None,
    lost_is_final: false,
};

/// Of a task that must not be started twice.
const ONCE: TaskLimits = TaskLimits { lost_is_final: true, ..LIMITS };

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + ms)
}

fn worker(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn envelope(attempt: u32) -> TaskEnvelope {
    let address = TaskAddress {
        plugin: Name::new("orders").unwrap(),
        major: 1,
        task: Name::new("fulfil").unwrap(),
        priority: Priority::Normal,
        id: TaskId::generate(),
    };
    let mut envelope = TaskEnvelope::new(address, Arc::from("1.2.3"), at(0), Bytes::from_static(b"{}"));
    envelope.attempt = attempt;
    envelope
}

fn arrival(envelope: &TaskEnvelope, num_delivered: u64) -> Arrival<'_> {
    Arrival { envelope, num_delivered, message: 1, stored_at: at(0), now: at(5_000) }
}

fn decide(arrival: &Arrival<'_>, current: Option<(TaskRecord, u64)>, me: &str) -> Decision {
    consider(arrival, current, &worker(me), &worker("unknown"), &LIMITS)
}

fn appended(decision: Decision) -> (TaskRecord, u64, u32, u32) {
    match decision {
        Decision::Append { write, attempt, lost } => {
            let Write { record, fence, .. } = *write;
            (record, fence, attempt, lost)
        }
        other => panic!("expected an attempt to be appended, got {other:?}"),
    }
}

fn finished(decision: Decision) -> Plan {
    match decision {
        Decision::Finish(plan) => *plan,
        other => panic!("expected an end, got {other:?}"),
    }
}

#[test]
fn an_attempts_future_is_small_enough_to_be_spawned_by_the_ten_thousand() {
    fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(super::attempt::run);
    assert!(bytes < 1536, "{bytes} bytes");
}
