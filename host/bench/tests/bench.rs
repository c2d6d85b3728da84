//! The bench as a person starts it, cut short.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml covers only the test functions"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cardcage-bench")).args(arguments).output().unwrap()
}

/// Runs a smoke with these arguments too and returns the JSON it wrote.
fn smoke(name: &str, arguments: &[&str]) -> Value {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = file.to_str().unwrap();
    let output = bench(&[&["--smoke", "--allow-debug", "--json", file], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The sides of each row, and that each of them has done something.
fn sides(report: &Value) -> Vec<(String, u64, Vec<String>)> {
    let rows = report["rows"].as_array().unwrap();
    let side = |side: &Value| {
        assert!(side["requests_per_s"]["median"].as_f64().unwrap() > 0.0, "{side}");
        assert!(side["p99_us"]["median"].as_f64() >= side["p50_us"]["median"].as_f64(), "{side}");
        side["side"].as_str().unwrap().to_owned()
    };
    let row = |row: &Value| {
        let sides = row["sides"].as_array().unwrap().iter().map(side).collect();
        (row["path"].as_str().unwrap().to_owned(), row["callers"].as_u64().unwrap(), sides)
    };
    rows.iter().map(row).collect()
}

#[test]
fn smoke_measures_every_floor_under_every_load() {
    let sides = sides(&smoke("floors.json", &["--floors-only"]));
    let expected = [
        ("inline", 32, "floor"),
        ("inline", 1, "floor"),
        ("call", 32, "floor"),
        ("call", 1, "floor"),
        ("task", 256, "floor plain"),
        ("task", 32, "floor plain"),
        ("task", 1, "floor plain"),
        ("enqueue", 32, "floor"),
        ("enqueue", 1, "floor"),
    ];
    let found: Vec<_> =
        sides.iter().map(|(path, callers, sides)| (path.as_str(), *callers, sides.join(" "))).collect();
    assert_eq!(found, expected.map(|(path, callers, sides)| (path, callers, sides.to_owned())));
}

#[test]
fn smoke_compares_cardcage_with_every_floor() {
    let paths = ["inline", "call", "task", "enqueue"].map(|path| ["--path", path]).concat();
    let report = smoke("cardcage.json", &paths);
    assert_eq!(report["trials"].as_array().unwrap().len(), 0);
    for (path, callers, sides) in sides(&report) {
        assert!(sides.iter().any(|side| side == "cardcage"), "{path}, {callers} callers: {sides:?}");
    }
    for row in report["rows"].as_array().unwrap() {
        assert!(row["ratio"]["median"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn smoke_of_every_trial_finds_what_it_is_for() {
    let trials = ["workers", "half-load", "backlog", "due", "memory", "startup"];
    let report = smoke("trials.json", &trials.map(|trial| ["--path", trial]).concat());
    assert_eq!(report["rows"].as_array().unwrap().len(), 0);
    let findings = report["trials"].as_array().unwrap();
    let of = |trial: &str| {
        let of: Vec<_> = findings.iter().filter(|finding| finding["trial"] == trial).collect();
        of.iter().map(|finding| finding["value"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (workers, half, backlog, due, memory) =
        (of("workers"), of("half_load"), of("backlog"), of("due"), of("memory"));
    let startup = of("startup");
    assert_eq!(startup.len(), 8);
    let [first, all, memory_each, threads_each] = startup[..4] else { panic!("of the api: {startup:?}") };
    assert!(first > 0.0 && all > first && memory_each > 0.0 && threads_each > 0.5, "{startup:?}");
    assert_eq!((workers.len(), half.len(), backlog.len(), due.len(), memory.len()), (6, 3, 2, 6, 11));
    assert!(due.chunks(3).all(<[f64]>::is_sorted), "p50, p99 and the latest of both loads: {due:?}");
    for value in [workers, half, backlog, memory].concat() {
        assert!(value > 0.0, "{findings:?}");
    }
}

/// Two minutes are the shortest time to live of records: it mostly waits.
#[test]
fn nothing_is_left_of_thousands_of_tasks_of_all_kinds_after_their_time_to_live() {
    let report = smoke("residue.json", &["--path", "residue"]);
    let findings = report["trials"].as_array().unwrap();
    let values: Vec<f64> = findings.iter().map(|finding| finding["value"].as_f64().unwrap()).collect();
    assert_eq!(values.len(), 4, "{findings:?}");
    assert!(
        values[0] > 3_000.0 && values[1] < 4.0,
        "records, then what hosts say of themselves: {findings:?}"
    );
    assert!(values[2] <= 1.1 && values[3] <= 1.1, "resident memory: {findings:?}");
}

#[test]
fn paths_that_have_no_floor_are_refused_where_only_floors_are_wanted() {
    let output = bench(&["--floors-only", "--path", "memory", "--allow-debug"]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("no floor"), "{complaint}");
}

#[test]
fn debug_build_is_refused_and_the_refusal_says_what_to_do() {
    if !cfg!(debug_assertions) {
        return;
    }
    let output = bench(&["--smoke", "--floors-only"]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("--allow-debug"), "{complaint}");
}
