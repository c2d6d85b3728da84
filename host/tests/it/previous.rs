//! Two majors of a plugin side by side: the previous library runs the tasks and answers the calls of its major, in a process of its
//! own, and nothing else of it is there.

mod contained;
mod refused;
mod rolled;
mod together;

use crate::serving::{restored, soon};
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, Output, eventually, plugin_library};
use cardcage_protocol::Namespace;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

fn library(major: u32) -> PathBuf {
    plugin_library(&format!("majors-{major}")).unwrap()
}

/// `majors` with this library, and these previous ones.
fn with(config: Config, current: u32, previous: &[u32]) -> Config {
    let previous = previous.iter().map(|major| library(*major).display().to_string());
    let config = config.plugin_at("majors", &library(current));
    config.set("plugins.majors.previous", previous.collect::<Vec<_>>())
}

/// A broker, and a configuration file that hosts are started with and the test rewrites.
struct Site {
    config: Config,
    nats: Nats,
    // Last, so that the hosts are gone before their files.
    folder: TempDir,
}

impl Site {
    /// With hello, which major 1 needs.
    async fn new(change: impl FnOnce(Config) -> Config) -> Self {
        let nats = Nats::start().await.unwrap();
        let config = Config::new(&nats).plugin("hello").unwrap();
        let config = config.set("tasks.lease_ms", 30_000).set("drain.grace_ms", 15_000);
        Self { config: change(config), nats, folder: tempfile::tempdir().unwrap() }
    }

    fn of(&self, current: u32, previous: &[u32]) -> Config {
        with(self.config.clone(), current, previous)
    }

    /// The broker, beside its hosts, whose lease it must be told.
    async fn broker(&self, lease: Duration) -> Broker {
        let namespace = Namespace::new(self.config.namespace()).unwrap();
        let options = Options { url: self.nats.url(), namespace, lease, ..Options::default() };
        let broker = Broker::connect(options).await.unwrap();
        broker.wait_connected(Duration::from_secs(10)).await.unwrap();
        broker
    }

    async fn api(&self, config: &Config) -> Cardcage {
        let api = Cardcage::api(config).await.unwrap();
        restored(&api).await;
        api
    }

    /// A host that finds its configuration where [`Site::reload`] puts another one.
    async fn reloadable(&self, role: &str, config: &Config) -> Cardcage {
        let file = self.folder.path().join(format!("{role}.toml"));
        std::fs::write(&file, config.to_toml()).unwrap();
        let launch = Launch::new([role.into(), "--config".into(), file.into_os_string()]);
        launch.ready().await.unwrap()
    }

    async fn reload(&self, role: &str, host: &Cardcage, config: &Config) -> Output {
        std::fs::write(self.folder.path().join(format!("{role}.toml")), config.to_toml()).unwrap();
        let admin = host.admin().unwrap().url("").trim_start_matches("http://").to_owned();
        Launch::new(["reload", "--admin", &admin]).run(Deadline::seconds(120)).await.unwrap()
    }
}

async fn run_json(config: &Config, arguments: &[&str]) -> (Value, i32) {
    let arguments = [arguments, &["--json"]].concat();
    let output = Launch::new(arguments).config(config).run(Deadline::seconds(60)).await.unwrap();
    let json = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (json, output.status.code().unwrap())
}

async fn accepted(http: &Http, body: Value) -> String {
    let reply = http.post_json("/majors/work", &body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// The task's result, where it succeeded, and how its attempts ended.
async fn done(http: &Http, id: &str) -> (String, Vec<String>) {
    let done = http.final_task(id, Deadline::seconds(60)).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    let attempts = done["attempts"].as_array().unwrap().iter();
    let causes = attempts.map(|attempt| attempt["cause"].as_str().unwrap().to_owned());
    (done["result"].as_str().unwrap().to_owned(), causes.collect())
}

fn once(result: &str) -> (String, Vec<String>) {
    (result.to_owned(), vec!["succeeded".to_owned()])
}

async fn running(http: &Http, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task: Value = http.get(&format!("/tasks/{id}")).await.ok()?.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

async fn ready(host: &Cardcage) -> Value {
    host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap()
}

/// What the worker says of one process; `None`: of the only current one.
fn seat<'a>(ready: &'a Value, group: Option<&str>) -> &'a Value {
    let of = |one: &&Value| one["seat"]["group"].as_str() == group;
    ready["seats"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("{group:?}: {ready}"))
}

/// What a host, or one of its processes, has loaded: `name version`.
fn loaded(of: &Value) -> Vec<String> {
    let plugins = of["plugins"].as_array().unwrap().iter();
    let mut names: Vec<String> = plugins
        .map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["version"].as_str().unwrap()))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_both_majors_that_waited_run_by_their_own_library() {
    let site = Site::new(|config| config).await;
    let api = site.api(&site.of(1, &[])).await;
    let old = accepted(&api.http().unwrap(), json!({ "label": "a", "greet": true })).await;
    drop(api);
    let config = site.of(2, &[1]);
    let api = site.api(&config).await;
    let http = api.http().unwrap();
    let new = accepted(&http, json!({ "title": "b" })).await;

    let worker = Cardcage::worker(&config).await.unwrap();
    // The old library needs a plugin that only the other process has loaded.
    assert_eq!(done(&http, &old).await, once("1.4.0 did a: Hello, old!"));
    assert_eq!(done(&http, &new).await, once("2.0.0 did b"));
    let now = ready(&worker).await;
    assert_eq!(loaded(seat(&now, None)), ["hello 0.1.0", "majors 2.0.0"], "{now}");
    assert_eq!(loaded(seat(&now, Some("previous-1"))), ["majors 1.4.0"], "{now}");
    assert_eq!((worker.child_pids().len(), &now["ready"]), (2, &json!(true)), "{now}");
    // Only a worker has it.
    assert_eq!((loaded(&ready(&api).await), api.child_pids().len()), (loaded(seat(&now, None)), 1));

    let (listed, _) = run_json(&config, &["workers", "list"]).await;
    let mut workers: Vec<(Option<&str>, String)> = listed["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| (worker["group"].as_str(), loaded(worker).join(", ")))
        .collect();
    workers.sort();
    let expected =
        [(None, "hello 0.1.0, majors 2.0.0".to_owned()), (Some("previous-1"), "majors 1.4.0".to_owned())];
    assert_eq!(workers, expected, "{listed}");
    let metrics = worker.admin().unwrap().get("/metrics").await.unwrap().text();
    let line = "cardcage_tasks_total{group=\"previous-1\",process=\"1\",what=\"succeeded\"} 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");
    assert!(
        metrics.lines().any(|one| one.starts_with("cardcage_tasks_total{what=\"succeeded\"} ")),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_schedules_are_the_current_librarys_and_instances_of_the_old_major_are_served() {
    let site = Site::new(|config| config.set("tasks.lease_ms", 1_000).set("drain.grace_ms", 600)).await;
    let config = site.of(2, &[1]);
    let worker = site.reloadable("worker", &config).await;
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let get = async |api: &Cardcage, path: &str| {
        let reply = api.http().unwrap().get(path).await.unwrap();
        (reply.status, reply.text())
    };
    assert_eq!(get(&new, "/majors/which").await, (200, "2.0.0".to_owned()));
    assert_eq!(get(&old, "/majors/which").await, (200, "1.4.0".to_owned()));
    assert_eq!(get(&old, "/majors/only_old").await, (200, "1.4.0".to_owned()));
    assert_eq!(get(&new, "/majors/only_old").await.0, 404);
    assert!(!get(&new, "/openapi.json").await.1.contains("only_old"));
    let http = new.http().unwrap();
    let id = accepted(&old.http().unwrap(), json!({ "label": "late" })).await;
    assert_eq!(done(&http, &id).await, once("1.4.0 did late"));
    let (drift, code) = run_json(&config, &["instances", "list", "--check"]).await;
    assert_eq!((code, &drift["drift"]), (0, &json!([])), "{drift}");

    let declared_by = async || {
        let (listed, _) = run_json(&config, &["schedules", "list"]).await;
        let schedules = listed["schedules"].as_array().unwrap();
        assert!(schedules.len() <= 1, "{listed}");
        schedules.first().map(|one| one["declared_by"].as_str().unwrap().to_owned())
    };
    let by = async |version: &str| {
        let what = format!("the schedule is declared by {version}");
        eventually(soon(), &what, async || (declared_by().await.as_deref() == Some(version)).then_some(()))
            .await
    };
    by("2.0.0").await.unwrap();
    let broker = site.broker(Duration::from_secs(1)).await;
    let ticked = eventually(soon(), "the schedule fires", async || {
        let mut by = Vec::new();
        let look = broker.look_at_records(|record, _| {
            by.extend(
                record.result.filter(|_| record.task.as_str() == "tick").map(|result| result.to_string()),
            );
            ControlFlow::Continue(())
        });
        look.await.unwrap();
        (by.len() >= 3).then_some(by)
    });
    let ticks = ticked.await.unwrap();
    assert!(ticks.iter().all(|by| by.contains("2.0.0 ticked")), "{ticks:?}");

    // A step back: now the later version is the previous one, and has no say.
    let told = site.reload("worker", &worker, &site.of(1, &[2])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    by("1.4.0").await.unwrap();
    let id = accepted(&http, json!({ "title": "still" })).await;
    assert_eq!(done(&http, &id).await, once("2.0.0 did still"));
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_the_previous_library_names_its_version_and_leaves_the_current_one_untouched() {
    let site = Site::new(|config| config).await;
    let config = site.of(2, &[1]);
    let worker = Cardcage::worker(&config).await.unwrap();
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let (new, old) = (new.http().unwrap(), old.http().unwrap());
    let before = ready(&worker).await;
    let long = accepted(&new, json!({ "title": "long", "sleep_ms": 4_000 })).await;
    running(&new, &long).await;
    let crashing = accepted(&old, json!({ "label": "x", "crash": true })).await;
    let (result, causes) = done(&old, &crashing).await;
    assert_eq!(
        (result.as_str(), causes.len(), causes[1].as_str()),
        ("1.4.0 did x", 2, "succeeded"),
        "{causes:?}"
    );
    assert_eq!(done(&new, &long).await, once("2.0.0 did long"));
    let after = ready(&worker).await;
    let crash = &seat(&after, Some("previous-1"))["last_crash"];
    assert_eq!((&crash["plugin"], &crash["version"]), (&json!("majors"), &json!("1.4.0")), "{after}");
    let (was, is) = (seat(&before, None), seat(&after, None));
    assert_eq!((&is["child_pid"], &is["last_crash"]), (&was["child_pid"], &Value::Null), "{after}");
    let metrics = worker.admin().unwrap().get("/metrics").await.unwrap().text();
    let restarts = "cardcage_group_child_restarts_total{group=\"previous-1\",process=\"1\"} 1";
    assert!(metrics.lines().any(|one| one == restarts), "{metrics}");
}
