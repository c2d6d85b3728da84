//! `cardcage plugin describe`: what a library declares, asked in a process of its own.

use std::process::Command;

use cardcage_harness::plugin_library;

use super::{Folder, cardcage, hello, is_one_sentence_about, json, stderr, stdout, trap, unfit};

#[test]
fn describe_shows_routes_tasks_schedules_and_schemas() {
    let orders = plugin_library("orders").unwrap();
    let output = cardcage(&["plugin", "describe", orders.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    for words in ["Routes:", "Tasks:", "fulfil", "Body of the task fulfil:", "\"type\": \"object\""] {
        assert!(text.contains(words), "{words} is in {text}");
    }
    let answer = json(&cardcage(&["plugin", "describe", "--json", orders.to_str().unwrap()]));
    assert_eq!(answer["manifest"]["name"], "orders");
    assert!(answer["tasks"].as_array().unwrap().iter().any(|task| task["name"] == "fulfil"));
    assert!(answer["openapi"]["paths"].as_object().is_some_and(|paths| !paths.is_empty()));
    assert_eq!(answer["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn describe_shows_schedules() {
    let chaos = plugin_library("chaos").unwrap();
    let at_three = r#"{"nightly":{"cron":"0 0 3 * * *","time_zone":"Europe/Berlin","order":{"mode":"ok"}}}"#;
    let describe = |schedules: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cardcage"));
        command.args(["plugin", "describe", chaos.to_str().unwrap()]).args(more);
        command.env("CARDCAGE_CHAOS_SCHEDULES", schedules).output().unwrap()
    };
    let text = stdout(&describe(at_three, &[]));
    for words in ["Schedules:", "nightly", "0 0 3 * * *", "Europe/Berlin"] {
        assert!(text.contains(words), "{words} is in {text}");
    }
    let answer = json(&describe(at_three, &["--json"]));
    assert_eq!(answer["schedules"][0]["name"], "nightly", "{answer}");
    let five_fields = at_three.replacen("0 0 3", "0 3", 1);
    let refused = describe(&five_fields, &["--json"]);
    assert_eq!(json(&refused)["refused"]["code"], "bad_description", "{refused:?}");
}

#[test]
fn describe_refuses_every_unfit_file_in_one_sentence() {
    let folder = Folder::new();
    for (file, code, word) in unfit(&folder) {
        let output = cardcage(&["plugin", "describe", "--json", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70), "{}: {output:?}", file.display());
        is_one_sentence_about(&stderr(&output), &file, word);
        assert!(stderr(&output).contains(&format!("refused ({code}): ")), "{output:?}");
        assert_eq!(json(&output)["refused"]["code"], code, "{output:?}");
        let output = cardcage(&["plugin", "describe", file.to_str().unwrap()]);
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(70)), "{output:?}");
    }
}

#[test]
fn describe_outlives_a_library_that_crashes_exits_or_hangs_and_names_it() {
    let folder = Folder::new();
    for (name, what, words) in [
        ("crashes", "std::process::abort()", "SIGABRT"),
        ("exits", "std::process::exit(3)", "exit(3)"),
        ("hangs", "loop { std::thread::park() }", "hangs in `open`"),
    ] {
        let file = trap(&folder, name, what);
        let file_text = file.to_str().unwrap();
        let output = cardcage(&["plugin", "describe", file_text, "--set", "loading.timeout_ms=1000"]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains(words) && told.contains(file_text), "{told}");
    }
}

#[test]
fn describe_says_what_goes_wrong_in_the_plugin_itself() {
    let chaos = plugin_library("chaos").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cardcage"))
        .args(["plugin", "describe", chaos.to_str().unwrap()])
        .env("CARDCAGE_CHAOS_DESCRIBE", "panic")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(stderr(&output).contains("panicked while it described itself"), "{output:?}");
    assert!(!stdout(&cardcage(&["plugin", "describe", hello().to_str().unwrap()])).is_empty());
}
