//! One suite, held against a real nats-server and against the testkit's broker double: whatever hosts rely on, through
//! the host's own client. What holds for one and not for the other is a fault of the double.

use cardcage::broker::{Ack, Broker, ConsumerSpec, Delivery, Error, Options, Place, Pull, Pump};
use cardcage_harness::{Deadline, Nats, eventually};
use cardcage_protocol::{Name, Priority, State, TaskAddress, TaskEnvelope, TaskId, TaskRecord, Timestamp};
use std::time::Duration;
use testkit::BrokerDouble;

mod keys;
mod letters;
mod overview;
mod recurring;
mod turns;

const WAIT: Duration = Duration::from_secs(20);

fn plugin() -> Name {
    Name::new("orders").unwrap()
}

fn task() -> Name {
    Name::new("fulfil").unwrap()
}

fn envelope() -> TaskEnvelope {
    let (plugin, task, id) = (plugin(), task(), TaskId::generate());
    let address = TaskAddress { plugin, major: 1, task, priority: Priority::Normal, id };
    TaskEnvelope::new(
        address,
        "1.2.3".into(),
        Timestamp::now(),
        bytes::Bytes::from_static(b"{\"id\":\"o-1\"}"),
    )
}

fn options(url: &str) -> Options {
    Options {
        url: url.to_owned(),
        lease: Duration::from_secs(2),
        queue_max_messages: 20,
        queue_max_bytes: 1 << 24,
        ..Options::default()
    }
}

fn consumer(broker: &Broker) -> ConsumerSpec {
    ConsumerSpec::task(broker.options(), broker.subjects(), &plugin(), 1, &task())
}

fn pull(broker: &Broker, demand: usize) -> Pull {
    let mut pull = Pull::new(broker, consumer(broker));
    pull.add_demand(demand);
    pull
}

async fn next(pull: &mut Pull) -> Delivery {
    tokio::time::timeout(WAIT, pull.next()).await.expect("a delivery within the deadline")
}

async fn nothing_comes(pull: &mut Pull) {
    assert!(tokio::time::timeout(Duration::from_millis(300), pull.next()).await.is_err(), "nothing comes");
}

/// The server is fit; streams are created, found again as they were, and compared field by field.
async fn layout(broker: &Broker, url: &str) {
    broker.check_server().await.unwrap();
    let created = broker.ensure_layout(&[plugin()]).await.unwrap();
    assert!(created.missing.len() >= 9, "{created:?}");
    let again = broker.ensure_layout(&[plugin()]).await.unwrap();
    assert!(again.missing.is_empty() && again.differences.is_empty(), "{again:?}");
    let other = Broker::connect(Options { queue_max_messages: 21, ..options(url) }).await.unwrap();
    other.wait_connected(WAIT).await.unwrap();
    let Err(Error::Layout(differences)) = other.ensure_layout(&[plugin()]).await else {
        panic!("no difference")
    };
    assert_eq!((differences.len(), differences[0].field.as_str()), (1, "max_msgs"));
    assert!(broker.measure_clock().await);
    assert!(broker.now_unix_ms().abs_diff(Timestamp::now().unix_ms()) < 1_000);
}

/// A publish is stored once; an unknown subject has nobody; a full queue refuses.
async fn publishes(broker: &Broker) {
    let one = envelope();
    let first = broker.publish_task(&one, WAIT).await.unwrap();
    let again = broker.publish_task(&one, WAIT).await.unwrap();
    assert_eq!((first.duplicate, again.duplicate, again.sequence), (false, true, first.sequence));
    let mut stranger = envelope();
    stranger.plugin = Name::new("stranger").unwrap();
    let error = broker.publish_task(&stranger, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::NoResponders { .. }), "{error}");
    for _ in 1..20 {
        broker.publish_task(&envelope(), WAIT).await.unwrap();
    }
    let error = broker.publish_task(&envelope(), WAIT).await.unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error}");
    let amount = broker.queue_amount(&plugin(), 1, &task()).await.unwrap();
    assert!(amount.count == 20 && amount.oldest.is_some(), "{amount:?}");
    assert!(matches!(broker.find_task(one.id).await.unwrap(), Some(Place::Queued(_))));
    assert!(broker.purge_task(&plugin(), one.id).await.unwrap());
    assert!(!broker.purge_task(&plugin(), one.id).await.unwrap());
    let mut pull = pull(broker, 19);
    for _ in 0..19 {
        let delivery = next(&mut pull).await;
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    }
    pull.add_demand(1);
    nothing_comes(&mut pull).await;
    // Not only dropped: its request would stand until the server has seen that nobody listens any more.
    assert!(pull.close().await.is_empty());
}

/// Deliveries: as many as asked for, again when handed back or their lease ends, and not while it is renewed.
async fn deliveries(broker: &Broker) {
    let (one, two) = (envelope(), envelope());
    broker.publish_task(&one, WAIT).await.unwrap();
    let mut pull = pull(broker, 1);
    let first = next(&mut pull).await;
    assert_eq!(first.envelope(broker.subjects()).unwrap(), one);
    assert_eq!(first.num_delivered, 1);
    nothing_comes(&mut pull).await;
    broker.ack(first.ack_subject(), Ack::HandBack).await.unwrap();
    pull.add_demand(1);
    let again = next(&mut pull).await;
    assert_eq!((again.stream_sequence, again.num_delivered), (first.stream_sequence, 2));
    // Only now: whether what is handed back or what is new comes first, no server promises.
    broker.publish_task(&two, WAIT).await.unwrap();
    // Renewed for longer than a lease; then let go.
    let began = std::time::Instant::now();
    while began.elapsed() < broker.options().lease + Duration::from_secs(1) {
        broker.ack(again.ack_subject(), Ack::InProgress).await.unwrap();
        nothing_comes(&mut pull).await;
    }
    pull.add_demand(1);
    let second = next(&mut pull).await;
    assert_eq!(second.envelope(broker.subjects()).unwrap(), two);
    broker.ack(second.ack_subject(), Ack::Done).await.unwrap();
    pull.add_demand(1);
    let third = next(&mut pull).await;
    assert_eq!((third.stream_sequence, third.num_delivered), (first.stream_sequence, 3));
    broker.ack(third.ack_subject(), Ack::Done).await.unwrap();
    let gone = async || broker.find_task(one.id).await.unwrap().is_none().then_some(());
    eventually(Deadline::after(WAIT), "what is acknowledged is gone", gone).await.unwrap();
}

/// Records are written by compare-and-set, and only what was stored is republished.
async fn records(broker: &Broker) {
    let envelope = envelope();
    let mut done = broker.subscribe(broker.subjects().done(envelope.id)).await.unwrap();
    broker.flush(WAIT).await.unwrap();
    let mut record = TaskRecord::new(&envelope, State::Running);
    let first = broker.write_record(&mut record, 0).await.unwrap();
    let mut late = TaskRecord::new(&envelope, State::Failed);
    let error = broker.write_record(&mut late, 0).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { last_sequence: Some(n) } if n == first), "{error}");
    record.state = State::Succeeded;
    let second = broker.write_record(&mut record, first).await.unwrap();
    let (read, sequence) = broker.read_record(envelope.id).await.unwrap().unwrap();
    assert_eq!((read.state, sequence), (State::Succeeded, second));
    for state in [State::Running, State::Succeeded] {
        let message = tokio::time::timeout(WAIT, done.next()).await.unwrap().unwrap();
        assert_eq!(TaskRecord::decode(&message.payload()).unwrap().state, state);
    }
}

/// A delayed task comes at its time and not before; one that is cancelled does not come.
async fn schedules(broker: &Broker) {
    let pump = tokio::spawn(Pump::new(broker, &plugin()).run(std::future::pending()));
    let (one, cancelled) = (envelope(), envelope());
    let at = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(1_000);
    broker.schedule_task(&cancelled, at, WAIT).await.unwrap();
    broker.schedule_task(&one, at, WAIT).await.unwrap();
    assert!(
        matches!(broker.find_task(one.id).await.unwrap(), Some(Place::Scheduled(_, Some(due))) if due == at)
    );
    assert!(broker.cancel_scheduled(&plugin(), cancelled.id).await.unwrap());
    let mut pull = pull(broker, 1);
    let delivery = next(&mut pull).await;
    assert_eq!(delivery.envelope(broker.subjects()).unwrap().id, one.id);
    assert!(delivery.stored_at >= at, "not before its time");
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    pull.add_demand(1);
    nothing_comes(&mut pull).await;
    assert!(pull.close().await.is_empty());
    pump.abort();
}

/// Tasks of a batch are stored all or none, and a repeat is told.
async fn batches(broker: &Broker) {
    let tasks: Vec<_> = (0..5).map(|_| (envelope(), None)).collect();
    assert!(!broker.publish_tasks(&tasks, 0, WAIT).await.unwrap().duplicate);
    assert!(broker.publish_tasks(&tasks, 0, WAIT).await.unwrap().duplicate);
    let many: Vec<_> = (0..16).map(|_| (envelope(), None)).collect();
    let error = broker.publish_tasks(&many, 0, WAIT).await.unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error}");
    // One of them is there already, which is told of all.
    let mut some_again: Vec<_> = (0..3).map(|_| (envelope(), None)).collect();
    some_again.push(tasks[2].clone());
    assert!(broker.publish_tasks(&some_again, 0, WAIT).await.unwrap().duplicate);
    // More than go together, and such as go to two streams: none is stored in either.
    let many: Vec<_> = (0..1_001).map(|_| (envelope(), None)).collect();
    let error = broker.publish_tasks(&many, 0, WAIT).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: 10199, .. }), "{error}");
    let later = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(3_600_000);
    for mixed in [[None, Some(later)], [Some(later), None]] {
        let mixed: Vec<_> = mixed.into_iter().map(|at| (envelope(), at)).collect();
        broker.publish_tasks(&mixed, 0, Duration::from_secs(1)).await.unwrap_err();
        for (task, _) in &mixed {
            assert!(broker.find_task(task.id).await.unwrap().is_none());
        }
    }
    assert_eq!(broker.queue_amount(&plugin(), 1, &task()).await.unwrap().count, 5);
    let mut pull = pull(broker, 5);
    for (task, _) in &tasks {
        let delivery = next(&mut pull).await;
        assert_eq!(delivery.envelope(broker.subjects()).unwrap().id, task.id);
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    }
}

/// A paused consumer delivers nothing until it is resumed.
async fn pauses(broker: &Broker) {
    let found = broker.task_consumers(&plugin()).await.unwrap();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    broker.pause_consumer(one, Timestamp::now().plus_ms(3_600_000)).await.unwrap();
    let paused = broker.task_consumers(&plugin()).await.unwrap();
    assert!(paused[0].paused_until.is_some(), "{paused:?}");
    broker.publish_task(&envelope(), WAIT).await.unwrap();
    let mut pull = pull(broker, 1);
    nothing_comes(&mut pull).await;
    broker.pause_consumer(one, Timestamp::from_unix_ms(0)).await.unwrap();
    let delivery = next(&mut pull).await;
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    assert_eq!(broker.task_consumers(&plugin()).await.unwrap()[0].paused_until, None);
}

/// Calls: nobody there is said at once; of a group one answers.
async fn calls(broker: &Broker) {
    let subject = broker.subjects().call(&plugin(), 1, &Name::new("show").unwrap());
    let error = broker.call(subject.clone(), bytes::Bytes::new(), WAIT).await.unwrap_err();
    assert!(matches!(error, Error::NoResponders { .. }), "{error}");
    let all = broker.subjects().calls_of_plugin(&plugin(), 1);
    let group = cardcage_protocol::subject::WORKERS_GROUP;
    let mut first = broker.subscribe_shared(all.clone(), group).await.unwrap();
    let mut second = broker.subscribe_shared(all, group).await.unwrap();
    broker.flush(WAIT).await.unwrap();
    let answering = async {
        let call = tokio::select! { call = first.next() => call, call = second.next() => call }.unwrap();
        broker.publish(call.reply().unwrap().to_owned(), call.payload()).await.unwrap();
    };
    let (answer, ()) =
        tokio::join!(broker.call(subject, bytes::Bytes::from_static(b"ping"), WAIT), answering);
    assert_eq!(answer.unwrap(), bytes::Bytes::from_static(b"ping"));
    let other = async {
        tokio::select! { _ = first.next() => {}, _ = second.next() => {} }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), other).await.is_err(), "of a group one answers");
}

/// As many batches are under way as may be; who begins one more is told.
/// With a broker on which no other batch has been begun: how long one counts that was given up is the broker's affair.
async fn batches_under_way(url: &str) {
    let broker = Broker::connect(options(url)).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    layout(&broker, url).await;
    let client = async_nats::connect(url).await.unwrap();
    let begin = async |batch: usize, commit: bool| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("batch-{batch}"));
        headers.insert("Nats-Batch-Sequence", if commit { "2" } else { "1" });
        if commit {
            headers.insert("Nats-Batch-Commit", "1");
        }
        let subject = broker.subjects().task(&envelope().address());
        let answer = client.request_with_headers(subject, headers, "{}".into()).await.unwrap().payload;
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap_or_default()
    };
    for batch in 0..50 {
        assert!(begin(batch, false).await.is_null(), "{batch}");
    }
    let refused = begin(50, false).await;
    assert_eq!(refused["error"]["err_code"], 10210, "{refused}");
    // One that is complete makes room for another.
    let complete = begin(0, true).await;
    assert_eq!(complete["count"], 2, "{complete}");
    assert!(begin(50, false).await.is_null());
}

async fn suite(url: &str) {
    let broker = Broker::connect(options(url)).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    layout(&broker, url).await;
    publishes(&broker).await;
    deliveries(&broker).await;
    records(&broker).await;
    schedules(&broker).await;
    batches(&broker).await;
    pauses(&broker).await;
    calls(&broker).await;
    turns::caps(&broker).await;
    turns::serial(&broker).await;
    keys::idempotency(&broker).await;
    keys::unique(&broker).await;
    keys::once(&broker).await;
    keys::rates(&broker).await;
    letters::dead(&broker).await;
    letters::parked(&broker).await;
    overview::amounts(&broker).await;
    overview::subjects(&broker, url).await;
}

/// What takes its time, beside the rest.
async fn in_time(url: &str) {
    let broker = Broker::connect(options(url)).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    layout(&broker, url).await;
    recurring::patterns(&broker, url).await;
    recurring::every(&broker).await;
    recurring::cron(&broker, url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_does_what_hosts_rely_on() {
    let nats = Nats::start().await.unwrap();
    suite(&nats.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_double_does_what_hosts_rely_on() {
    let double = BrokerDouble::start().await.unwrap();
    suite(double.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_bounds_the_batches_under_way() {
    let nats = Nats::start().await.unwrap();
    batches_under_way(&nats.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_double_bounds_the_batches_under_way() {
    let double = BrokerDouble::start().await.unwrap();
    batches_under_way(double.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_fires_what_recurs_until_it_is_told_otherwise() {
    let nats = Nats::start().await.unwrap();
    in_time(&nats.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_double_fires_what_recurs_until_it_is_told_otherwise() {
    let double = BrokerDouble::start().await.unwrap();
    in_time(double.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_keeps_entries_for_their_time() {
    let nats = Nats::start().await.unwrap();
    keys::ends(&nats.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_double_keeps_entries_for_their_time() {
    let double = BrokerDouble::start().await.unwrap();
    keys::ends(double.url()).await;
}
