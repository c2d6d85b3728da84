//! Attempts of tasks.

use plugin_api::abi::code;
use serde_json::{Value, json};

use super::host::{Started, wait_logged};
use super::plugin::Good;

/// The places of the tasks in the list.
const ADD_UP: u32 = 0;
const TRAP: u32 = 1;

/// Runs an attempt; its one outcome: code, delay and value.
fn attempt(started: &Started, task: u32, body: &str) -> (u32, u64, Value) {
    let held = started.attempt(task, body);
    assert_eq!((held.outcomes.len(), held.releases), (1, 1));
    let outcome = &held.outcomes[0];
    (outcome.code, outcome.delay_ms, serde_json::from_slice(outcome.value.as_slice()).unwrap())
}

#[test]
fn each_way_to_end_an_attempt_has_its_code() {
    let started = Started::new::<Good>(&json!({}));
    let run = |lines: Value| attempt(&started, ADD_UP, &json!({ "lines": lines }).to_string());
    let failure = |message: &str| json!({ "message": message });
    assert_eq!(run(json!([4, 5])), (code::TASK_SUCCEEDED, 0, json!(9)));
    assert_eq!(run(json!([])), (code::TASK_DISCARDED, 0, failure("nothing to add up")));
    assert_eq!(run(json!([1])), (code::TASK_FAILED, 0, failure("one is no sum")));
    assert_eq!(run(json!([2])), (code::TASK_PANICKED, 0, failure("the task panicked")));
    assert_eq!(run(json!([3])), (code::TASK_RETRY, 0, failure("invalid digit found in string")));
    let again = json!({ "message": "come again", "details": { "n": 0 } });
    assert_eq!(run(json!([0])), (code::TASK_RETRY_AFTER, 1500, again));
}

#[test]
fn handler_that_is_told_of_its_cancellation_ends_as_it_wants() {
    let started = Started::new::<Good>(&json!({}));
    let attempt = started.start_attempt(ADD_UP, r#"{"lines":[4]}"#);
    wait_logged("waiting for its cancellation");
    // As often as the host wants.
    attempt.cancel_softly();
    attempt.cancel_softly();
    let held = attempt.end();
    assert_eq!((held.outcomes.len(), held.releases), (1, 1));
    assert_eq!(held.outcomes[0].code, code::TASK_SUCCEEDED);
}

#[test]
fn body_that_does_not_fit_is_undecodable_and_says_where() {
    let started = Started::new::<Good>(&json!({}));
    for (body, place) in [
        (r#"{"lines": [1, "two"]}"#, "`lines[1]`"),
        (r#"{"lines": [-1]}"#, "`lines[0]`"),
        ("{}", "missing field `lines`"),
        ("", "EOF"),
        ("{\"lines\": [1", "EOF"),
    ] {
        let (code, _, failure) = attempt(&started, ADD_UP, body);
        assert_eq!(code, code::TASK_UNDECODABLE, "{body}");
        assert!(failure["message"].as_str().unwrap().contains(place), "{place} in {failure}");
    }
}

#[test]
fn panic_while_reading_the_body_is_an_outcome() {
    let started = Started::new::<Good>(&json!({}));
    assert_eq!(
        attempt(&started, TRAP, "null"),
        (code::TASK_PANICKED, 0, json!({ "message": "reading panicked" }))
    );
}

#[test]
fn task_that_describe_did_not_list_is_undecodable() {
    let started = Started::new::<Good>(&json!({}));
    for task in [2, u32::MAX] {
        assert_eq!(attempt(&started, task, "{}").0, code::TASK_UNDECODABLE);
    }
}
