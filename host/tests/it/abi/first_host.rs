//! What is built today, and what was built against 1.1, in a host of 1.0: the other direction of time. That host is frozen
//! (`host/tests/fixtures/abi/1.0/host`); it has no broker, and calls a plugin's vtable itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use cardcage_harness::plugin_library;
use serde_json::{Value, json};

use super::{built, frozen};

/// Runs the host of 1.0 on a library, and answers the lines that it told.
#[track_caller]
fn run(library: &Path, work: &[&str]) -> Vec<String> {
    let output = Command::new(frozen::host()).arg(library).args(work).output().unwrap();
    let (told, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}, {work:?}: {:?}\n{told}{log}", library.display(), output.status);
    told.lines().map(str::to_owned).collect()
}

/// How the plugin describes itself there.
#[track_caller]
fn described(library: &Path) -> Value {
    let told = run(library, &[]);
    let [line] = told.as_slice() else { panic!("{told:?}") };
    serde_json::from_str(line.strip_prefix("described ").unwrap()).unwrap()
}

/// Where a route or a task stands in the description.
#[track_caller]
fn place(description: &Value, kind: &str, member: &str, value: &str) -> String {
    let all = description[kind].as_array().unwrap();
    all.iter().position(|one| one[member] == value).unwrap().to_string()
}

/// The services that a plugin used there, by the last line.
fn used<'a>(told: &'a [String], service: &str) -> &'a str {
    let words = told.last().unwrap().split(' ');
    words
        .filter_map(|word| word.split_once('='))
        .find(|(name, _)| *name == service)
        .map_or("0", |(_, times)| times)
}

#[test]
fn plugin_of_this_sdk_runs_in_a_host_of_1_0() {
    let library = plugin_library("hello").unwrap();
    let description = described(&library);
    let route = |path: &str| place(&description, "routes", "path", path);
    let (inline, call, echo) =
        (route("/inline"), route("/call"), place(&description, "tasks", "name", "echo"));
    let told = run(
        &library,
        &[
            &[r#"{"greeting":"Good day"}"#],
            &["call", &inline, "GET", "/inline?name=you", ""][..],
            &["call", &call, "POST", "/call", "whole"],
            &["stream", &call, "POST", "/call", "piece by piece"],
            &["task", &echo, r#"{"n":1}"#],
        ]
        .concat(),
    );
    let seen =
        ["called 200 Good day, you!", "called 200 whole", "called 200 piece by piece", r#"ran 0 {"n":1}"#];
    assert_eq!(told[1..=4], seen, "{told:?}");
    assert_eq!(told[5], r#"healthy {"ok":true}"#, "{told:?}");
    assert_eq!((used(&told, "complete"), used(&told, "task_complete")), ("3", "1"), "{told:?}");
}

/// The frozen plugin's source, whatever it was built against.
fn runs(name: &str, library: &Path) {
    let description = described(library);
    let route = |path: &str| place(&description, "routes", "path", path);
    let (facts, echo, work) = (route("/facts"), route("/echo"), place(&description, "tasks", "name", "work"));
    let told = run(
        library,
        &[
            &[r#"{"colour":"green"}"#],
            &["call", &facts, "GET", "/facts", ""][..],
            &["call", &echo, "POST", "/echo", "whole"],
            &["stream", &echo, "POST", "/echo", "piece by piece"],
            &["task", &work, "{}"],
        ]
        .concat(),
    );
    // What 1.1 brought is not there, and the plugin is told so.
    let facts: Value = serde_json::from_str(told[1].strip_prefix("called 200 ").unwrap()).unwrap();
    assert_eq!(
        (&facts["config"], &facts["next"], &facts["ext_at_init"], &facts["ext_at_call"]),
        (&json!({ "colour": "green" }), &Value::Null, &json!(""), &json!("")),
        "{name}"
    );
    assert_eq!(told[2..=3], ["called 200 whole", "called 200 piece by piece"], "{name}: {told:?}");
    assert_eq!(told[4], r#"ran 0 {"attempt":1,"looked":0,"unheard_of":4}"#, "{name}");
    assert_eq!(told[5], r#"healthy {"ok":true}"#, "{name}");
    for (service, times) in
        [("log", "1"), ("span", "1"), ("metric", "1"), ("ask", "2"), ("task_progress", "1")]
    {
        assert_eq!(used(&told, service), times, "{name}, {service}: {told:?}");
    }
}

#[test]
fn plugins_of_1_0_of_this_and_of_a_later_minor_run_in_a_host_of_1_0() {
    for name in ["elder", "peer", "younger"] {
        runs(name, &built::library(name));
    }
}

#[test]
fn host_of_1_0_refuses_another_layout_and_what_does_not_start() {
    let refused = |library: PathBuf, work: &[&str], why: &str| {
        let output = Command::new(frozen::host()).arg(&library).args(work).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{}: {output:?}", library.display());
        assert!(said.contains(why), "{}: {said}", library.display());
    };
    refused(built::library("stray"), &[], "does not fit");
    refused(plugin_library("hello").unwrap(), &[r#"{"greeting":7}"#], "greeting");
}
