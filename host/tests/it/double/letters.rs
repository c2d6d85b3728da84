//! Tasks that stand beside the queues: dead letters and parked tasks, written, found, and brought back.

use super::*;
use cardcage::broker::{DeadLetter, LetterFilter, replay_id};
use cardcage_protocol::Parking;

/// A task has one letter, and a letter one replay, after which it is gone.
pub(super) async fn dead(broker: &Broker) {
    let one = envelope();
    let letter = DeadLetter {
        envelope: &one,
        reason: "of no use",
        code: "failed",
        error: None,
        attempts: &[],
        attempts_omitted: 3,
    };
    broker.publish_dead(letter, WAIT).await.unwrap();
    broker.publish_dead(DeadLetter { reason: "again", ..letter }, WAIT).await.unwrap();
    let found = broker.find_letter(one.id).await.unwrap().unwrap();
    assert_eq!(
        (found.reason.as_str(), found.code.as_str(), found.attempts_omitted),
        ("of no use", "failed", 3)
    );
    assert_eq!(found.envelope.as_ref().unwrap().body, one.body);
    let (newest, extent) = broker.newest_letters(&LetterFilter::default(), 10).await.unwrap();
    assert!(newest.len() == 1 && extent.complete, "{newest:?}");
    let mut all =
        broker.letters(LetterFilter { plugin: Some(plugin()), ..Default::default() }).await.unwrap();
    assert_eq!(all.next_page().await.unwrap().len(), 1);
    assert!(all.next_page().await.unwrap().is_empty());
    let replayed = broker.replay_letter(&found, WAIT).await.unwrap();
    assert_eq!((replayed.id, replayed.earlier), (replay_id(one.id), false));
    assert!(broker.find_letter(one.id).await.unwrap().is_none());
    assert!(broker.replay_letter(&found, WAIT).await.unwrap().earlier);
    let mut pull = pull(broker, 2);
    let delivery = next(&mut pull).await;
    let again = delivery.envelope(broker.subjects()).unwrap();
    assert_eq!((again.id, again.parent_id), (replayed.id, Some(one.id)));
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    nothing_comes(&mut pull).await;
    assert!(pull.close().await.is_empty());
}

/// There is one parking per task, the latest; what comes back does so once.
pub(super) async fn parked(broker: &Broker) {
    let one = envelope();
    let parking = |message| Parking::of(message, vec!["a".into(), "b".into()], None);
    broker.publish_parked(&one, &parking(7), "unreadable", WAIT).await.unwrap();
    broker.publish_parked(&one, &parking(7), "unreadable", WAIT).await.unwrap();
    let first = broker.find_parked(one.id).await.unwrap().unwrap();
    assert_eq!((first.reason.as_str(), first.message, first.schemas.len()), ("unreadable", Some(7), 2));
    assert_eq!(first.envelope.as_ref().unwrap().body, one.body);
    broker.publish_parked(&one, &parking(8), "still unreadable", WAIT).await.unwrap();
    let (page, _) = broker.parked_page(&plugin(), &task(), 1, 10).await.unwrap().unwrap();
    let [latest] = page.as_slice() else { panic!("{page:?}") };
    assert_eq!((latest.message, latest.reason.as_str()), (Some(8), "still unreadable"));
    // The message that was replaced is not the one that is there.
    broker.remove_parked(&first).await.unwrap();
    assert!(broker.find_parked(one.id).await.unwrap().is_some());
    assert!(!broker.publish_unparked(latest, WAIT).await.unwrap().duplicate);
    assert!(broker.publish_unparked(latest, WAIT).await.unwrap().duplicate);
    broker.remove_parked(latest).await.unwrap();
    assert!(broker.find_parked(one.id).await.unwrap().is_none());
    assert!(!broker.purge_parked(one.id).await.unwrap());
    let mut pull = pull(broker, 2);
    let delivery = next(&mut pull).await;
    let back = delivery.envelope(broker.subjects()).unwrap();
    assert_eq!((back.id, back.unparked, back.body), (one.id, true, one.body));
    broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    nothing_comes(&mut pull).await;
    assert!(pull.close().await.is_empty());
}
