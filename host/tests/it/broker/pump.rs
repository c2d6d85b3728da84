//! Delayed tasks, from the schedule to their queue.

use cardcage::broker::{Ack, Options, Place, Pull, Pump};
use cardcage_harness::{Deadline, Nats, eventually};
use cardcage_protocol::Timestamp;

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
