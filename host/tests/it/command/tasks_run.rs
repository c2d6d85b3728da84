//! `cardcage tasks run`: one task in the foreground, by itself.

use super::{Folder, cardcage, json, stderr, stdout};
use crate::serving::soon;
use cardcage_harness::{Cardcage, Config, Launch, Signal, eventually, plugin_library};
use serde_json::{Value, json};
use std::process::Output;

/// A configuration whose broker is nowhere.
fn config(folder: &Folder) -> String {
    let text = format!(
        "[broker]\nurl = \"nats://127.0.0.1:1\"\n[plugins.chaos]\nlibrary = \"{}\"\n",
        plugin_library("chaos").unwrap().display()
    );
    folder.file("cardcage.toml", text).display().to_string()
}

fn run(task: &str, body: &str, more: &[&str]) -> Output {
    let folder = Folder::new();
    let config = config(&folder);
    cardcage(&[&["tasks", "run", task, "--json", body, "--config", &config], more].concat())
}

#[test]
fn task_runs_without_a_broker_and_its_outcome_decides_the_exit_code() {
    for (body, code, outcome) in [
        (json!({ "mode": "ok" }), 0, "succeeded"),
        (json!({ "mode": "fail" }), 4, "retry"),
        (json!({ "mode": "retry_after", "ms": 1500 }), 4, "retry"),
        (json!({ "mode": "panic" }), 4, "panicked"),
        (json!({ "mode": "fail_for_good" }), 3, "failed"),
        (json!({ "mode": "discard" }), 5, "discarded"),
    ] {
        let output = run("chaos.chaos", &body.to_string(), &[]);
        assert_eq!(output.status.code(), Some(code), "{body}: {output:?}");
        let answer = json(&output);
        assert_eq!(answer["outcome"], outcome, "{answer}");
        assert_eq!(answer["enqueued"], json!([]));
        assert_eq!(answer["error"].is_object(), code != 0, "{answer}");
    }
}

#[test]
fn handler_is_told_which_attempt_it_is_and_no_time_limit_ends_it() {
    let output = run("chaos.chaos", r#"{"mode":"fail_until","times":3}"#, &["--attempt", "3"]);
    assert_eq!((output.status.code(), &json(&output)["result"]["attempt"]), (Some(0), &json!(3)));
    // Its attempts have one second on a worker.
    let output = run("chaos.short", r#"{"mode":"sleep","ms":1500}"#, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stderr(&output).contains("a worker would have ended the task at its time limit"), "{output:?}");
}

#[test]
fn what_a_task_enqueues_is_shown_and_not_published_and_logs_go_to_stderr() {
    let output = run("chaos.chaos", r#"{"mode":"enqueue","ms":60000}"#, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let enqueued: Value = json(&output)["enqueued"].clone();
    assert_eq!(enqueued.as_array().unwrap().len(), 1, "{enqueued}");
    let one = &enqueued[0];
    assert_eq!(
        (&one["plugin"], &one["task"], &one["delay_ms"], &one["body"]["mode"]),
        (&json!("chaos"), &json!("chaos"), &json!(60_000), &json!("ok")),
        "{one}"
    );
    assert!(stderr(&output).contains("a task would be enqueued now"), "{output:?}");
    assert!(!stdout(&output).contains("a task would"), "stdout carries the outcome alone");
}

#[tokio::test]
async fn task_of_a_plugin_that_needs_another_one_runs_without_it_and_what_it_enqueues_there_is_shown() {
    let config = Config::default().set("broker.url", "nats://127.0.0.1:1").plugin("chaos").unwrap();
    let run = async |plugin: &str, major: u32| {
        let body = json!({ "plugin": plugin, "major": major, "enqueue": "greet", "body": { "whom": "you" } });
        let launch = Launch::new(["tasks", "run", "chaos.reach", "--json", &body.to_string()])
            .config(&config)
            .env("CARDCAGE_CHAOS_DESCRIBE", "needs");
        launch.run(soon()).await.unwrap()
    };
    let ended = run("hello", 7).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    let one = &answer["enqueued"][0];
    assert_eq!(
        (&one["plugin"], &one["task"], &one["body"]["whom"]),
        (&json!("hello"), &json!("greet"), &json!("you")),
        "{answer}"
    );
    // What it does not declare is refused here as everywhere.
    let ended = run("hello", 8).await;
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stdout.contains("declares neither by needs nor by wants"), "{ended:?}");
}

#[test]
fn task_that_does_not_exist_or_does_not_take_the_body_is_not_started() {
    for (task, body, code, said) in [
        ("chaos.none", "{}", 1, "has no task `none`; it has chaos"),
        ("orders.fulfil", "{}", 1, "there is no plugin `orders` in the configuration; it has chaos"),
        ("chaos.chaos", r#"{"mode":7}"#, 2, "does not fit chaos.chaos"),
        ("chaos.chaos", "{", 2, "no JSON"),
    ] {
        let output = run(task, body, &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains(said), "{said}: {output:?}");
        assert!(!stderr(&output).contains("the task starts") && stdout(&output).is_empty(), "{output:?}");
    }
}

#[test]
fn crash_is_the_process_own_for_a_debugger_to_see() {
    use std::os::unix::process::ExitStatusExt as _;
    let output = run("chaos.chaos", r#"{"mode":"abort"}"#, &[]);
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
}

#[tokio::test]
async fn first_ctrl_c_tells_the_handler_and_the_second_gives_it_up() {
    let config = || Config::default().set("broker.url", "nats://127.0.0.1:1").plugin("chaos").unwrap();
    let start = async |body: &str| {
        let running =
            Launch::new(["tasks", "run", "chaos.chaos", "--json", body]).config(&config()).start().unwrap();
        logged(&running, "the task starts").await;
        running.signal(Signal::INT).unwrap();
        running
    };
    let mut polite = start(r#"{"mode":"await_cancel"}"#).await;
    let status = polite.wait_exit(soon()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", polite.stderr());
    assert!(polite.stdout().contains("succeeded"), "{}", polite.stdout());

    let mut deaf = start(r#"{"mode":"sleep","ms":600000}"#).await;
    logged(&deaf, "told that its task was cancelled").await;
    deaf.signal(Signal::INT).unwrap();
    assert_eq!(deaf.wait_exit(soon()).await.unwrap().code(), Some(1), "{}", deaf.stderr());
}

async fn logged(running: &Cardcage, text: &str) {
    eventually(soon(), text, async || running.stderr().contains(text).then_some(())).await.unwrap();
}
