//! Keys: claimed by compare-and-set, told of to whoever comes second, and gone when their time is over.

use super::*;
use cardcage::broker::{Claim, UniqueClaim, key_hash};

fn key() -> String {
    key_hash(&["orders", &TaskId::generate().to_string()])
}

/// An idempotency key is claimed once; of several that begin its next round one does, and all go on with it.
pub(super) async fn idempotency(broker: &Broker) {
    let (key, one, other) = (key(), TaskId::generate(), TaskId::generate());
    assert_eq!(broker.claim_key(&key, one, b"{}", WAIT).await.unwrap(), Claim::Fresh);
    assert_eq!(broker.claim_key(&key, one, b"{}", WAIT).await.unwrap(), Claim::Fresh);
    let Claim::Existing(record) = broker.claim_key(&key, other, b"{}", WAIT).await.unwrap() else {
        panic!("claimed twice")
    };
    assert_eq!((record.task_id, record.stored, record.round), (one, false, 0));
    let (first, second) =
        tokio::join!(broker.next_round(&key, &record, WAIT), broker.next_round(&key, &record, WAIT));
    let first = first.unwrap();
    assert_eq!((first.round, second.unwrap()), (1, first.clone()));
    assert_eq!(
        broker.next_round(&key, &record, WAIT).await.unwrap(),
        first,
        "a late one goes on with it too"
    );
    broker.confirm_key(&key, one).await.unwrap();
    let Claim::Existing(record) = broker.claim_key(&key, other, b"{}", WAIT).await.unwrap() else {
        panic!("claimed twice")
    };
    assert!(record.stored);
}

/// A unique key is its task's until that has ended, and released by nobody else.
pub(super) async fn unique(broker: &Broker) {
    let (key, one, other) = (key(), envelope(), TaskId::generate());
    let claim = async |id| broker.claim_unique(&key, id, Duration::ZERO, WAIT).await.unwrap();
    assert_eq!(claim(one.id).await, UniqueClaim::Fresh);
    assert_eq!(claim(other).await, UniqueClaim::Unstored(one.id));
    broker.publish_task(&one, WAIT).await.unwrap();
    assert_eq!(claim(other).await, UniqueClaim::Held(one.id));
    broker.release_unique(&key, other).await.unwrap();
    assert_eq!(claim(other).await, UniqueClaim::Held(one.id));
    broker.release_unique(&key, one.id).await.unwrap();
    assert_eq!(claim(other).await, UniqueClaim::Fresh);
    assert!(broker.purge_task(&plugin(), one.id).await.unwrap());
    // A sweep releases the key of a task that has ended.
    broker
        .write_record(&mut TaskRecord::new(&TaskEnvelope { id: other, ..one }, State::Failed), 0)
        .await
        .unwrap();
    assert_eq!(broker.sweep_unique(Duration::ZERO, 1).await.unwrap(), (1, 1));
    assert_eq!(broker.sweep_unique(Duration::ZERO, 1).await.unwrap(), (0, 1));
}

/// What an attempt did once stands, whoever comes second.
pub(super) async fn once(broker: &Broker) {
    let (key, id) = (key(), TaskId::generate());
    let value = |text: &str| serde_json::value::to_raw_value(text).unwrap();
    assert!(broker.recorded_once(id, &key).await.unwrap().is_none());
    assert!(broker.record_once(id, &key, 1, &value("first")).await.unwrap().is_none());
    let stands = broker.record_once(id, &key, 2, &value("second")).await.unwrap().unwrap();
    assert_eq!(stands.get(), "\"first\"");
    assert_eq!(broker.recorded_once(id, &key).await.unwrap().unwrap().get(), "\"first\"");
    assert_eq!(broker.count_once(id).await.unwrap(), 1);
}

/// Starts at a rate are reserved one after the other, however many reserve at once.
pub(super) async fn rates(broker: &Broker) {
    let (plugin, task) = (plugin(), Name::new("rated").unwrap());
    let rate: cardcage_protocol::Rate = "1/m".parse().unwrap();
    assert_eq!(broker.next_start(&plugin, &task).await.unwrap(), None);
    assert_eq!(broker.reserve_starts(&plugin, &task, rate, 1).await.unwrap(), Duration::ZERO);
    let first = broker.next_start(&plugin, &task).await.unwrap().unwrap();
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (broker, plugin, task) = (broker.clone(), plugin.clone(), task.clone());
        waits.spawn(async move { broker.reserve_starts(&plugin, &task, rate, 1).await.unwrap() });
    }
    let mut waits = waits.join_all().await;
    waits.sort_unstable();
    let minutes: Vec<u64> = waits.iter().map(|wait| wait.as_secs().div_ceil(60)).collect();
    assert_eq!(minutes, [1, 2, 3, 4, 5, 6, 7, 8], "{waits:?}");
    let last = broker.next_start(&plugin, &task).await.unwrap().unwrap();
    assert_eq!(last - first, 8 * 60_000_000);
}

/// What has a time to live is gone after it, what has none goes with its stream's age, and what never ends outlives that.
/// With a broker whose records are kept for two seconds.
pub(super) async fn ends(url: &str) {
    let broker =
        Broker::connect(Options { result_ttl: Duration::from_secs(2), ..options(url) }).await.unwrap();
    broker.wait_connected(WAIT).await.unwrap();
    broker.ensure_layout(&[plugin()]).await.unwrap();
    broker.say_seen(&plugin(), Duration::from_secs(1)).await.unwrap();
    assert!(broker.is_seen(&plugin()).await.unwrap());
    let (running, ended) = (envelope(), envelope());
    broker.write_record(&mut TaskRecord::new(&running, State::Running), 0).await.unwrap();
    broker.write_record(&mut TaskRecord::new(&ended, State::Succeeded), 0).await.unwrap();
    let gone = async || (!broker.is_seen(&plugin()).await.unwrap()).then_some(());
    eventually(Deadline::after(WAIT), "an entry goes at its time", gone).await.unwrap();
    let gone = async || broker.read_record(ended.id).await.unwrap().is_none().then_some(());
    eventually(Deadline::after(WAIT), "a record goes at its age", gone).await.unwrap();
    // It was written before the one that has gone.
    assert!(broker.read_record(running.id).await.unwrap().is_some());
}
