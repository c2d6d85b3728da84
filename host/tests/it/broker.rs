//! The broker module against a real nats-server: what is acknowledged is kept, and what stops comes back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::{
    Ack, Broker, CheckError, Claim, ConsumerSpec, DeadLetter, Delivery, Error, Options, Place, Pull, Pump,
    key_hash,
};
use cardcage_harness::{Deadline, Nats, NatsOptions, eventually};
use cardcage_protocol::{
    Name, Priority, ProblemCode, State, TaskAddress, TaskEnvelope, TaskId, TaskRecord, Timestamp,
};

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
            "cardcage_TASKS_orders: max_msgs is 1000000 on the broker and 7 in the settings"
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
    assert_eq!((report.missing.len(), report.differences.len()), (5, 0), "comparing creates nothing");
}

#[tokio::test]
async fn a_delayed_task_is_queued_by_the_pump_when_its_time_has_come() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let pump = tokio::spawn(Pump::new(&broker).run(async move { drop(stopped.await) }));
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
    let pump = tokio::spawn(Pump::new(&broker).run(std::future::pending()));
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
    let letter = DeadLetter { envelope: &envelope, reason: "it\nfailed", attempts: &[] };
    assert!(!broker.publish_dead(letter, WAIT).await.unwrap().duplicate);
    assert!(broker.publish_dead(letter, WAIT).await.unwrap().duplicate);
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

#[tokio::test]
async fn the_brokers_clock_is_measured() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    assert!(broker.measure_clock().await);
    // Server and test share a machine.
    assert!(broker.now_unix_ms().abs_diff(Timestamp::now().unix_ms()) < 1_000);
}
