//! Records of tasks, and finding a task.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use cardcage::broker::{Error, Place};
use cardcage_harness::Nats;
use cardcage_protocol::{State, TaskId, TaskRecord, Timestamp};

use super::{WAIT, envelope, options, plugin, ready};

#[tokio::test]
async fn records_are_written_by_compare_and_set() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let envelope = envelope();
    let mut done = broker.subscribe(broker.subjects().done(envelope.id)).await.unwrap();
    assert!(broker.read_record(envelope.id).await.unwrap().is_none());

    let mut record = TaskRecord::new(&envelope, State::Running);
    let first = broker.write_record(&mut record, 0).await.unwrap();
    record.state = State::Succeeded;
    record.result = Some(serde_json::value::to_raw_value("done").unwrap());
    let second = broker.write_record(&mut record, first).await.unwrap();
    let (read, sequence) = broker.read_record(envelope.id).await.unwrap().unwrap();
    assert_eq!((read.state, sequence), (State::Succeeded, second));

    for stale in [0, first] {
        let mut late = TaskRecord::new(&envelope, State::Failed);
        let error = broker.write_record(&mut late, stale).await.unwrap_err();
        assert!(matches!(error, Error::Conflict { last_sequence: Some(n) } if n == second), "{error}");
    }
    // A repeat of the very same write, as after a lost acknowledgement, is no conflict.
    assert_eq!(broker.write_record(&mut record, first).await.unwrap(), second);

    // Waiters see what was stored, and nothing of what was refused.
    for state in [State::Running, State::Succeeded] {
        let message = tokio::time::timeout(WAIT, done.next()).await.unwrap().unwrap();
        assert_eq!(TaskRecord::decode(&message.payload()).unwrap().state, state);
    }
}

#[tokio::test]
async fn many_records_are_written_at_the_same_time() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let writes = (0..500).map(|_| async {
        let mut record = TaskRecord::new(&envelope(), State::Succeeded);
        broker.write_record(&mut record, 0).await.unwrap()
    });
    let sequences: HashSet<u64> = futures_util::future::join_all(writes).await.into_iter().collect();
    assert_eq!(sequences.len(), 500);
}

#[tokio::test]
async fn lookup_finds_queued_scheduled_and_recorded_tasks_and_nothing_else() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (queued, scheduled, recorded) = (envelope(), envelope(), envelope());
    broker.publish_task(&queued, WAIT).await.unwrap();
    let at = Timestamp::now().plus_ms(3_600_000);
    broker.schedule_task(&scheduled, at, WAIT).await.unwrap();
    let sequence = broker.write_record(&mut TaskRecord::new(&recorded, State::Succeeded), 0).await.unwrap();

    match broker.find_task(queued.id).await.unwrap() {
        Some(Place::Queued(waiting)) => assert_eq!(waiting.envelope, Some(queued.clone())),
        other => panic!("{other:?}"),
    }
    match broker.find_task(scheduled.id).await.unwrap() {
        Some(Place::Scheduled(waiting, Some(due))) => {
            assert_eq!((waiting.address, due), (scheduled.address(), at));
        }
        other => panic!("{other:?}"),
    }
    match broker.find_task(recorded.id).await.unwrap() {
        Some(Place::Recorded(record, found)) => assert_eq!((record.id, found), (recorded.id, sequence)),
        other => panic!("{other:?}"),
    }
    assert!(broker.find_task(TaskId::generate()).await.unwrap().is_none());

    assert!(broker.cancel_scheduled(&plugin(), scheduled.id).await.unwrap());
    assert!(!broker.cancel_scheduled(&plugin(), scheduled.id).await.unwrap());
    assert!(broker.find_task(scheduled.id).await.unwrap().is_none());
    assert!(broker.purge_task(&plugin(), queued.id).await.unwrap());
    assert!(broker.find_task(queued.id).await.unwrap().is_none());
}

#[tokio::test]
async fn only_the_holder_of_a_task_answers_when_asked_who_holds_it() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let id = TaskId::generate();
    assert_eq!(broker.ask_holder(id, Duration::from_millis(100)).await.unwrap(), None);
    let mut asked = broker.subscribe(broker.subjects().find()).await.unwrap();
    let holder = tokio::spawn({
        let broker = broker.clone();
        async move {
            let question = asked.next().await.unwrap();
            assert!(String::from_utf8_lossy(&question.payload()).contains(&id.to_string()));
            broker.publish(question.reply().unwrap().to_owned(), Bytes::from_static(b"me")).await.unwrap();
        }
    });
    assert_eq!(broker.ask_holder(id, WAIT).await.unwrap(), Some(Bytes::from_static(b"me")));
    holder.await.unwrap();
}
