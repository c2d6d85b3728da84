//! A minute of torture with a fixed seed, as a person starts it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml covers only the test functions"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_minute_of_kills_loses_doubles_invents_and_corrupts_nothing() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (json, logs) = (folder.join("torture.json"), folder.join("torture-logs"));
    let output = Command::new(env!("CARGO_BIN_EXE_cardcage-torture"))
        .args(["--seconds", "60", "--seed", "20261125", "--json"])
        .arg(&json)
        .arg("--logs")
        .arg(&logs)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = format!("{}\nlogs of a failed run: {}", String::from_utf8_lossy(&told), logs.display());
    assert!(output.status.success(), "{told}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for what in ["lost", "phantom", "corrupt", "double_final", "denied", "vacuous"] {
        assert_eq!(report["verdict"][what], Value::Array(Vec::new()), "{told}");
    }
    // What the judge asks for is asked for here once more, of the numbers that it was given.
    let kills: u64 = report["kills"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let (of_broker, accepted) = (&report["kills"]["Broker"], &report["verdict"]["accepted"]);
    assert!(kills >= 20 && of_broker.as_u64() >= Some(5) && accepted.as_u64() >= Some(2_000), "{told}");
}

#[test]
fn run_in_which_too_little_is_accepted_is_not_passed() {
    let output = Command::new(env!("CARGO_BIN_EXE_cardcage-torture"))
        .args(["--seconds", "10", "--seed", "1", "--rate", "5"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("accepted tasks in 10 s, at least 333 are due"), "{told}");
}
