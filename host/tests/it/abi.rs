//! The boundary over time: what was built against 1.0 and against a later minor, loaded both ways, and across
//! compilers. 1.0 and its host are kept (`frozen.rs`); the later minor, and the host of it, are made by `built.rs`.

mod built;
mod cargo;
mod first_host;
mod frozen;

use std::path::Path;

use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, plugin_library};
use serde_json::{Value, json};

use crate::serving::restored;

/// What one plugin says it saw, and what it does, in a host that runs it.
async fn facts(http: &Http, plugin: &str) -> Value {
    let reply = http.get(&format!("/{plugin}/facts")).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let facts = reply.json().unwrap();
    assert!(facts["now"].as_u64().unwrap() > 1_600_000_000_000_000_000, "{facts}");
    assert_eq!(facts["config"], json!({ "colour": "green" }));
    facts
}

/// Bodies cross whole, and piece by piece both ways.
async fn echoes(http: &Http, plugin: &str) {
    for length in [0, 5, 1_500_000] {
        let body = bytes::Bytes::from(vec![b'x'; length]);
        let path = format!("/{plugin}/echo");
        let reply = http.send(reqwest::Method::POST, &path, &[], body).await.unwrap();
        assert_eq!((reply.status, reply.text().len()), (200, length), "{plugin}");
    }
}

/// A task goes through the broker to the plugin and back.
async fn works(http: &Http, plugin: &str) {
    let reply = http.post_json(&format!("/{plugin}/run"), &json!({ "n": 1 })).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let task = http.final_task(&reply.task_id().unwrap(), Deadline::seconds(60)).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
    // A question that the host has never heard of is answered `REJECTED` (4), and the plugin goes on.
    assert_eq!(task["result"], json!({ "attempt": 1, "looked": 0, "unheard_of": 4 }), "{task}");
}

/// `hello` has a route in either role, and a task.
async fn greets(http: &Http) {
    assert_eq!(http.get("/hello/inline").await.unwrap().text(), "Hello, world!");
    let reply = http.post_json("/hello/call", &json!({ "n": 1 })).await.unwrap();
    assert_eq!((reply.status, reply.json().unwrap()), (200, json!({ "n": 1 })));
    let reply = http.post_json("/hello/task", &json!({ "n": 2 })).await.unwrap();
    let task = http.final_task(&reply.task_id().unwrap(), Deadline::seconds(60)).await.unwrap();
    assert_eq!((&task["state"], &task["result"]), (&json!("succeeded"), &json!({ "n": 2 })), "{task}");
}

fn config(nats: &Nats, plugins: &[&str]) -> Config {
    let add = |config: Config, name: &&str| {
        config.plugin_at(name, &built::library(name)).plugin_set(name, "colour", "green")
    };
    plugins.iter().fold(Config::new(nats), add)
}

/// An API and a worker of one binary.
async fn installation(binary: Option<&Path>, config: &Config) -> (Cardcage, Cardcage) {
    let launch = |role: &str| {
        let launch = Launch::new([role]).config(config);
        match binary {
            Some(binary) => launch.binary(binary),
            None => launch,
        }
    };
    let (api, worker) = (launch("api").ready().await.unwrap(), launch("worker").ready().await.unwrap());
    restored(&api).await;
    (api, worker)
}

#[tokio::test]
async fn plugins_of_this_and_of_a_later_minor_run_side_by_side_in_this_host() {
    let nats = Nats::start().await.unwrap();
    let (api, _worker) = installation(None, &config(&nats, &["elder", "peer", "younger"])).await;
    let http = api.http().unwrap();
    for plugin in ["elder", "peer", "younger"] {
        // What 1.1 brought is not here, and the plugin is told so.
        let facts = facts(&http, plugin).await;
        assert_eq!((&facts["next"], &facts["ext_at_call"]), (&Value::Null, &json!("")), "{plugin}");
        echoes(&http, plugin).await;
        works(&http, plugin).await;
    }
}

#[tokio::test]
async fn plugins_of_an_earlier_minor_run_in_a_later_host_beside_its_own() {
    let nats = Nats::start().await.unwrap();
    // `hello` is this workspace's, built with the SDK.
    let config = config(&nats, &["elder", "peer", "younger", "needy"]).plugin("hello").unwrap();
    let (api, worker) = installation(Some(&built::host()), &config).await;
    let http = api.http().unwrap();
    for (plugin, next) in
        [("elder", Value::Null), ("peer", Value::Null), ("younger", json!(11)), ("needy", json!(11))]
    {
        let facts = facts(&http, plugin).await;
        assert_eq!(facts["next"], next, "{plugin}");
        // An extension block's entry reaches whoever looks for it.
        assert_eq!((&facts["ext_at_init"], &facts["ext_at_call"]), (&json!("11"), &json!("11")), "{plugin}");
        echoes(&http, plugin).await;
        works(&http, plugin).await;
    }
    greets(&http).await;
    // The host asks each plugin for what 1.1 brought, and is told where it is not there.
    for (plugin, said) in
        [("elder", "nothing"), ("peer", "nothing"), ("hello", "nothing"), ("younger", "11"), ("needy", "11")]
    {
        let log = worker.stderr();
        let mut lines = log.lines().filter(|line| line.contains("asked for what 1.1 brought"));
        let line = lines.find(|line| line.contains(&format!("plugin=\"{plugin}\""))).unwrap_or_default();
        assert!(line.contains(&format!("said=\"{said}\"")), "{plugin}: {log}");
    }
}

#[tokio::test]
async fn plugin_that_needs_a_later_minor_is_refused_in_a_sentence_before_it_runs() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats, &["needy"]);
    for arguments in [vec!["api"], vec!["worker"], vec!["check"]] {
        let output = Launch::new(arguments.clone()).config(&config).run(Deadline::seconds(60)).await.unwrap();
        assert_eq!(output.status.code(), Some(70), "{arguments:?}: {}", output.stderr);
        let said = output.stdout + &output.stderr;
        for words in
            ["libneedy.so: needs ABI 1.1, and this host speaks ABI 1.0", "; update the host", "abi_minor"]
        {
            assert!(said.contains(words), "{arguments:?}, {words}: {said}");
        }
    }
    let output = Launch::new(
        ["plugin", "inspect"]
            .map(str::to_owned)
            .into_iter()
            .chain([built::library("needy").display().to_string()]),
    )
    .run(Deadline::seconds(60))
    .await
    .unwrap();
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(output.stdout.contains("needs ABI"), "{output:?}");
}

#[tokio::test]
async fn plugin_of_a_boundary_that_was_changed_against_the_rules_is_refused_for_its_layout() {
    let nats = Nats::start().await.unwrap();
    for binary in [None, Some(built::host())] {
        let launch = Launch::new(["worker"]).config(&config(&nats, &["stray"]));
        let launch = match &binary {
            Some(binary) => launch.binary(binary),
            None => launch,
        };
        let output = launch.run(Deadline::seconds(60)).await.unwrap();
        assert_eq!(output.status.code(), Some(70), "{binary:?}: {}", output.stderr);
        for words in ["libstray.so: does not fit this host's plugin interface", "abi_layout"] {
            assert!(output.stderr.contains(words), "{binary:?}, {words}: {}", output.stderr);
        }
    }
}

/// What `plugin inspect` says of a library's compiler.
async fn compiler(library: &Path) -> String {
    let file = library.display().to_string();
    let output =
        Launch::new(["plugin", "inspect", "--json", &file]).run(Deadline::seconds(60)).await.unwrap();
    let inspected: Value = serde_json::from_str(&output.stdout).unwrap();
    inspected["manifest"]["rustc"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn plugins_built_by_another_compiler_run_in_this_host() {
    let Some(toolchain) = cargo::other_toolchain() else {
        // scripts/test says it once more at the end of the run.
        eprintln!("skipped: there is no second compiler (`rustup toolchain install nightly`)");
        return;
    };
    let (hello, this) = (built::hello_by(toolchain), plugin_library("hello").unwrap());
    assert_ne!(compiler(&hello).await, compiler(&this).await, "`{toolchain}` is the compiler of this run");
    let nats = Nats::start().await.unwrap();
    let mut config = Config::new(&nats).plugin_at("hello", &hello);
    for (name, library) in
        [("elder", frozen::elder(Some(toolchain))), ("younger", built::younger_by(toolchain))]
    {
        config = config.plugin_at(name, &library).plugin_set(name, "colour", "green");
    }
    let (api, _worker) = installation(None, &config).await;
    let http = api.http().unwrap();
    greets(&http).await;
    for plugin in ["elder", "younger"] {
        facts(&http, plugin).await;
        echoes(&http, plugin).await;
        works(&http, plugin).await;
    }
}
