//! Who may run now: caps of consumers, and the turns of serial keys.

use super::*;
use cardcage::broker::{SerialCursor, Turn, TurnClaim, key_hash};

/// With a cap of one, the second task comes after the first one's acknowledgement, whoever asks.
pub(super) async fn caps(broker: &Broker) {
    let task = Name::new("capped").unwrap();
    let spec = ConsumerSpec::task(broker.options(), broker.subjects(), &plugin(), 1, &task);
    let spec = spec.declared("1.2.3", Some(1));
    let (one, two) = (TaskEnvelope { task: task.clone(), ..envelope() }, TaskEnvelope { task, ..envelope() });
    for task in [&one, &two] {
        broker.publish_task(task, WAIT).await.unwrap();
    }
    let (mut pull, mut other) = (Pull::new(broker, spec.clone()), Pull::new(broker, spec));
    pull.add_demand(2);
    let first = next(&mut pull).await;
    assert_eq!(first.envelope(broker.subjects()).unwrap().id, one.id);
    other.add_demand(1);
    nothing_comes(&mut pull).await;
    nothing_comes(&mut other).await;
    broker.ack(first.ack_subject(), Ack::Done).await.unwrap();
    let second = tokio::select! { second = next(&mut pull) => second, second = next(&mut other) => second };
    assert_eq!(second.envelope(broker.subjects()).unwrap().id, two.id);
    broker.ack(second.ack_subject(), Ack::Done).await.unwrap();
    assert!(pull.close().await.is_empty() && other.close().await.is_empty());
}

/// A turn is one task's; the next in line gets it from whoever ends it, and from a sweep where nobody does.
pub(super) async fn serial(broker: &Broker) {
    let key = key_hash(&["orders", "fulfil", &TaskId::generate().to_string()]);
    let tasks = [envelope(), envelope(), envelope()];
    for task in &tasks {
        broker.publish_task(task, WAIT).await.unwrap();
    }
    let mut pull = pull(broker, 3);
    let mut turns = Vec::new();
    for task in &tasks {
        let delivery = next(&mut pull).await;
        assert_eq!(delivery.envelope(broker.subjects()).unwrap().id, task.id);
        let turn = Turn::of_delivery(task.id, 1, &delivery);
        let claim = broker.take_turn(&key, &plugin(), turn).await.unwrap();
        let first = turns.is_empty();
        assert_eq!(claim, if first { TurnClaim::Mine(1) } else { TurnClaim::Busy });
        if !first {
            broker.join_line(&key, &delivery, &task.address(), turn).await.unwrap();
            broker.start_line(&key).await.unwrap();
        }
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
        turns.push(turn);
    }
    assert_eq!(broker.lines_amount(&plugin(), Some(&task())).await.unwrap().count, 2);
    broker.pass_on(&key, turns[0]).await.unwrap();
    let takes_its_turn = async |pull: &mut Pull, task: &TaskEnvelope| {
        pull.add_demand(1);
        let delivery = next(pull).await;
        assert_eq!(delivery.envelope(broker.subjects()).unwrap().id, task.id);
        let turn = Turn::of_delivery(task.id, 1, &delivery);
        assert_eq!(broker.take_turn(&key, &plugin(), turn).await.unwrap(), TurnClaim::Mine(1));
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
        turn
    };
    takes_its_turn(&mut pull, &tasks[1]).await;
    // Its message is gone and its end was never told: a sweep finds the turn.
    let mut cursor = SerialCursor::default();
    assert_eq!(broker.sweep_serial(Duration::ZERO, &mut cursor).await.unwrap(), 1);
    let last = takes_its_turn(&mut pull, &tasks[2]).await;
    broker.pass_on(&key, last).await.unwrap();
    assert_eq!(broker.sweep_serial(Duration::ZERO, &mut cursor).await.unwrap(), 0);
    assert_eq!(broker.lines_amount(&plugin(), None).await.unwrap().count, 0);
    assert!(pull.close().await.is_empty());
}
