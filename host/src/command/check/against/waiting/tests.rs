//! Dead letters, counted by whom a replay of them has today and would have.

use std::sync::Arc;

use bytes::Bytes;
use cardcage_protocol::{Priority, TaskAddress, TaskId, Timestamp};
use serde_json::json;

use super::*;

/// `shop` in this version, whose task takes numbers from `minimum` on.
fn shop(version: &str, minimum: u64, upcasts: bool) -> Description {
    let schema = json!({ "type": "integer", "minimum": minimum });
    let task = json!({ "name": "pay", "input_schema": schema, "upcasts": upcasts });
    let all = json!({ "name": "shop", "version": version, "routes": [], "tasks": [task] });
    serde_json::from_value(all).unwrap()
}

/// The count of one dead letter of 1.0.0 with the body `5`.
fn counted(deployed: &[&Description], candidate: &[&Description]) -> Count {
    let address = TaskAddress {
        plugin: Name::new("shop").unwrap(),
        major: 1,
        task: Name::new("pay").unwrap(),
        priority: Priority::Normal,
        id: TaskId::generate(),
    };
    let body = Bytes::from_static(b"5");
    let letter = TaskEnvelope::new(address, Arc::from("1.0.0"), Timestamp::now(), body);
    let deployed = deployed.iter().map(|one| Takers::new([*one])).collect();
    let both = Both { deployed, candidate: Takers::new(candidate.iter().copied()) };
    let mut waiting = Waiting::default();
    waiting.add(&both, In::Dead, Some(&letter));
    waiting.counts.pop_first().unwrap().1
}

#[test]
fn letter_is_lost_where_a_version_of_today_takes_it_and_the_candidate_does_not() {
    let (takes, takes_less) = (shop("1.0.0", 0, false), shop("1.1.0", 10, false));
    let less = counted(&[&takes], &[&takes_less]);
    assert_eq!((less.dead, less.unfit_dead, less.lost_dead), (1, 1, 1));
    // One of two that are live is enough.
    let either = counted(&[&takes, &takes_less], &[&takes_less]);
    assert_eq!((either.unfit_dead, either.lost_dead), (1, 1));
    let nobody = counted(&[&takes], &[&shop("2.0.0", 0, false)]);
    assert_eq!((nobody.is_taken, nobody.unfit_dead, nobody.lost_dead), (false, 0, 1));
}

#[test]
fn letter_that_nobody_takes_today_or_that_an_upcaster_may_take_is_not_lost() {
    let (takes, takes_less) = (shop("1.0.0", 0, false), shop("1.1.0", 10, false));
    let same = counted(&[&takes_less], &[&takes_less]);
    assert_eq!((same.unfit_dead, same.lost_dead), (1, 0), "what is deployed does not break itself");
    let gone = counted(&[&takes_less], &[]);
    assert_eq!((gone.is_taken, gone.lost_dead), (false, 0));
    let upcast = counted(&[&takes], &[&shop("1.2.0", 10, true)]);
    assert_eq!((upcast.is_upcast, upcast.unfit_dead, upcast.lost_dead), (true, 1, 0));
}

#[test]
fn task_whose_schema_is_none_has_a_taker_that_is_held_against_no_body() {
    let mut none = shop("1.1.0", 0, false);
    none.tasks[0].input_schema = json!({ "type": 7 });
    let takes = shop("1.0.0", 0, false);
    let count = counted(&[&takes], &[&none]);
    assert_eq!((count.is_taken, count.is_uncompared), (true, true));
    assert_eq!((count.unfit_dead, count.lost_dead), (0, 0), "a worker runs it all the same");
    assert!(!counted(&[&none], &[&takes]).is_uncompared);
}
