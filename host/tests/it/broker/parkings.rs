//! Parkings of one task that overtake each other, as where whoever is at one stands still for a while: what comes back is what
//! its record says.

use cardcage::broker::{Broker, ParkedTask};
use cardcage::unpark::{Unparked, unpark};
use cardcage_harness::Nats;
use cardcage_protocol::{Parking, State, TaskEnvelope, TaskRecord};

use super::{WAIT, envelope, options, plugin, ready};

fn parking(message: u64, before: Option<&Parking>) -> Parking {
    Parking::of(message, vec![format!("schema-{message}")], before.cloned())
}

async fn parked(broker: &Broker, envelope: &TaskEnvelope) -> Option<ParkedTask> {
    broker.find_parked(envelope.id).await.unwrap()
}

async fn record(broker: &Broker, envelope: &TaskEnvelope, state: State, parking: &Parking) -> TaskRecord {
    let mut record = TaskRecord::new(envelope, state);
    record.parked = Some(parking.clone());
    broker.write_record(&mut record, 0).await.unwrap();
    record
}

/// The attempts of the task's messages in its queue.
async fn queued(broker: &Broker, envelope: &TaskEnvelope) -> Vec<u32> {
    let messages = broker.queued_messages(&plugin(), envelope.id).await.unwrap();
    messages.iter().map(|message| message.envelope.as_ref().unwrap().attempt).collect()
}

#[tokio::test]
async fn an_earlier_parking_does_not_take_the_place_of_a_later_one() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let envelope = envelope();
    let first = parking(5, None);
    let second = parking(7, Some(&first));
    let message = async || parked(&broker, &envelope).await.unwrap().message;
    broker.publish_parked(&envelope, &first, "not read", WAIT).await.unwrap();
    assert_eq!(message().await, Some(5));
    record(&broker, &envelope, State::Parked, &second).await;
    broker.publish_parked(&envelope, &second, "not read", WAIT).await.unwrap();
    assert_eq!(message().await, Some(7), "a later one does");
    // A copy that was parked before, by somebody who only now gets to it.
    broker.publish_parked(&envelope, &parking(6, None), "not read", WAIT).await.unwrap();
    assert_eq!(message().await, Some(7));
}

#[tokio::test]
async fn what_was_parked_before_the_last_time_does_not_come_back() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let envelope = envelope();
    let first = parking(5, None);
    broker.publish_parked(&envelope, &first, "not read", WAIT).await.unwrap();
    // It has come back since, and its latest message is about to be parked.
    record(&broker, &envelope, State::Parked, &parking(7, Some(&first))).await;
    let outdated = parked(&broker, &envelope).await.unwrap();
    assert_eq!(unpark(&broker, &outdated).await.unwrap(), Unparked::Gone);
    assert!(parked(&broker, &envelope).await.is_none(), "it is removed");
    assert_eq!(queued(&broker, &envelope).await, [0_u32; 0]);
    let (record, _) = broker.read_record(envelope.id).await.unwrap().unwrap();
    assert_eq!(record.state, State::Parked, "the latest one is still to come");
}

#[tokio::test]
async fn the_message_of_an_earlier_attempt_is_not_taken_for_the_task_that_comes_back() {
    let nats = Nats::start().await.unwrap();
    let broker = ready(options(&nats)).await;
    let first = envelope();
    // Its outcome is stored, and its acknowledgement was lost.
    broker.publish_task(&first, WAIT).await.unwrap();
    let second = TaskEnvelope { attempt: 2, ..first.clone() };
    let parking = parking(9, None);
    broker.publish_parked(&second, &parking, "not read", WAIT).await.unwrap();
    // Whoever brought it back died after the record.
    let back = Parking { back: true, ..parking };
    record(&broker, &second, State::Queued, &back).await;
    let found = parked(&broker, &second).await.unwrap();
    assert_eq!(unpark(&broker, &found).await.unwrap(), Unparked::Queued);
    assert_eq!(queued(&broker, &second).await, [1, 2]);
    assert!(parked(&broker, &second).await.is_none());
}
