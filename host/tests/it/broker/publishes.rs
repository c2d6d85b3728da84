//! Publishes: acknowledged, refused, in doubt, and repeated until they are one or the other.

use std::time::{Duration, Instant};

use cardcage::broker::{Ack, Broker, Error, Options, Pull, Stored};
use cardcage_harness::{Deadline, Nats, eventually};
use cardcage_protocol::{Name, ProblemCode, TaskEnvelope};

use super::{WAIT, consumer, envelope, next, options, plugin, ready};

#[tokio::test]
async fn a_publish_is_acknowledged_once_and_a_repeat_is_a_duplicate() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let envelope = envelope();
    let first = broker.publish_task(&envelope, WAIT).await.unwrap();
    assert!(!first.duplicate);
    let second = broker.publish_task(&envelope, WAIT).await.unwrap();
    assert!(second.duplicate);
    assert_eq!(first.sequence, second.sequence);

    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(2);
    let delivery = next(&mut pull).await;
    assert_eq!(delivery.envelope(broker.subjects()).unwrap(), envelope);
    assert_eq!((delivery.num_delivered, delivery.stream_sequence), (1, first.sequence));
    assert!(delivery.age(broker.now_unix_ms()) < WAIT);
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    // Consumed, and still a duplicate.
    assert!(broker.publish_task(&envelope, WAIT).await.unwrap().duplicate);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_an_unknown_plugin_has_no_queue() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(Options { queue_max_messages: 2, ..options(&nats) }).await;
    for _ in 0..2 {
        broker.publish_task(&envelope(), WAIT).await.unwrap();
    }
    let error = broker.publish_task(&envelope(), WAIT).await.unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error}");
    assert_eq!(error.problem_code(), ProblemCode::QueueFull);

    let mut stranger = envelope();
    stranger.plugin = Name::new("stranger").unwrap();
    let error = broker.publish_task(&stranger, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::NoResponders { .. }), "{error}");
    let mut broken = envelope();
    broken.traceparent = Some("a\r\nNats-Msg-Id: forged".into());
    assert!(matches!(broker.publish_task(&broken, WAIT).await, Err(Error::Envelope(_))));
}

#[tokio::test]
async fn a_publish_to_a_hanging_broker_is_in_doubt_and_its_repeat_is_stored_once() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(2);
    let envelope = envelope();
    nats.pause().await.unwrap();
    let started = Instant::now();
    let error = broker.publish_task(&envelope, Duration::from_millis(400)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { in_doubt: true, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "the deadline holds");
    nats.resume().unwrap();
    let repeat = async || broker.publish_task(&envelope, WAIT).await.ok();
    eventually(Deadline::after(WAIT), "the repeat is acknowledged", repeat).await.unwrap();
    let delivery = next(&mut pull).await;
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(300), pull.next()).await;
    assert!(second.is_err(), "stored twice");
}

/// Publishes while the broker hangs; `then` brings it back.
async fn published_while_it_hangs(
    nats: &mut Nats,
    broker: &Broker,
    wait: Duration,
    then: impl AsyncFnOnce(&mut Nats),
) -> (TaskEnvelope, Stored) {
    let envelope = envelope();
    nats.pause().await.unwrap();
    let (stored, ()) = tokio::join!(broker.publish_task(&envelope, wait), then(nats));
    (envelope, stored.expect("it is repeated within its deadline"))
}

/// That the task stands in its queue, once.
async fn stands_once(broker: &Broker, envelope: &TaskEnvelope, stored: Stored) {
    let messages = broker.messages_of(&plugin(), envelope.id).await.unwrap();
    let sequences: Vec<u64> = messages.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, [stored.sequence]);
}

#[tokio::test]
async fn a_publish_that_is_not_answered_is_repeated_with_its_id_before_its_deadline() {
    let mut nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    // Half of its time is for the first try.
    let wait = Duration::from_secs(6);
    let (envelope, stored) = published_while_it_hangs(&mut nats, &broker, wait, async |nats| {
        let since = Instant::now();
        let half = async || (since.elapsed() > wait / 2 + wait / 8).then_some(());
        eventually(Deadline::after(wait), "the first try is given up", half).await.unwrap();
        nats.resume().unwrap();
    })
    .await;
    assert!(stored.duplicate, "what answered is the second try, and the first one is what is stored");
    stands_once(&broker, &envelope, stored).await;
}

#[tokio::test]
async fn a_publish_whose_broker_dies_is_repeated_when_that_is_back() {
    let mut nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (envelope, stored) = published_while_it_hangs(&mut nats, &broker, WAIT * 3, async |nats| {
        nats.kill9();
        nats.restart().await.unwrap();
    })
    .await;
    assert!(!stored.duplicate, "the first broker never had it");
    stands_once(&broker, &envelope, stored).await;
}
