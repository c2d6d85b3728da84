//! Schedules, held by a real broker and taken up by real workers. Here is what their tests share.

mod changes;
mod operators;
mod policies;
mod slots;

use crate::serving::{Serving, soon};
use cardcage::broker::{Broker, Error};
use cardcage_harness::{Cardcage, Config, Launch, eventually};
use cardcage_protocol::{Name, ScheduleRecord, TaskRecord, Timestamp};
use serde_json::Value;
use std::ops::ControlFlow;
use std::time::Duration;

/// A firing that waits for two leases is missed.
const LEASE: Duration = Duration::from_secs(3);

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

fn chaos() -> Name {
    Name::new("chaos").unwrap()
}

/// A worker whose chaos declares these schedules.
async fn worker(config: &Config, schedules: &Value) -> Cardcage {
    let launch =
        Launch::new(["worker"]).config(config).env("CARDCAGE_CHAOS_SCHEDULES", schedules.to_string());
    launch.ready().await.unwrap()
}

/// Every task of chaos with a record, and when its slot was fired, the earliest first.
async fn tasks(broker: &Broker) -> Vec<TaskRecord> {
    let mut tasks = Vec::new();
    let look = broker.look_at_records(|record, _| {
        tasks.push(record);
        ControlFlow::Continue(())
    });
    look.await.unwrap();
    tasks.sort_by_key(|record| record.enqueued_at);
    tasks
}

/// Those whose body was made by the schedule with this note.
fn noted<'a>(tasks: &'a [TaskRecord], note: &str) -> Vec<&'a TaskRecord> {
    let has =
        |task: &&TaskRecord| task.result.as_ref().is_some_and(|result| result.to_string().contains(note));
    tasks.iter().filter(has).collect()
}

async fn wait_tasks(broker: &Broker, count: usize) -> Vec<TaskRecord> {
    eventually(soon(), &format!("{count} tasks have ended"), async || {
        let tasks = tasks(broker).await;
        (tasks.len() >= count && tasks.iter().all(|task| task.state.is_final())).then_some(tasks)
    })
    .await
    .unwrap()
}

async fn held(broker: &Broker, name: &str) -> Option<(ScheduleRecord, u64)> {
    let held = broker.recurring(Some(&chaos())).await.unwrap();
    held.into_iter().find(|(record, _)| record.name.as_str() == name)
}

async fn wait_held(broker: &Broker, name: &str, what: &str, is: impl Fn(Option<&ScheduleRecord>) -> bool) {
    eventually(soon(), &format!("the schedule {name} {what}"), async || {
        is(held(broker, name).await.as_ref().map(|(record, _)| record)).then_some(())
    })
    .await
    .unwrap();
}

/// Lets a schedule fire no more; what it has fired stays.
async fn still(broker: &Broker, name: &str) {
    let (record, sequence) = held(broker, name).await.unwrap();
    let record = ScheduleRecord { paused_at: Some(Timestamp::now()), ..record };
    broker.write_recurring(&record, sequence).await.unwrap();
}

async fn stream(serving: &Serving) -> async_nats::jetstream::stream::Stream {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let name = format!("{}_RECURRING", serving.config.namespace());
    async_nats::jetstream::new(client).get_stream(name).await.unwrap()
}

/// How many firings of a schedule wait for a worker.
async fn waiting(serving: &Serving, name: &str) -> usize {
    use futures_util::TryStreamExt as _;
    let subject = format!("{}.slot.chaos.{name}", serving.config.namespace());
    let subjects = stream(serving).await.info_with_subjects(&subject).await.unwrap();
    subjects.try_fold(0, async |sum, (_, count)| Ok(sum + count)).await.unwrap()
}

async fn none_waits(serving: &Serving, names: &[&str]) {
    eventually(soon(), "every firing has been taken up", async || {
        for name in names {
            if waiting(serving, name).await > 0 {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
}

/// The seconds in which slots were fired; a slot that ran twice shows twice.
fn seconds(tasks: &[&TaskRecord]) -> Vec<u64> {
    // A slot is fired at its second, or moments after.
    tasks.iter().map(|task| task.enqueued_at.unix_ms() / 1_000).collect()
}

fn assert_distinct(seconds: &[u64]) {
    let mut sorted = seconds.to_vec();
    sorted.dedup();
    assert_eq!(sorted.len(), seconds.len(), "a slot ran twice: {seconds:?}");
}

/// A conflict means that somebody else wrote first.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. })
}
