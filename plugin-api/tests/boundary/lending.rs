//! Polls on the thread that the host lends.

use plugin_api::abi::code;
use serde_json::json;

use super::host::{Call, Started};
use super::plugin::Good;

const TURN: u32 = 7;

/// A plugin whose `/turn` is known to be short.
fn trusted() -> Started {
    let started = Started::new::<Good>(&json!({}));
    let in_place = (0..10_000).any(|_| {
        let call = started.call_lent(TURN, "/turn");
        let in_place = call.ended_in_place();
        answer(call);
        in_place
    });
    assert!(in_place, "a handler that is short many times in a row is polled in place");
    started
}

fn answer(call: Call<'_>) -> (u16, u32, String) {
    let held = call.end();
    assert_eq!((held.replies.len(), held.releases), (1, 1));
    let reply = &held.replies[0];
    (reply.status, reply.failure, reply.body.to_text().into_owned())
}

fn here() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn handler_begins_on_the_plugins_own_thread() {
    let started = Started::new::<Good>(&json!({}));
    let call = started.call_lent(TURN, "/turn");
    assert!(!call.ended_in_place());
    assert_eq!(answer(call), (200, 0, "good, good".into()));
}

#[test]
fn short_handler_is_answered_on_the_lent_thread_before_the_call_returns() {
    let started = trusted();
    let call = started.call_lent(TURN, "/turn");
    assert!(call.ended_in_place());
    assert_eq!(answer(call), (200, 0, format!("{0}, {0}", here())));
}

#[test]
fn handler_that_waits_goes_on_from_its_await_on_the_plugins_own_thread() {
    let started = trusted();
    let call = started.call_lent(TURN, "/turn?how=wait");
    assert!(!call.ended_in_place());
    assert_eq!(answer(call), (200, 0, format!("{}, good", here())));
}

#[test]
fn panic_on_the_lent_thread_is_an_answer_and_goes_no_further() {
    let started = trusted();
    let call = started.call_lent(TURN, "/turn?how=panic");
    assert!(call.ended_in_place());
    assert_eq!(answer(call), (0, code::PANICKED, "it took a bad turn".into()));
}

#[test]
fn handler_that_blocked_a_lent_thread_gets_no_other() {
    let started = trusted();
    assert!(started.call_lent(TURN, "/turn?how=block").ended_in_place());
    for _ in 0..100 {
        assert_eq!(answer(started.call_lent(TURN, "/turn")), (200, 0, "good, good".into()));
    }
}

#[test]
fn without_a_lent_thread_a_short_handler_runs_on_the_plugins_own() {
    let started = trusted();
    let answered = answer(started.call("GET", "/turn", super::host::none()));
    assert_eq!(answered, (200, 0, "good, good".into()));
}
