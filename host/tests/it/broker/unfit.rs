//! A broker that is away, or is not as the host needs it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::{Ack, Broker, CheckError, Error, Options};
use cardcage_harness::{Nats, NatsOptions};
use cardcage_protocol::TaskId;

use super::{WAIT, connect, consumer, envelope, options, plugin, ready};

#[tokio::test]
async fn a_different_stream_is_refused_by_name_and_left_as_it_is() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    assert!(
        broker.ensure_layout(&[plugin()]).await.unwrap().missing.is_empty(),
        "the second time nothing is missing"
    );
    broker.ensure_consumer(&consumer(&broker)).await.unwrap();

    let changed = Options { queue_max_messages: 7, lease: Duration::from_secs(9), ..options(&nats) };
    let other = connect(changed).await;
    for _ in 0..2 {
        let Err(Error::Layout(differences)) = other.ensure_layout(&[plugin()]).await else {
            panic!("not refused")
        };
        assert_eq!(differences.len(), 1, "{differences:?}");
        let sentence = differences[0].to_string();
        assert_eq!(
            sentence,
            "cardcage_TASKS_orders: broker.queue_max_messages is 1000000 on the broker and 7 in the settings"
        );
    }
    assert_eq!(other.compare_layout(&[plugin()]).await.unwrap().differences.len(), 1);
    let Err(Error::Layout(differences)) = other.ensure_consumer(&consumer(&other)).await else {
        panic!("not refused")
    };
    let fields: Vec<_> = differences.iter().map(|d| (d.object.as_str(), d.field.as_str())).collect();
    assert_eq!(fields, [("cardcage_TASKS_orders/orders_v1_fulfil", "ack_wait")]);

    let elsewhere = connect(Options { namespace: "elsewhere".parse().unwrap(), ..options(&nats) }).await;
    let report = elsewhere.compare_layout(&[plugin()]).await.unwrap();
    assert_eq!((report.missing.len(), report.differences.len()), (9, 0), "comparing creates nothing");
}

#[tokio::test]
async fn without_a_broker_everything_fails_at_once() {
    let mut nats = Nats::start().await.unwrap();
    let url = nats.url().replace("nats://", "nats://user:secret@");
    nats.kill9();
    let broker = Broker::connect(Options { url, ..Options::default() }).await.unwrap();
    let started = Instant::now();
    assert!(!broker.connected());
    let error = broker.wait_connected(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1") && !error.contains("secret"), "{error}");
    let unavailable =
        |error: Error| assert!(matches!(error, Error::Unavailable { in_doubt: false, .. }), "{error}");
    unavailable(broker.publish_task(&envelope(), WAIT).await.unwrap_err());
    unavailable(broker.find_task(TaskId::generate()).await.unwrap_err());
    unavailable(broker.call("x".into(), Bytes::new(), WAIT).await.unwrap_err());
    unavailable(broker.ack("x", Ack::Done).await.unwrap_err());
    assert!(started.elapsed() < Duration::from_secs(1));
    nats.restart().await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_cannot_serve_is_refused_in_a_sentence() {
    let good = Nats::start().await.unwrap();
    let facts = connect(options(&good)).await.check_server().await.unwrap();
    assert!(facts.version.starts_with("2."));

    let small = NatsOptions { config: "max_payload: 64KB\n".into(), ..NatsOptions::default() };
    let small = Nats::start_with(small).await.unwrap();
    let errors = connect(options(&small)).await.check_server().await.unwrap_err();
    assert!(matches!(errors[..], [CheckError::MaxPayload { have: 65536, .. }]), "{errors:?}");

    let accounts =
        "accounts { A { users: [{user: a, password: a}] }, B { jetstream: enabled } }\nno_auth_user: a\n";
    let accounts = NatsOptions { config: accounts.into(), ..NatsOptions::default() };
    let nats = Nats::start_with(accounts).await.unwrap();
    let errors = connect(options(&nats)).await.check_server().await.unwrap_err();
    let without = |e: &CheckError| {
        matches!(e, CheckError::NoJetStream { .. } | CheckError::NoJetStreamForAccount { .. })
    };
    assert!(errors.len() == 1 && without(&errors[0]), "{errors:?}");
}
