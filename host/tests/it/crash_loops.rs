//! A plugin that crashes its host's child again and again by itself is left out for a while, and the others go on.

use crate::crash_reports::crash_after;
use crate::reload::{Installation, followed};
use crate::serving::{Serving, child, restored, signal};
use cardcage_harness::{Cardcage, Config, Deadline, Signal, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

async fn status(host: &Cardcage) -> Option<Value> {
    host.admin().unwrap().get("/readyz?verbose").await.ok()?.json().ok()
}

fn names(status: &Value) -> Vec<&str> {
    status["plugins"].as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect()
}

async fn until(host: &Cardcage, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let shown = eventually(Deadline::seconds(90), what, async || {
        let now = status(host).await?;
        wanted(&now).then_some(now)
    })
    .await;
    shown.unwrap_or_else(|error| panic!("{error}: {}", host.stderr()))
}

/// An API that is well, and what workers are configured with whose chaos ends them while there is the folder's file `doom`.
async fn doomed() -> (TempDir, Serving, Config) {
    let folder = tempfile::tempdir().unwrap();
    let doom = folder.path().join("doom");
    let serving = Serving::api(|c| c).await;
    restored(&serving.api).await;
    std::fs::write(&doom, "").unwrap();
    let config = serving.config.clone().plugin_set("chaos", "doom", doom.to_str().unwrap());
    (folder, serving, config)
}

/// What the host shows once it serves without a plugin.
async fn left_out(host: &Cardcage) -> Value {
    let is_out = |now: &Value| now["ready"] == true && now["refused"][0]["code"] == "crash_loop";
    until(host, "a plugin is left out", is_out).await
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_crashes_by_itself_is_left_out_the_others_go_on_and_it_comes_back_when_it_is_well() {
    let (folder, serving, config) = doomed().await;
    // Both plugins are required; a worker ends for want of one that does not start.
    let worker = Cardcage::worker(&config).await.unwrap();

    let without = left_out(&worker).await;
    assert_eq!((names(&without), &without["refused"][0]["plugin"]), (vec!["hello"], &json!("chaos")));
    assert_eq!(without["last_crash"]["plugin"], "chaos", "{without}");
    let child = without["child_pid"].clone();
    let reply = serving.http.post_json("/hello/call", &json!({})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Its tasks wait, and are not refused.
    let waiting = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(waiting.status, 202, "{}", waiting.text());

    std::fs::remove_file(folder.path().join("doom")).unwrap();
    let back = until(&worker, "chaos is back", |now| names(now).contains(&"chaos")).await;
    assert_eq!((&back["ready"], &back["refused"]), (&json!(true), &json!([])), "{back}");
    assert_ne!(back["child_pid"], child, "in another child, which took over");
    assert_eq!(back["last_crash"], without["last_crash"], "nothing has crashed meanwhile");
    let done = serving.http.final_task(&waiting.task_id().unwrap(), Deadline::seconds(60)).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_whose_init_failed_and_left_a_thread_is_blamed_for_what_that_does_and_no_other_is() {
    let (folder, _serving, config) = doomed().await;
    // Its thread runs when it finds that its trace cannot be opened. What starts after it gets another number.
    let config = config.plugin_set("chaos", "trace", folder.path().to_str().unwrap());
    let config = config.set("plugins.chaos.required", false);
    let worker = Cardcage::worker(&config).await.unwrap();
    let shown = left_out(&worker).await;
    assert_eq!((names(&shown), &shown["refused"][0]["plugin"]), (vec!["hello"], &json!("chaos")), "{shown}");
    assert_eq!(
        (&shown["last_crash"]["plugin"], shown["refused"].as_array().unwrap().len()),
        (&json!("chaos"), 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_while_a_call_is_in_flight_do_not_have_a_plugin_left_out() {
    let (serving, worker) = Serving::both(|c| c).await;
    let mut last = Value::Null;
    for _ in 0..4 {
        // A thread that the handler started, which nothing says is the handler's.
        assert_eq!(serving.order(json!({ "mode": "segfault_aside", "ms": 50 })).await.status, 502);
        last = crash_after(&worker, &last).await;
        assert_eq!((&last["plugin"], &last["work"]), (&json!("chaos"), &Value::Null), "{last}");
    }
    let now = status(&worker).await.unwrap();
    assert_eq!((&now["refused"], names(&now)), (&json!([]), vec!["chaos", "hello"]), "{now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_brings_back_what_was_left_out_for_good() {
    let doom = |folder: &std::path::Path| folder.join("doom");
    let installation = Installation::new(|config, folder| {
        config.plugin_set("chaos", "doom", doom(folder.path()).to_str().unwrap())
    })
    .await;
    let worker = &installation.worker;
    std::fs::write(doom(installation.folder.path()), "").unwrap();
    signal(child(worker), Signal::KILL);
    left_out(worker).await;
    std::fs::remove_file(doom(installation.folder.path())).unwrap();
    let before = child(worker);
    let reload = installation.reload(&[worker]).await;
    assert!(reload.status.success(), "{reload:?}");
    followed(worker, before).await;
    // Another child begins with it, too, although the time for which it was left out is not over.
    signal(child(worker), Signal::KILL);
    let now = until(worker, "another child serves", |now| {
        now["ready"] == true && now["last_crash"]["cause"] == "killed"
    })
    .await;
    assert_eq!((&now["refused"], names(&now)), (&json!([]), vec!["chaos", "hello", "skew"]), "{now}");
}
