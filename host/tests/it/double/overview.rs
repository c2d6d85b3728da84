//! What the broker tells of its streams as wholes.

use super::*;
use serde_json::{Value, json};

/// A queue that nobody has ever consumed is found by its subjects, and each store tells since when its oldest is there.
pub(super) async fn amounts(broker: &Broker) {
    let before = Timestamp::from_unix_ms(broker.now_unix_ms());
    let unheard = Name::new("unheard").unwrap();
    let one = TaskEnvelope { task: unheard.clone(), ..envelope() };
    broker.publish_task(&one, WAIT).await.unwrap();
    let all = broker.queues(Some(&plugin())).await.unwrap();
    let queue = all.queues.iter().find(|queue| queue.task == unheard).unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!((queue.waiting, queue.leased, queue.consumed), (1, 0, false), "{queue:?}");
    assert!(queue.oldest.is_some_and(|oldest| oldest >= before), "{queue:?}");
    assert!(broker.purge_task(&plugin(), one.id).await.unwrap());
    let stores = broker.stores().await.unwrap();
    assert_eq!(stores.len(), 7, "{stores:?}");
    let (mut full, mut empty) = (0, 0);
    for store in &stores {
        assert_eq!(store.oldest.is_some(), store.messages > 0, "{store:?}");
        let now = Timestamp::from_unix_ms(broker.now_unix_ms());
        assert!(
            store.oldest.is_none_or(|oldest| oldest <= now && oldest.plus_ms(600_000) > now),
            "{store:?}"
        );
        *(if store.messages > 0 { &mut full } else { &mut empty }) += 1;
    }
    assert!(full > 0 && empty > 0, "{stores:?}");
}

/// Subjects with their numbers of messages, those of a filter, and from an offset on.
pub(super) async fn subjects(broker: &Broker, url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let (one, two) = (TaskId::generate(), TaskId::generate());
    let value = serde_json::value::to_raw_value("done").unwrap();
    for (id, keys) in [(one, ["a", "b"]), (two, ["a", "c"])] {
        for key in keys {
            broker.record_once(id, key, 1, &value).await.unwrap();
        }
    }
    let stream = broker.subjects().limits_stream();
    let info = async |request: Value| {
        let answer =
            client.request(format!("$JS.API.STREAM.INFO.{stream}"), request.to_string().into()).await;
        serde_json::from_slice::<Value>(&answer.unwrap().payload).unwrap()
    };
    let told = |answer: &Value| {
        let pages = ["total", "offset", "limit"].map(|name| answer[name].as_u64());
        (answer["state"]["subjects"].clone(), pages)
    };
    let nothing = (Value::Null, [Some(0), Some(0), Some(0)]);
    assert_eq!(told(&info(json!({})).await), nothing);
    let of_one = broker.subjects().once(one, "*");
    let (a, b) = (broker.subjects().once(one, "a"), broker.subjects().once(one, "b"));
    let all = info(json!({ "subjects_filter": of_one })).await;
    assert_eq!(told(&all), (json!({ a: 1, b.clone(): 1 }), [Some(2), Some(0), Some(100_000)]));
    let rest = info(json!({ "subjects_filter": of_one, "offset": 1 })).await;
    assert_eq!(told(&rest), (json!({ b: 1 }), [Some(2), Some(1), Some(100_000)]));
    let none = info(json!({ "subjects_filter": broker.subjects().once(TaskId::generate(), "*") })).await;
    assert_eq!(told(&none), nothing);
}
