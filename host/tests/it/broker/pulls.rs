//! Deliveries: taken as demanded, and coming again where they were not acknowledged.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cardcage::broker::{Ack, Error, Options, Pull};
use cardcage_harness::{Deadline, Nats, eventually};

use super::{WAIT, connect, consumer, envelope, next, options, ready};

#[tokio::test]
async fn a_pull_resumes_after_kill_9_of_the_broker_and_no_acknowledged_publish_is_lost() {
    let mut nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let mut pull = Pull::new(&broker, consumer(&broker));
    let health = pull.health();
    pull.add_demand(64);
    let mut seen = HashSet::new();
    let mut accepted = HashSet::new();

    // Publishing goes on while the broker is killed: what was acknowledged counts.
    let publisher = tokio::spawn({
        let broker = broker.clone();
        async move {
            let mut accepted = HashSet::new();
            while broker.connected() {
                let envelope = envelope();
                if broker.publish_task(&envelope, Duration::from_millis(500)).await.is_ok() {
                    accepted.insert(envelope.id);
                }
            }
            accepted
        }
    });
    for _ in 0..200 {
        let delivery = next(&mut pull).await;
        seen.insert(delivery.envelope(broker.subjects()).unwrap().id);
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
        pull.add_demand(1);
    }
    nats.kill9();
    let killed = Instant::now();
    accepted.extend(publisher.await.unwrap());
    assert!(accepted.len() >= 200);
    let error = broker.publish_task(&envelope(), WAIT).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { in_doubt: false, .. }), "{error}");
    assert!(killed.elapsed() < Duration::from_secs(3), "an outage is reported at once");

    nats.restart().await.unwrap();
    let back = Instant::now();
    broker.wait_connected(WAIT).await.unwrap();
    let after = envelope();
    broker.publish_task(&after, WAIT).await.unwrap();
    accepted.insert(after.id);
    while !accepted.is_subset(&seen) {
        let delivery = next(&mut pull).await;
        if !seen.contains(&after.id) && seen.len() == 200 {
            assert!(
                back.elapsed() < Duration::from_secs(10),
                "consumption resumed after {:?}",
                back.elapsed()
            );
        }
        seen.insert(delivery.envelope(broker.subjects()).unwrap().id);
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
        pull.add_demand(1);
    }
    assert!(health.is_consuming());
}

#[tokio::test]
async fn an_idle_pull_resumes_after_a_restart_of_the_broker_even_if_its_consumer_is_gone() {
    let mut nats = Nats::start().await.unwrap();
    // In memory: the restart loses stream and consumer.
    let memory = Options { storage: cardcage::broker::Storage::Memory, ..options(&nats) };
    let broker = ready(memory).await;
    let mut pull = Pull::new(&broker, consumer(&broker));
    let health = pull.health();
    pull.add_demand(1);
    let puller = tokio::spawn(async move { next(&mut pull).await });
    eventually(Deadline::after(WAIT), "the pull consumes", async || health.is_consuming().then_some(()))
        .await
        .unwrap();
    nats.restart().await.unwrap();
    let lost = || async { broker.publish_task(&envelope(), Duration::from_millis(200)).await.ok() };
    eventually(Deadline::after(WAIT), "the pull has made its stream anew", lost).await.unwrap();
    puller.await.unwrap();
}

#[tokio::test]
async fn a_delivery_that_is_handed_back_or_whose_lease_ends_comes_again() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    broker.publish_task(&envelope(), WAIT).await.unwrap();
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(3);
    let first = next(&mut pull).await;
    broker.ack(first.ack_subject(), Ack::HandBack).await.unwrap();
    assert_eq!(next(&mut pull).await.num_delivered, 2);
    assert_eq!(next(&mut pull).await.num_delivered, 3);
}

#[tokio::test]
async fn a_closed_pull_gives_back_what_it_had_received() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    for _ in 0..10 {
        broker.publish_task(&envelope(), WAIT).await.unwrap();
    }
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(10);
    let first = next(&mut pull).await;
    broker.ack(first.ack_subject(), Ack::Done).await.unwrap();
    for delivery in pull.close().await {
        broker.ack(delivery.ack_subject(), Ack::HandBack).await.unwrap();
    }
    let mut other = Pull::new(&broker, consumer(&broker));
    other.add_demand(9);
    let started = Instant::now();
    for _ in 0..9 {
        next(&mut other).await;
    }
    assert!(started.elapsed() < broker.options().lease, "nothing waited for a lease to end");
}

#[tokio::test]
async fn a_pull_takes_no_more_than_was_demanded() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    for _ in 0..5 {
        broker.publish_task(&envelope(), WAIT).await.unwrap();
    }
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(2);
    for _ in 0..2 {
        let delivery = next(&mut pull).await;
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    }
    let more = tokio::time::timeout(Duration::from_millis(300), pull.next()).await;
    assert!(more.is_err(), "a third delivery without demand");
    pull.add_demand(3);
    for _ in 0..3 {
        next(&mut pull).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_on_its_way_when_a_pull_closes_waits_for_its_lease() {
    let nats = Nats::start().await.unwrap();
    // So long a lease that whatever has to wait for one is missed.
    let broker = ready(Options { lease: Duration::from_secs(120), ..options(&nats) }).await;
    // The publisher has a connection of its own, or its pace would be the pulls'.
    let elsewhere = connect(options(&nats)).await;
    let (mut seen, mut accepted) = (HashSet::new(), HashSet::new());
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut accepted = HashSet::new();
            while !stop.load(Ordering::Relaxed) {
                let envelope = envelope();
                elsewhere.publish_task(&envelope, WAIT).await.unwrap();
                accepted.insert(envelope.id);
            }
            accepted
        }
    });
    let mut take = |delivery: &cardcage::broker::Delivery| {
        seen.insert(delivery.envelope(broker.subjects()).unwrap().id);
    };
    for _ in 0..150 {
        let mut pull = Pull::new(&broker, consumer(&broker));
        pull.add_demand(16);
        for _ in 0..3 {
            let delivery = next(&mut pull).await;
            broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
            take(&delivery);
        }
        for delivery in pull.close().await {
            broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
            take(&delivery);
        }
    }
    stop.store(true, Ordering::Relaxed);
    accepted.extend(publisher.await.unwrap());
    let mut pull = Pull::new(&broker, consumer(&broker));
    pull.add_demand(accepted.len());
    while let Ok(delivery) = tokio::time::timeout(Duration::from_secs(3), pull.next()).await {
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
        take(&delivery);
    }
    let missed = accepted.difference(&seen).count();
    assert_eq!(missed, 0, "of {} tasks so many wait for a lease that nobody has", accepted.len());
}
