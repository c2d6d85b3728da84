//! An API instance loads no library of a plugin of which nothing runs there, and serves it all the same.

use crate::reload::Installation;
use crate::serving::{assert_problem, child, signal, soon};
use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, Signal, eventually, plugin_library};
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// What a private copy of this library is called.
fn copy_of(library: &Path) -> String {
    format!("{}.so", blake3::hash(&std::fs::read(library).unwrap()))
}

/// Whether the child of this host has the library of that plugin in its memory.
fn has(host: &Cardcage, library: &Path) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child(host))).unwrap();
    maps.contains(&copy_of(library))
}

async fn shown_as_loaded(host: &Cardcage, plugin: &str) -> Option<bool> {
    let ready = host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
    ready["plugins"].as_array().unwrap().iter().find(|one| one["name"] == plugin)?["is_loaded"].as_bool()
}

/// hello and chaos, both moved to workers where `is_moved`, with copies of their own.
fn config(nats: &Nats, folder: &TempDir, moved: &[&str]) -> Config {
    let cache = folder.path().join("cache").display().to_string();
    let config = Config::new(nats).set("loading.cache_dir", cache);
    let config = config.plugin("hello").unwrap().plugin("chaos").unwrap();
    moved.iter().fold(config, |config, plugin| config.set(&format!("plugins.{plugin}.placement"), "worker"))
}

async fn serves(http: &Http, path: &str) {
    eventually(soon(), path, async || (http.get(path).await.ok()?.status == 200).then_some(()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_of_which_nothing_runs_in_an_api_is_served_without_its_library() {
    let (nats, folder) = (Nats::start().await.unwrap(), tempfile::tempdir().unwrap());
    let (hello, chaos) = (plugin_library("hello").unwrap(), plugin_library("chaos").unwrap());
    // The only inline route of hello, moved by name.
    let config = config(&nats, &folder, &[]).set("plugins.hello.routes.GET /inline", "worker");
    let worker = Cardcage::worker(&config).await.unwrap();
    let api = Cardcage::api(&config).await.unwrap();
    assert!(has(&worker, &hello) && has(&worker, &chaos));
    assert!(!has(&api, &hello), "nothing of it runs here");
    assert!(has(&api, &chaos), "it has inline routes");
    assert_eq!(shown_as_loaded(&api, "hello").await, Some(false));
    assert_eq!(shown_as_loaded(&api, "chaos").await, Some(true));

    let http = api.http().unwrap();
    serves(&http, "/hello/inline").await;
    assert_eq!(http.get("/chaos/inline_seen").await.unwrap().status, 200);
    let called = http.post_json("/hello/call", &json!({})).await.unwrap();
    assert_eq!(called.status, 200, "{}", called.text());
    let accepted = http.post_json("/hello/task", &json!({})).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let task = http.final_task(&accepted.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
    let document = http.get("/openapi.json").await.unwrap().json().unwrap();
    assert!(document["paths"]["/hello/call"].is_object(), "{document}");
    let drift = Launch::new(["instances", "list", "--check"]).config(&config).run(soon()).await.unwrap();
    assert_eq!(drift.status.code(), Some(0), "{drift:?}");
    // A loaded plugin reaches one that is not: the hop goes by the broker in any case.
    let reach = json!({ "plugin": "hello", "major": 0, "method": "GET", "path": "/inline?name=you" });
    let reached = http.post_json("/chaos/reach", &reach).await.unwrap();
    assert_eq!(reached.status, 200, "{}", reached.text());
    assert!(!has(&api, &hello), "nor was it loaded since");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_does_when_it_is_loaded_or_started_does_not_reach_an_api_that_knows_it() {
    let (nats, folder) = (Nats::start().await.unwrap(), tempfile::tempdir().unwrap());
    let trap = folder.path().join("trap");
    let config = config(&nats, &folder, &["hello", "chaos"]).plugin_set("chaos", "init", "abort");
    let trapped = |role: &str| {
        let told = format!("abort_if={}", trap.display());
        Launch::new([role]).config(&config).env("CARDCAGE_CHAOS_DESCRIBE", told)
    };
    // It would abort in its init.
    let api = trapped("api").ready().await.unwrap();
    std::fs::write(&trap, "").unwrap();
    // From here on it would abort wherever it is opened: the next child asks nobody.
    let before = child(&api);
    signal(before, Signal::KILL);
    let admin = api.admin().unwrap();
    eventually(soon(), "another child serves", async || {
        let ready = admin.get("/readyz?verbose").await.ok()?.json().ok()?;
        let pid = ready["child_pid"].as_u64()?;
        (ready["ready"] == true && pid != u64::from(before)).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(shown_as_loaded(&api, "chaos").await, Some(false), "{}", api.stderr());
    let accepted = api.http().unwrap().post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());

    // One that does not know it refuses it as ever.
    let output = trapped("api").run(Deadline::seconds(60)).await.unwrap();
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(output.stderr.contains("SIGABRT"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_dies_while_it_is_described_is_refused_by_name_and_the_others_serve() {
    let (nats, folder) = (Nats::start().await.unwrap(), tempfile::tempdir().unwrap());
    let config = config(&nats, &folder, &["hello", "chaos"]).set("plugins.chaos.required", false);
    for (how, code) in [("abort", "died"), ("hang", "hung")] {
        let config = config.clone().set("loading.timeout_ms", 2_000);
        let launch = Launch::new(["api"]).config(&config).env("CARDCAGE_CHAOS_DESCRIBE", how);
        let api = launch.ready().await.unwrap();
        let ready = api.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
        assert_eq!(ready["refused"][0]["plugin"], "chaos", "{ready}");
        assert_eq!(ready["refused"][0]["code"], code, "{ready}");
        assert_eq!(ready["restarts"], 0, "no child of the API fell with it: {ready}");
        assert_eq!(shown_as_loaded(&api, "hello").await, Some(false));
        assert_eq!(api.http().unwrap().post_json("/hello/task", &json!({})).await.unwrap().status, 202);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_died_while_it_was_described_is_asked_again_by_a_reload_and_not_by_each_child() {
    let (nats, folder) = (Nats::start().await.unwrap(), tempfile::tempdir().unwrap());
    let trap = folder.path().join("trap");
    std::fs::write(&trap, "").unwrap();
    let config = config(&nats, &folder, &["hello", "chaos"]).set("plugins.chaos.required", false);
    let told = format!("abort_if={}", trap.display());
    let api =
        Launch::new(["api"]).config(&config).env("CARDCAGE_CHAOS_DESCRIBE", told).ready().await.unwrap();
    // From here on it would describe itself.
    std::fs::remove_file(&trap).unwrap();
    let before = child(&api);
    signal(before, Signal::KILL);
    let admin = api.admin().unwrap();
    let refused = eventually(soon(), "another child serves", async || {
        let mut ready = admin.get("/readyz?verbose").await.ok()?.json().ok()?;
        let pid = ready["child_pid"].as_u64()?;
        (ready["ready"] == true && pid != u64::from(before)).then(|| ready["refused"].take())
    });
    let refused = refused.await.unwrap();
    assert_eq!((&refused[0]["plugin"], &refused[0]["code"]), (&json!("chaos"), &json!("died")), "{refused}");
    assert_eq!(refused.as_array().unwrap().len(), 1, "told once: {refused}");

    let address = admin.url("");
    let reload = Launch::new(["reload", "--admin", address.trim_start_matches("http://")]);
    let told = reload.run(Deadline::seconds(60)).await.unwrap();
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert_eq!(shown_as_loaded(&api, "chaos").await, Some(false), "{}", api.stderr());
    let ready = admin.get("/readyz?verbose").await.unwrap().json().unwrap();
    assert_eq!(ready["refused"], json!([]), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_takes_over_another_version_of_a_plugin_that_is_not_loaded() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, worker, http, .. } = &installation;
    let (old, new) = (plugin_library("skew-old").unwrap(), plugin_library("skew-new").unwrap());
    assert!(!has(api, &old) && has(worker, &old));
    installation.overwrite_skew(&std::fs::read(&new).unwrap());
    let output = installation.reload(&[worker, api]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(installation.version_of(api, "skew").await.as_deref(), Some("1.1.0"));
    assert_eq!(shown_as_loaded(api, "skew").await, Some(false));
    assert!(!has(api, &new) && has(worker, &new));
    let unfit = http.post_json("/skew/pay", &json!({ "amount": "much" })).await.unwrap();
    assert_problem(&unfit, 422, "invalid_body");
    let accepted = http.post_json("/skew/pay", &json!({ "amount": 1 })).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let task = http.final_task(&accepted.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
}
