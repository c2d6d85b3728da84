//! Delayed tasks, from the schedule to their queue.

use std::time::Duration;

use cardcage::broker::{Ack, Broker, ConsumerSpec, Options, Place, Pull, Pump};
use cardcage_harness::{Deadline, Nats, eventually};
use cardcage_protocol::{State, TaskEnvelope, TaskRecord, Timestamp};

use super::{WAIT, consumer, envelope, next, options, plugin, ready};

#[tokio::test]
async fn a_delayed_task_is_queued_by_the_pump_when_its_time_has_come() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let pump = tokio::spawn(Pump::new(&broker, &plugin()).run(async move { drop(stopped.await) }));
    let mut envelope = envelope();
    envelope.attempt = 2;
    envelope.idempotency_key = Some("key-1".into());
    let at = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(500);
    broker.schedule_task(&envelope, at, WAIT).await.unwrap();

    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(1);
    let delivery = next(&mut pull).await;
    assert_eq!(delivery.envelope(broker.subjects()).unwrap(), envelope);
    assert!(delivery.stored_at >= at, "not before its time");
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    let gone = async || broker.find_task(envelope.id).await.ok().filter(Option::is_none).map(|_| ());
    eventually(Deadline::after(WAIT), "the due message is acknowledged", gone).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(WAIT, pump).await.unwrap().unwrap();
}

/// Schedules tasks until a pump was seen to keep one: on a machine that stands still for long it is over before anybody looks.
async fn kept_by_a_pump(broker: &Broker) -> (TaskEnvelope, Timestamp) {
    let context = async_nats::jetstream::new(async_nats::connect(&broker.options().url).await.unwrap());
    let stream = context.get_stream(broker.subjects().schedule_stream()).await.unwrap();
    let name = ConsumerSpec::pump(broker.options(), broker.subjects(), &plugin()).name;
    loop {
        let (task, at) = (envelope(), from_now(broker, 900));
        broker.schedule_task(&task, at, WAIT).await.unwrap();
        let is_kept = eventually(Deadline::after(WAIT), "a pump has had the task", async || {
            let is_kept = stream.consumer_info(&name).await.ok()?.num_ack_pending == 1;
            (is_kept || broker.now_unix_ms() > at.unix_ms()).then_some(is_kept)
        });
        if is_kept.await.unwrap() && broker.now_unix_ms() < at.unix_ms() {
            return (task, at);
        }
    }
}

fn from_now(broker: &Broker, ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(ms)
}

#[tokio::test]
async fn a_task_that_fires_early_is_still_scheduled_and_its_record_is_read_before_it_starts() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (task, at) = (envelope(), from_now(&broker, 450));
    broker.schedule_task(&task, at, WAIT).await.unwrap();
    // As a pump that keeps it.
    let mut early = Pull::new(&broker, ConsumerSpec::pump(broker.options(), broker.subjects(), &plugin()));
    early.add_demand(1);
    let delivery = next(&mut early).await;
    let fired = broker.walk_due(&plugin(), None).await.unwrap().next_page().await.unwrap();
    assert_eq!(
        fired.iter().map(|waiting| waiting.address.id).collect::<Vec<_>>(),
        [task.id],
        "a purge finds it"
    );
    let is_as_good_as_due = broker.make_due(task.id).await.unwrap();
    let found = broker.find_task(task.id).await.unwrap();
    // Only where this machine did not take until its time for that.
    if broker.now_unix_ms() < at.unix_ms() {
        assert!(matches!(&found, Some(Place::Scheduled(_, Some(due))) if *due == at), "{found:?}");
        assert!(is_as_good_as_due);
    }
    broker.ack(delivery.ack_subject(), Ack::HandBack).await.unwrap();
    drop(early);

    let pump = tokio::spawn(Pump::new(&broker, &plugin()).run(std::future::pending()));
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(1);
    let queued = next(&mut pull).await.envelope(broker.subjects()).unwrap();
    assert!(queued.unparked, "somebody may have cancelled it meanwhile");
    assert_eq!(TaskEnvelope { unparked: false, ..queued }, task);
    pump.abort();
}

#[tokio::test]
async fn a_pump_that_stops_hands_back_what_it_keeps() {
    let nats = Nats::start().await.unwrap();
    let lease = Duration::from_secs(60);
    let broker = ready(Options { lease, ..options(&nats) }).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let first = tokio::spawn(Pump::new(&broker, &plugin()).run(async move { drop(stopped.await) }));
    let (task, at) = kept_by_a_pump(&broker).await;
    stop.send(()).unwrap();
    tokio::time::timeout(WAIT, first).await.unwrap().unwrap();

    let second = tokio::spawn(Pump::new(&broker, &plugin()).run(std::future::pending()));
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(1);
    // Within less than the lease of the one that had it.
    let mut delivery = next(&mut pull).await;
    // Those that nobody saw kept are there as well.
    while delivery.envelope(broker.subjects()).unwrap().id != task.id {
        pull.add_demand(1);
        delivery = next(&mut pull).await;
    }
    assert!(delivery.stored_at >= at, "not before its time");
    second.abort();
}

#[tokio::test]
async fn a_due_task_waits_while_its_queue_is_full() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(Options { queue_max_messages: 1, ..options(&nats) }).await;
    let pump = tokio::spawn(Pump::new(&broker, &plugin()).run(std::future::pending()));
    let (first, second) = (envelope(), envelope());
    broker.publish_task(&first, WAIT).await.unwrap();
    broker.schedule_task(&second, Timestamp::now(), WAIT).await.unwrap();
    let due = async || matches!(broker.find_task(second.id).await, Ok(Some(Place::Due(_)))).then_some(());
    eventually(Deadline::after(WAIT), "the second task is due", due).await.unwrap();
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(2);
    for expected in [first.id, second.id] {
        let delivery = next(&mut pull).await;
        assert_eq!(delivery.envelope(broker.subjects()).unwrap().id, expected);
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    }
    pump.abort();
}

#[tokio::test]
async fn a_due_task_that_went_on_long_ago_is_not_queued_again_and_one_that_did_not_is() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (queued, ended, left) = (envelope(), envelope(), envelope());
    for task in [&queued, &ended, &left] {
        broker.schedule_task(task, Timestamp::now(), WAIT).await.unwrap();
    }
    // A pump took all of them, moved two and died; since then the queue has forgotten their message ids.
    let spec = ConsumerSpec::pump(broker.options(), broker.subjects(), &plugin());
    let mut dead = Pull::new(&broker, spec);
    dead.add_demand(3);
    for _ in 0..3 {
        next(&mut dead).await;
    }
    assert!(dead.close().await.is_empty());
    broker.publish_task_in_round(&queued, 1, WAIT).await.unwrap();
    broker.write_record(&mut TaskRecord::new(&ended, State::Succeeded), 0).await.unwrap();

    let pump = tokio::spawn(Pump::new(&broker, &plugin()).run(std::future::pending()));
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let state =
        async |stream: String| context.get_stream(stream).await.unwrap().get_info().await.unwrap().state;
    eventually(Deadline::after(WAIT), "all have left the schedule", async || {
        (state(broker.subjects().schedule_stream()).await.messages == 0).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(state(broker.subjects().tasks_stream(&plugin())).await.last_sequence, 2);
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(2);
    for expected in [queued.id, left.id] {
        assert_eq!(next(&mut pull).await.envelope(broker.subjects()).unwrap().id, expected);
    }
    pump.abort();
}
