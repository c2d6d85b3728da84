//! The broker module against a real nats-server: what is acknowledged is kept, and what stops comes back.

mod calls;
mod parkings;
mod publishes;
mod pulls;
mod pump;
mod records;
mod unfit;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::{Broker, Claim, ConsumerSpec, DeadLetter, Delivery, Error, Options, Pull, key_hash};
use cardcage_harness::{Deadline, Nats, eventually};
use cardcage_protocol::{Name, Priority, TaskAddress, TaskEnvelope, TaskId, Timestamp, header};

use crate::one_letter::forget_message_ids;

const WAIT: Duration = Duration::from_secs(10);

fn plugin() -> Name {
    Name::new("orders").unwrap()
}

fn task() -> Name {
    Name::new("fulfil").unwrap()
}

fn envelope() -> TaskEnvelope {
    let address = TaskAddress {
        plugin: plugin(),
        major: 1,
        task: task(),
        priority: Priority::Normal,
        id: TaskId::generate(),
    };
    TaskEnvelope::new(
        address,
        "1.2.3".into(),
        Timestamp::now(),
        Bytes::from_static(b"{\"order_id\":\"o-1\"}"),
    )
}

fn options(nats: &Nats) -> Options {
    Options { url: nats.url(), lease: Duration::from_secs(2), queue_max_bytes: 1 << 24, ..Options::default() }
}

async fn connect(options: Options) -> Broker {
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    broker
}

/// A broker with the streams of one plugin.
async fn ready(options: Options) -> Broker {
    let broker = connect(options).await;
    broker.ensure_layout(&[plugin()]).await.unwrap();
    broker
}

fn consumer(broker: &Broker) -> ConsumerSpec {
    ConsumerSpec::task(broker.options(), broker.subjects(), &plugin(), 1, &task())
}

async fn next(pull: &mut Pull) -> Delivery {
    tokio::time::timeout(WAIT, pull.next()).await.expect("a delivery within the deadline")
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_first_task() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let hash = key_hash(&["orders", "accept", "caller", "evt_1"]);
    let (first, second) = (TaskId::generate(), TaskId::generate());
    assert_eq!(broker.claim_key(&hash, first, b"body", WAIT).await.unwrap(), Claim::Fresh);
    assert_eq!(
        broker.claim_key(&hash, first, b"body", WAIT).await.unwrap(),
        Claim::Fresh,
        "a repeat of the same"
    );
    let Claim::Existing(same) = broker.claim_key(&hash, second, b"body", WAIT).await.unwrap() else {
        panic!("fresh")
    };
    assert_eq!(same.task_id, first);
    let Claim::Existing(other) = broker.claim_key(&hash, second, b"other", WAIT).await.unwrap() else {
        panic!("fresh")
    };
    assert_eq!(other, same, "the caller compares the body's hash");
    assert_ne!(key_hash(&["ab", "c"]), key_hash(&["a", "bc"]));
}

#[tokio::test]
async fn a_dead_letter_is_kept_once() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let envelope = envelope();
    let letter = DeadLetter {
        envelope: &envelope,
        reason: "it\nfailed",
        code: "failed",
        error: None,
        attempts: &[],
        attempts_omitted: 0,
    };
    let stream = broker.subjects().dead_stream();
    forget_message_ids(&nats, &stream).await;
    broker.publish_dead(letter, WAIT).await.unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let mut seen = 0;
    // One that is stored later is known for longer, and is known no more in the end.
    eventually(Deadline::after(WAIT), "the broker has forgotten the letter's message id", async || {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::NATS_MSG_ID, "later");
        let other = broker.subjects().dead(&plugin(), &task(), TaskId::generate());
        let stored = context.publish_with_headers(other, headers, "".into()).await.ok()?.await.ok()?;
        seen += u32::from(!stored.duplicate);
        (seen == 2).then_some(())
    })
    .await
    .unwrap();
    let again = DeadLetter { reason: "said otherwise", ..letter };
    broker.publish_dead(again, WAIT).await.unwrap();
    let kept = broker.find_letter(envelope.id).await.unwrap().unwrap();
    assert_eq!(kept.reason, "it failed", "the first one stays");
    assert_eq!(context.get_stream(stream).await.unwrap().get_info().await.unwrap().state.messages, 3);
}

#[tokio::test]
async fn calls_fail_at_once_without_workers_and_in_time_without_answer() {
    let nats = Nats::start().await.unwrap();
    let broker = connect(options(&nats)).await;
    let subject = broker.subjects().call(&plugin(), 1, &Name::new("show").unwrap());
    let started = Instant::now();
    let error = broker.call(subject.clone(), Bytes::new(), WAIT).await.unwrap_err();
    assert!(matches!(error, Error::NoResponders { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));

    let all = broker.subjects().calls_of_plugin(&plugin(), 1);
    let mut silent = broker.subscribe_shared(all, cardcage_protocol::subject::WORKERS_GROUP).await.unwrap();
    broker.flush(WAIT).await.unwrap();
    let error = broker.call(subject.clone(), Bytes::new(), Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    silent.next().await.unwrap();

    let (answer, ()) = tokio::join!(broker.call(subject, Bytes::from_static(b"ping"), WAIT), async {
        let call = silent.next().await.unwrap();
        broker.publish(call.reply().unwrap().to_owned(), call.payload()).await.unwrap();
    });
    assert_eq!(answer.unwrap(), Bytes::from_static(b"ping"));
}

#[tokio::test]
async fn the_brokers_clock_is_measured() {
    let nats = Nats::start().await.unwrap();
    let broker = connect(options(&nats)).await;
    assert!(!broker.measure_clock().await, "there is no stream yet to read it from");
    assert!(!broker.knows_time());
    broker.ensure_layout(&[plugin()]).await.unwrap();
    assert!(broker.knows_time(), "as soon as there is one, before anybody enqueues or takes anything by it");
    assert!(broker.measure_clock().await);
    // A broker that stood still, with its machine, comes back with another time.
    nats.pause().await.unwrap();
    let forgotten = async || (!broker.knows_time()).then_some(());
    eventually(Deadline::seconds(60), "nothing is known of a broker that does not answer", forgotten)
        .await
        .unwrap();
    nats.resume().unwrap();
    let known = async || broker.knows_time().then_some(());
    eventually(Deadline::seconds(60), "its time is measured anew", known).await.unwrap();
    // Server and test share a machine.
    assert!(broker.now_unix_ms().abs_diff(Timestamp::now().unix_ms()) < 1_000);
}
