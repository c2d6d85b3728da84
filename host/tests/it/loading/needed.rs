//! Plugins that need others which do not start: they are not started either, and nothing of either is there.

use super::{config, greets, outside, refusal, run, soon, verbose};
use cardcage_harness::{Cardcage, Config, Launch, Nats};
use serde_json::{Value, json};
use std::path::PathBuf;

/// `hello` does not start, for want of a greeting that is one; `chaos` needs it, and `outsider` needs nobody.
fn with_a_broken_hello(config: Config) -> Config {
    let config = config.plugin("hello").unwrap().plugin("chaos").unwrap();
    config
        .plugin_at("outsider", &outside::library("outsider"))
        .plugin_set("hello", "greeting", 7)
        .set("plugins.hello.required", false)
}

fn needy(role: &str) -> Launch {
    Launch::new([role]).env("CARDCAGE_CHAOS_NEEDS", "hello 0")
}

fn names(ready: &Value) -> Vec<&str> {
    ready["plugins"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

async fn status_of(host: &Cardcage, path: &str) -> u16 {
    host.http().unwrap().post_json(path, &json!({})).await.unwrap().status
}

#[tokio::test]
async fn plugin_is_not_started_without_one_that_it_needs_and_that_did_not_start() {
    let needed = with_a_broken_hello(config());
    let output = run(needy("api"), &needed).await;
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    let words =
        "needs the plugin `hello` v0, and this host does not have it; mend that one, which is refused too";
    assert!(output.stderr.contains(words), "{output:?}");

    let api = needy("api").config(&needed.set("plugins.chaos.required", false)).ready().await.unwrap();
    let ready = verbose(&api).await;
    assert_eq!((refusal(&ready, "hello").0, names(&ready)), ("init_failed", vec!["outsider"]), "{ready}");
    let (code, sentence) = refusal(&ready, "chaos");
    assert!(code == "needs_plugin" && sentence.contains(words), "{ready}");
    assert_eq!(ready["restarts"], 0, "{ready}");
    for path in ["/hello/call", "/hello/task", "/chaos/call", "/chaos/task"] {
        assert_eq!(status_of(&api, path).await, 404, "{path}");
    }
    assert_eq!(status_of(&api, "/outsider/count").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_has_no_queues_of_plugins_that_did_not_start() {
    let nats = Nats::start().await.unwrap();
    let config = with_a_broken_hello(Config::new(&nats)).set("plugins.chaos.required", false);
    let worker = needy("worker").config(&config).ready().await.unwrap();
    assert_eq!(names(&verbose(&worker).await), ["outsider"]);
    let listed = Launch::new(["queues", "list", "--json"]).config(&config).run(soon()).await.unwrap();
    let queues: Value = serde_json::from_str(&listed.stdout).unwrap();
    let queues: Vec<&str> =
        queues["queues"].as_array().unwrap().iter().map(|queue| queue["plugin"].as_str().unwrap()).collect();
    assert_eq!(queues, ["outsider"], "{listed:?}");
}

/// `chaos` and `outsider` need each other, and `outsider` does not start.
fn circle(launch: Launch) -> Launch {
    let launch = launch.env("CARDCAGE_CHAOS_NEEDS", "outsider 3").env("OUTSIDER_NEEDS_CHAOS", "1");
    launch.env("OUTSIDER_INIT", "fail")
}

fn with_a_circle() -> Config {
    let config = config().plugin("hello").unwrap().plugin("chaos").unwrap();
    config
        .plugin_at("outsider", &outside::library("outsider"))
        .set("plugins.chaos.required", false)
        .set("plugins.outsider.required", false)
}

#[track_caller]
fn assert_without_the_circle(ready: &Value) {
    assert_eq!((refusal(ready, "outsider").0, names(ready)), ("init_failed", vec!["hello"]), "{ready}");
    assert_eq!(refusal(ready, "chaos").0, "needs_plugin", "{ready}");
}

#[tokio::test]
async fn circle_of_plugins_that_need_each_other_is_left_out_where_one_does_not_start() {
    let api = circle(Launch::new(["api"])).config(&with_a_circle()).ready().await.unwrap();
    assert_without_the_circle(&verbose(&api).await);
    greets(&api, "/hello/inline").await;
    assert_eq!(status_of(&api, "/chaos/call").await, 404);
    // Where one is required the host does not start, and says why.
    let required = with_a_circle().set("plugins.chaos.required", true);
    let output = run(circle(Launch::new(["api"])), &required).await;
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(output.stderr.contains("needs the plugin `outsider` v3"), "{output:?}");
}

#[tokio::test]
async fn circle_that_does_not_start_is_left_out_of_a_reload_too() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("cardcage.toml");
    let mut before = with_a_circle().to_toml().parse::<toml::Table>().unwrap();
    let plugins = before["plugins"].as_table_mut().unwrap();
    plugins.retain(|name, _| name == "hello");
    std::fs::write(&file, before.to_string()).unwrap();
    let api = Launch::new(["api".into(), "--config".into(), file.clone().into_os_string()]);
    let api = circle(api).ready().await.unwrap();
    std::fs::write(&file, with_a_circle().to_toml()).unwrap();
    let admin = api.admin().unwrap().url("");
    let reload = Launch::new(["reload", "--admin", admin.trim_start_matches("http://")]);
    let told = reload.run(soon()).await.unwrap();
    assert_eq!(told.status.code(), Some(0), "{told:?}\n{}", api.stderr());
    assert_without_the_circle(&verbose(&api).await);
}
