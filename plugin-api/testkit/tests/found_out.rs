//! Each rule of the conformance check fails for what it is about, with a sentence, and for nothing else: `fickle` breaks
//! one at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use plugin_api::http::Method;
use serde_json::json;
use testkit::{Conformance, Report, Rule, conformance, library};

/// What a call may take here: enough for a machine under load, and short for what never answers.
const PATIENCE_MS: u64 = 5_000;

fn fickle() -> Conformance {
    let good = || json!({ "good": true });
    conformance(library("cardcage-plugin-fickle").unwrap())
        .call(Method::POST, "/call", good())
        .call(Method::POST, "/inline", good())
        .task("work", good())
}

async fn with(fault: &str) -> Report {
    fickle().config(json!({ "fault": fault })).run().await.unwrap()
}

async fn impatiently(fault: &str) -> Report {
    let fickle = fickle().config(json!({ "fault": fault }));
    let fickle = fickle.option("api.call_timeout_ms", PATIENCE_MS).option("tasks.timeout_ms", PATIENCE_MS);
    fickle.run().await.unwrap()
}

/// Asserts that exactly these faults were found: rule, at what, and words of the sentence.
#[track_caller]
fn assert_found(report: &Report, expected: &[(Rule, &str, &str)]) {
    let found: Vec<_> = report.faults().collect();
    for (rule, at, words) in expected {
        let of = |finding: &&&testkit::Finding| {
            let sentence = finding.fault.as_deref().unwrap_or_default();
            finding.rule == *rule && finding.subject.contains(at) && sentence.contains(words)
        };
        assert!(found.iter().any(|finding| of(&finding)), "{rule:?} at {at} with {words}: {report}");
    }
    let is_expected = |finding: &testkit::Finding| {
        expected.iter().any(|(rule, at, _)| finding.rule == *rule && finding.subject.contains(at))
    };
    assert!(found.iter().all(|finding| is_expected(finding)), "something else as well: {report}");
}

const CALL_GARBAGE: (Rule, &str) = (Rule::Garbage, "POST /call with null");
const TASK_GARBAGE: (Rule, &str) = (Rule::Garbage, "work null");

fn at((rule, subject): (Rule, &'static str), words: &'static str) -> (Rule, &'static str, &'static str) {
    (rule, subject, words)
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_keeps_all_rules_is_looked_at_by_each_and_nothing_is_found() {
    let report = with("takes_time").await;
    report.assert_clean();
    for rule in [Rule::Describes, Rule::Starts, Rule::Garbage, Rule::Samples, Rule::Stops, Rule::Panics] {
        assert!(report.findings.iter().any(|finding| finding.rule == rule), "{rule:?} was looked at");
    }
    for host in ["the busy worker", "the busy api", "the idle worker", "the idle api"] {
        assert!(report.findings.iter().any(|finding| finding.subject == host), "{host}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_was_stopped_with_nothing_to_do_is_not_called_busy() {
    // It has no samples.
    let report = conformance(library("cardcage-plugin-fickle").unwrap()).run().await.unwrap();
    report.assert_clean();
    let looked_at = |host: &str| report.findings.iter().any(|finding| finding.subject == host);
    assert!(
        looked_at("the worker, with no handler seen at work") && !looked_at("the busy worker"),
        "{report:?}"
    );
    assert!(!looked_at("the busy api"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn good_request_that_no_handler_would_see_is_found_and_the_routes_are_named() {
    let fickle = fickle().config(json!({ "fault": "none" }));
    // As callers of the API write it: with the plugin's prefix.
    let report = fickle.call(Method::POST, "/fickle/call", json!({ "good": true })).run().await.unwrap();
    let words =
        "has no such route; it has POST /call, POST /inline, GET /named/{name}, each below its prefix";
    assert_found(&report, &[(Rule::Samples, "POST /fickle/call", words)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn description_that_panics_is_found() {
    let report = fickle().env("CARDCAGE_FICKLE_DESCRIBE", "panic").run().await.unwrap();
    assert_found(&report, &[(Rule::Describes, "describe", "panicked as told")]);
    assert_eq!(report.findings.len(), 1, "nothing more is looked at: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn description_that_is_another_one_each_time_is_found_and_told_where() {
    let report = fickle().env("CARDCAGE_FICKLE_DESCRIBE", "differ").run().await.unwrap();
    assert_found(&report, &[(Rule::Describes, "describe", "differently each time, in `schedules`")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn description_that_succeeds_only_once_is_found() {
    let file = std::env::temp_dir().join(format!("cardcage-fickle-{}", uuid::Uuid::new_v4().simple()));
    let once = format!("once={}", file.display());
    let report = fickle().env("CARDCAGE_FICKLE_DESCRIBE", once).run().await.unwrap();
    std::fs::remove_file(file).unwrap();
    let first = report.faults().next().unwrap();
    assert_eq!((first.rule, first.subject.as_str()), (Rule::Describes, "describe"), "{report}");
    let sentence = first.fault.as_deref().unwrap();
    assert!(sentence.contains("it described itself once, and then no more"), "{report}");
    // No host can load it either.
    assert!(report.breaks(Rule::Starts), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_a_handler_panics_on_is_found_in_its_answer_its_outcome_and_the_log() {
    let report = with("panic_on_garbage").await;
    let expected = [
        at(CALL_GARBAGE, "it is answered 500 handler_panicked"),
        at(TASK_GARBAGE, "it ended failed (panicked): panicked on garbage as told"),
        (Rule::Panics, "the log", "panicked on garbage as told"),
    ];
    assert_found(&report, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameter_in_a_path_that_a_handler_panics_on_is_found() {
    let report = with("panic_on_parameter").await;
    let expected = [
        (Rule::Garbage, "GET /named/%00", "it is answered 500 handler_panicked"),
        (Rule::Panics, "the log", "panicked on a name as told"),
    ];
    assert_found(&report, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_is_answered_with_an_error_of_the_server_is_found() {
    let report = with("fail_on_garbage").await;
    assert_found(&report, &[at(CALL_GARBAGE, "it is answered 500 internal")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_is_never_answered_is_found() {
    let report = impatiently("hang_on_garbage").await;
    let expected = [
        at(CALL_GARBAGE, "it is answered 504 deadline_exceeded"),
        at(TASK_GARBAGE, "it ended failed (timeout)"),
    ];
    assert_found(&report, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_ends_the_process_is_found() {
    let report = with("crash_on_garbage").await;
    let expected = [
        at(CALL_GARBAGE, "it is answered 502 worker_crashed"),
        at(TASK_GARBAGE, "it ended failed (crashed)"),
    ];
    assert_found(&report, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_is_broken_off_is_found() {
    let report = with("break_on_garbage").await;
    assert_found(&report, &[at(CALL_GARBAGE, "the answer is broken off")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_where_nobody_waits_for_an_answer_is_found_in_the_log() {
    let report = with("panic_aside").await;
    assert_found(&report, &[(Rule::Panics, "the log", "panicked aside as told")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_and_result_that_are_too_large_are_found() {
    let report = with("large_reply").await;
    let call = "/call {\"good\":true}";
    let too_large = "it is answered 502 reply_too_large";
    assert_found(&report, &[(Rule::Size, call, too_large), (Rule::Stops, call, too_large)]);
    let report = with("large_result").await;
    let task = "work {\"good\":true}";
    let too_large = "it ended failed (result_too_large)";
    assert_found(&report, &[(Rule::Size, task, too_large), (Rule::Stops, task, too_large)]);
}

/// Asserts that this host could not be stopped, and that nothing but stops is found.
#[track_caller]
fn assert_does_not_stop(report: &Report, host: &str) {
    assert!(report.faults().all(|one| one.rule == Rule::Stops), "{report}");
    let found = report.faults().find(|one| one.subject == host);
    let sentence = found.and_then(|one| one.fault.as_deref()).unwrap_or_default();
    assert!(sentence.contains("a host ended with exit status: 75"), "{host}: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_does_not_let_a_worker_stop_is_found() {
    assert_does_not_stop(&with("block_task").await, "the busy worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_does_not_let_a_worker_stop_is_found_and_that_it_is_cut_off() {
    let report = with("block_call").await;
    assert_does_not_stop(&report, "the busy worker");
    let call = "POST /call {\"good\":true} while the worker stops";
    assert!(report.faults().any(|one| one.subject == call), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn route_that_does_not_let_an_api_stop_is_found() {
    assert_does_not_stop(&with("block_inline").await, "the busy api");
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_and_crash_at_the_stop_are_found_although_nothing_is_under_way() {
    let report = with("panic_at_stop").await;
    assert_found(&report, &[(Rule::Panics, "the log", "panicked at the stop as told")]);
    let report = with("crash_at_stop").await;
    let is_a_host = |finding: &testkit::Finding| finding.subject.starts_with("the ");
    assert!(report.faults().all(|one| one.rule == Rule::Stops && is_a_host(one)), "{report}");
    // With samples under way, whether or not they were seen, and without.
    let of = |host: &str| report.faults().filter(|one| one.subject.contains(host)).count();
    assert!(of("worker") == 2 && of("api") == 3, "{report}");
    for host in ["the idle worker", "the idle api"] {
        assert!(report.faults().any(|one| one.subject == host), "{host}: {report}");
    }
}
