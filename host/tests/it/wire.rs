//! The documented wire format is true: a Python script that knows nothing else enqueues tasks and reads their outcomes.

use std::path::PathBuf;
use std::process::Stdio;

use cardcage_harness::{Cardcage, Config, Nats, workspace_root};
use cardcage_protocol::{header, limits};
use serde_json::{Value, json};
use tokio::process::Command;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Whether there is a Python to be asked. CI has one, or this fails; elsewhere a machine may have Node alone.
async fn has_python() -> bool {
    if std::env::var_os("CI").is_some() {
        return true;
    }
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).status().await;
    pip.is_ok_and(|status| status.success())
}

/// The pinned packages; fetched where they are missing, for a test that is skipped proves nothing.
async fn packages() -> PathBuf {
    let fetch = workspace_root().join("scripts/fetch-python");
    let output = Command::new(fetch).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "the Python packages could not be fetched; its reason is above");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// What the script printed, and how it exited.
async fn script(nats: &Nats, config: &Config, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::new("python3")
        .arg(workspace_root().join("docs/wire/enqueue.py"))
        // Generous: the machine of a test is busy.
        .args(["--url", &nats.url(), "--namespace", config.namespace(), "--accept-within", "30"])
        .args(arguments)
        .env("PYTHONPATH", packages().await)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let record = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), record, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn python_script_enqueues_by_the_documented_envelope_and_reads_the_outcome() {
    if !has_python().await {
        eprintln!("not run: there is no Python 3 with pip on this machine");
        return;
    }
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap().plugin("chaos").unwrap();
    let (api, worker) = tokio::join!(Cardcage::api(&config), Cardcage::worker(&config));
    let (api, _worker) = (api.unwrap(), worker.unwrap());
    let http = api.http().unwrap();
    let body = json!({ "greeting": "Grüß Gott", "n": [1, 2.5, null] });

    let hello = ["--id", ID, "--traceparent", TRACEPARENT, "hello", "0.1.0", "echo", &body.to_string()];
    let (code, record, told) = script(&nats, &config, &hello).await;
    assert_eq!((code, &record["state"], &record["result"]), (Some(0), &json!("succeeded"), &body), "{told}");
    assert_eq!((&record["id"], &record["traceparent"]), (&json!(ID), &json!(TRACEPARENT)));
    assert!(told.contains("stored") && !told.contains("already"), "{told}");

    // The same id once more: stored once, run once.
    let (code, again, told) = script(&nats, &config, &hello).await;
    assert!(told.contains("already stored"), "{told}");
    assert_eq!((code, &again["attempts"]), (Some(0), &record["attempts"]));

    let refuses = json!({ "mode": "fail_for_good" }).to_string();
    let (code, record, told) = script(&nats, &config, &["chaos", "0.1.0", "chaos", &refuses]).await;
    assert_eq!(
        (code, &record["state"], &record["error"]["code"]),
        (Some(1), &json!("failed"), &json!("failed")),
        "{told}"
    );

    // Nobody has this major: it waits, and is not lost.
    let stays = ["--wait", "0", "hello", "7.0.0", "echo", "{}"];
    let (code, _, told) = script(&nats, &config, &stays).await;
    assert_eq!(code, Some(75), "{told}");
    let id = told.split(' ').nth(1).unwrap().trim_end_matches(':').to_owned();
    let waiting = http.get(&format!("/tasks/{id}")).await.unwrap().json().unwrap();
    assert_eq!(waiting["state"], "queued", "{waiting}");
}

#[test]
fn page_of_the_wire_format_names_every_header_field_and_bound() {
    let page = std::fs::read_to_string(workspace_root().join("docs/wire.md")).unwrap();
    let golden = |name: &str| {
        std::fs::read_to_string(workspace_root().join("host/protocol/tests/golden").join(name)).unwrap()
    };
    let envelope = golden("envelope-v1-full.txt");
    let headers = envelope.lines().take_while(|line| !line.is_empty()).skip(1);
    let headers = headers.map(|line| line.split_once(": ").unwrap().0);
    let keys = [header::UNIQUE_KEY, header::SERIAL_KEY, header::NATS_MSG_ID];
    let mut names: Vec<String> = headers.chain(keys).map(str::to_owned).collect();
    let record: Value = serde_json::from_str(&golden("record-v1-failed.json")).unwrap();
    names.extend(record.as_object().unwrap().keys().cloned());
    names.extend(["result", "next_at", "cancel_requested_at"].map(str::to_owned));
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/wire.md does not name {name}");
    }
    for bound in [limits::TASK_BODY_MAX_BYTES, limits::ENVELOPE_HEADERS_MAX_BYTES] {
        assert!(page.contains(&format!("{bound} bytes")), "docs/wire.md does not say {bound} bytes");
    }
}
