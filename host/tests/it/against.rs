//! `cardcage check --against`: what would break if a plugin set took the place of what is deployed, asked of real workers,
//! with tasks that wait at a real broker.

use std::path::{Path, PathBuf};

use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, Output, eventually, plugin_library};
use serde_json::{Value, json};

use crate::serving::{restored, soon};

fn skew(version: &str) -> PathBuf {
    plugin_library(&format!("skew-{version}")).unwrap()
}

async fn check(config: &Config, arguments: &[&str]) -> Output {
    let arguments = [&["check"], arguments].concat();
    Launch::new(arguments).config(config).run(Deadline::seconds(60)).await.unwrap()
}

/// The JSON report of `check --against`, and its exit code.
async fn report(config: &Config, against: &str) -> (Value, i32) {
    let output = check(config, &["--json", "--against", against]).await;
    let report: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report["against"].clone(), output.status.code().unwrap())
}

/// Kind, of what, and message of the findings that break.
fn breaking(report: &Value) -> Vec<(&str, &str, &str)> {
    let breaking = report["findings"].as_array().unwrap().iter().filter(|finding| finding["breaks"] == true);
    breaking
        .map(|one| {
            (one["kind"].as_str().unwrap(), one["of"].as_str().unwrap(), one["message"].as_str().unwrap())
        })
        .collect()
}

/// Version 1.1 of `skew` and `hello`, deployed: an API and a worker, and the queue of `skew.pay` paused.
struct Deployed {
    http: Http,
    config: Config,
    _hosts: (Cardcage, Cardcage),
    // Last, so that hosts stop before their broker.
    nats: Nats,
}

impl Deployed {
    async fn new() -> Self {
        let nats = Nats::start().await.unwrap();
        let config = Config::new(&nats).plugin("hello").unwrap().plugin_at("skew", &skew("new"));
        let hosts = (Cardcage::api(&config).await.unwrap(), Cardcage::worker(&config).await.unwrap());
        restored(&hosts.0).await;
        // The worker tells how its plugins describe themselves once it is ready.
        eventually(soon(), "the worker has described its plugins", async || {
            let (report, _) = report(&config, "broker").await;
            (report["deployed"].as_array()?.len() == 2).then_some(())
        })
        .await
        .unwrap();
        let paused = Launch::new(["queues", "pause", "skew.pay"]).config(&config).run(soon()).await.unwrap();
        assert_eq!(paused.status.code(), Some(0), "{paused:?}");
        Self { http: hosts.0.http().unwrap(), config, _hosts: hosts, nats }
    }

    async fn pay(&self, amount: Value) {
        let reply = self.http.post_json("/skew/pay", &json!({ "amount": amount })).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
    }

    fn candidate(&self, skew: &Path) -> Config {
        self.config.clone().plugin_at("skew", skew)
    }

    fn without_skew(&self) -> Config {
        Config::default()
            .set("broker.url", self.nats.url())
            .set("broker.namespace", self.config.namespace())
            .plugin("hello")
            .unwrap()
    }
}

#[tokio::test]
async fn what_is_deployed_does_not_break_itself() {
    let deployed = Deployed::new().await;
    deployed.pay(json!({ "units": 5, "currency": "eur" })).await;
    let (report, code) = report(&deployed.config, "broker").await;
    assert_eq!((code, &report["findings"], &report["breaks"]), (0, &json!([]), &json!(0)), "{report}");
    let version = |plugin: &str, version: &str| json!({ "plugin": plugin, "version": version });
    assert_eq!(report["deployed"], json!([version("hello", "0.1.0"), version("skew", "1.1.0")]));
}

#[tokio::test]
async fn waiting_bodies_that_a_candidate_cannot_read_are_counted_by_version_before_it_is_deployed() {
    let deployed = Deployed::new().await;
    deployed.pay(json!(7)).await;
    deployed.pay(json!({ "units": 5, "currency": "eur" })).await;
    deployed.pay(json!({ "units": 6, "currency": "eur" })).await;
    // Back to 1.0, which takes numbers only.
    let (report, code) = report(&deployed.candidate(&skew("old")), "broker").await;
    assert_eq!(code, 6, "{report}");
    let breaks = breaking(&report);
    let of_kind = |kind: &str| {
        breaks.iter().find(|(one, ..)| *one == kind).unwrap_or_else(|| panic!("{kind}: {report}"))
    };
    let (_, of, message) = of_kind("waiting_tasks_unfit");
    assert_eq!(*of, "task pay");
    assert!(
        message.starts_with("2 of 3 that wait, enqueued by 1.1.0, would be parked: at `amount`: "),
        "{message}"
    );
    assert!(!message.contains("eur"), "bodies are not shown: {message}");
    // And whoever sends what 1.1 allows, through the task as through the route, would be refused.
    assert!(of_kind("task_schema_narrowed").2.contains("`amount` "), "{report}");
    assert_eq!(of_kind("request_narrowed").1, "POST /skew/pay");
    let tasks = json!([{ "plugin": "skew", "major": 1, "task": "pay", "version": "1.1.0", "queued": 3, "delayed": 0,
        "parked": 0, "dead": 0, "unfit": 2, "fit_parked": 0, "unfit_dead": 0, "lost_dead": 0, "is_taken": true, "is_upcast": false, "fault": report["tasks"][0]["fault"], "dead_fault": null }]);
    assert_eq!(report["tasks"], tasks);

    // 1.2 has an upcaster for them; callers of the route still have to change.
    let (report, code) = self::report(&deployed.candidate(&skew("upcast")), "broker").await;
    let kinds: std::collections::BTreeSet<&str> = breaking(&report).iter().map(|(kind, ..)| *kind).collect();
    assert_eq!((code, kinds), (6, ["request_narrowed"].into()), "{report}");
    let notes =
        report["findings"].as_array().unwrap().iter().filter(|one| one["kind"] == "waiting_tasks_unfit");
    let notes: Vec<&str> = notes.map(|one| one["message"].as_str().unwrap()).collect();
    assert!(
        notes[0].starts_with("3 of 3 that wait, enqueued by 1.1.0, are left to its upcaster"),
        "{report}"
    );

    let text = check(&deployed.candidate(&skew("old")), &["--against", "broker"]).await;
    assert_eq!(text.status.code(), Some(6), "{text:?}");
    for words in
        ["Against broker: ", "hello 0.1.0, skew 1.1.0", "breaks  skew", "2 of 3 that wait", "Exit code 6"]
    {
        assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_and_dead_tasks_are_counted_too_each_by_the_version_that_enqueued_it() {
    let deployed = Deployed::new().await;
    let cardcage = async |config: &Config, arguments: &[&str]| {
        let output = Launch::new(arguments.iter().copied()).config(config).run(soon()).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    // One that has failed for good, and one of each version that is to run in an hour.
    cardcage(&deployed.config, &["queues", "resume", "skew.pay"]).await;
    let nothing = json!({ "amount": { "units": 0, "currency": "eur" } });
    let failed = deployed.http.post_json("/skew/pay", &nothing).await.unwrap().task_id().unwrap();
    let ended = deployed.http.final_task(&failed, soon()).await.unwrap();
    assert_eq!(ended["error"]["message"], "there is nothing to pay", "{ended}");
    let old = deployed.candidate(&skew("old"));
    let euros = r#"{"amount":{"units":5,"currency":"eur"}}"#;
    for (config, body) in [(&deployed.config, euros), (&old, r#"{"amount":7}"#)] {
        cardcage(config, &["tasks", "enqueue", "skew.pay", "--json", body, "--delay", "1h"]).await;
    }
    let counted = eventually(soon(), "the letter is written, and all are counted", async || {
        let (report, code) = report(&old, "broker").await;
        let counts = report["tasks"].as_array()?.iter().map(|one| {
            ["delayed", "dead", "unfit", "unfit_dead"].map(|count| one[count].as_u64().unwrap_or_default())
        });
        let of = |one: &Value| one["version"].as_str().unwrap_or_default().to_owned();
        let versions: Vec<String> = report["tasks"].as_array()?.iter().map(of).collect();
        let counts: Vec<[u64; 4]> = counts.collect();
        (versions == ["1.0.0", "1.1.0"] && counts == [[1, 0, 0, 0], [1, 1, 1, 1]]).then_some((report, code))
    });
    let (report, code) = counted.await.unwrap();
    assert_eq!(code, 6, "{report}");
    let unfit = breaking(&report).into_iter().find(|(kind, ..)| *kind == "waiting_tasks_unfit").unwrap();
    assert!(unfit.2.starts_with("1 of 1 that wait, enqueued by 1.1.0, would be parked"), "{report}");
    let dead = breaking(&report).into_iter().find(|(kind, ..)| *kind == "dead_letters_unfit").unwrap();
    let words = "1 of 1 dead letters of 1.1.0 would be parked when replayed: at `amount`";
    assert!(dead.2.starts_with(words) && dead.1 == "task pay", "{report}");

    // An upcaster may take it; and without the plugin nobody does.
    let (report, _) = self::report(&deployed.candidate(&skew("upcast")), "broker").await;
    let dead = notes(&report, "dead_letters_unfit");
    let words = "1 of 1 dead letters of 1.1.0 are left to its upcaster: ";
    assert!(dead.len() == 1 && dead[0].starts_with(words), "{report}");
    let (report, code) = self::report(&deployed.without_skew(), "broker").await;
    let orphaned = "1 dead letters of v1, enqueued by 1.1.0, would find no worker when replayed";
    let is_told = breaking(&report).contains(&("dead_letters_orphaned", "task pay", orphaned));
    assert!(is_told && code == 6, "{report}");
}

#[tokio::test]
async fn plugin_that_is_left_out_is_told_with_the_tasks_that_would_find_no_worker() {
    let deployed = Deployed::new().await;
    deployed.pay(json!(7)).await;
    let (report, code) = report(&deployed.without_skew(), "broker").await;
    assert_eq!(code, 6, "{report}");
    assert_eq!(
        breaking(&report),
        [
            (
                "plugin_removed",
                "",
                "is not in the configuration: 1 routes, 1 tasks and 0 schedules go with it"
            ),
            ("route_removed", "POST /skew/pay", "is gone: callers get 404 or 405"),
            (
                "waiting_tasks_orphaned",
                "task pay",
                "1 that wait for v1, enqueued by 1.1.0, would find no worker"
            ),
        ]
    );
}

#[tokio::test]
async fn route_that_is_gone_breaks_against_a_saved_set_and_a_new_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await.unwrap();
    let before = Config::new(&nats).plugin("hello").unwrap();
    let file = folder.path().join("deployed.json");
    let file = file.to_str().unwrap();
    let saved = check(&before, &["--save-manifest", file]).await;
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");

    let mut deployed: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let routes = deployed["plugins"][0]["description"]["routes"].as_array().unwrap().len();
    // Where it is mounted is part of what callers write.
    let (told, code) = report(&before.clone().set("plugins.hello.prefix", "/greet"), file).await;
    assert_eq!((code, breaking(&told).len()), (6, routes), "{told}");

    // What is deployed has a route more, and its other one answered otherwise.
    let description = &mut deployed["plugins"][0]["description"];
    let farewell =
        json!({ "name": "farewell", "method": "GET", "path": "/farewell/{to}", "placement": "inline" });
    description["routes"].as_array_mut().unwrap().push(farewell);
    description["openapi"]["paths"]["/inline"]["get"]["responses"]["203"] = json!({ "description": "" });
    std::fs::write(file, deployed.to_string()).unwrap();
    let (told, code) = report(&before, file).await;
    assert_eq!(code, 6, "{told}");
    assert_eq!(
        breaking(&told),
        [
            ("route_removed", "GET /hello/farewell/{}", "is gone: callers get 404 or 405"),
            ("response_changed", "GET /hello/inline", "203 is not answered any more"),
        ]
    );
    let saved = check(&before, &["--save-manifest", file]).await;
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    // More plugins break nobody.
    let (told, code) = report(&before.plugin_at("skew", &skew("new")), file).await;
    assert_eq!((code, &told["findings"]), (0, &json!([])), "{told}");
}

#[tokio::test]
async fn schedule_that_a_candidate_no_longer_declares_breaks_and_another_rhythm_is_a_note() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("chaos").unwrap();
    let declare = |every: &str| {
        let nightly = json!({ "nightly": { "every": every, "order": { "mode": "ok" } } });
        ("CARDCAGE_CHAOS_SCHEDULES", nightly.to_string())
    };
    let (name, value) = declare("1h");
    let _worker = Launch::new(["worker"]).config(&config).env(name, value).ready().await.unwrap();
    let told = eventually(soon(), "the worker has described its plugins", async || {
        let (report, code) = report(&config, "broker").await;
        (!report["deployed"].as_array()?.is_empty()).then_some((report, code))
    });
    let (told, code) = told.await.unwrap();
    assert_eq!(code, 6, "{told}");
    let gone = "is gone: nothing starts chaos by itself any more";
    assert_eq!(breaking(&told), [("schedule_removed", "schedule nightly", gone)]);

    let (name, value) = declare("2h");
    let check = Launch::new(["check", "--against", "broker"]).config(&config).env(name, value);
    let output = check.run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("was 1h of chaos, and is 2h of chaos"), "{output:?}");
}

#[tokio::test]
async fn schedules_and_tasks_are_held_against_a_saved_set_too() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("chaos").unwrap().plugin_at("skew", &skew("new"));
    let file = folder.path().join("deployed.json");
    let nightly = json!({ "nightly": { "every": "1h", "order": { "mode": "ok" } } }).to_string();
    let save = Launch::new(["check", "--save-manifest", file.to_str().unwrap()]).config(&config);
    let saved = save.env("CARDCAGE_CHAOS_SCHEDULES", nightly).run(soon()).await.unwrap();
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    // The candidate has no schedule, and takes less.
    let less = config.clone().plugin_at("skew", &skew("old"));
    let (told, code) = report(&less, file.to_str().unwrap()).await;
    let kinds: Vec<(&str, &str)> = breaking(&told).iter().map(|(kind, of, _)| (*kind, *of)).collect();
    assert_eq!(code, 6, "{told}");
    for found in [("schedule_removed", "schedule nightly"), ("task_schema_narrowed", "task pay")] {
        assert!(kinds.contains(&found), "{found:?}: {told}");
    }
}

#[tokio::test]
async fn plugin_that_is_left_out_is_told_with_each_of_its_routes_tasks_and_schedules() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await.unwrap();
    let skew = Config::new(&nats).plugin_at("skew", &skew("new"));
    let config = skew.clone().plugin("chaos").unwrap().set("plugins.chaos.schedules.weekly.enabled", false);
    let file = folder.path().join("deployed.json");
    let schedule = |every: &str| json!({ "every": every, "order": { "mode": "ok" } });
    let both = json!({ "nightly": schedule("24h"), "weekly": schedule("168h") }).to_string();
    let save = Launch::new(["check", "--save-manifest", file.to_str().unwrap()]).config(&config);
    let saved = save.env("CARDCAGE_CHAOS_SCHEDULES", both).run(soon()).await.unwrap();
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    let deployed: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let chaos = &deployed["plugins"][0]["description"];
    let declared = ["routes", "tasks"].map(|what| chaos[what].as_array().unwrap().len());

    let (told, code) = report(&skew, file.to_str().unwrap()).await;
    let breaks = breaking(&told);
    let of_kind = |kind: &str| breaks.iter().filter(|(one, ..)| *one == kind).count();
    assert_eq!((code, ["route_removed", "task_removed"].map(of_kind)), (6, declared), "{told}");
    // The one that is switched off starts nothing today.
    let gone = ("schedule_removed", "schedule nightly", "is gone: nothing starts chaos by itself any more");
    assert!(breaks.contains(&gone) && of_kind("schedule_removed") == 1, "{told}");
    let [routes, tasks] = declared;
    let whole =
        format!("is not in the configuration: {routes} routes, {tasks} tasks and 1 schedules go with it");
    assert!(breaks.contains(&("plugin_removed", "", &whole)), "{told}");
}

#[tokio::test]
async fn plugin_that_only_api_instances_have_is_compared_too() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap().plugin_at("skew", &skew("new"));
    let api = Cardcage::api(&config).await.unwrap();
    restored(&api).await;
    let without = Config::default().set("broker.url", nats.url()).set("broker.namespace", config.namespace());
    let without = without.plugin("hello").unwrap();
    eventually(soon(), "the API has described its plugins", async || {
        let (report, code) = report(&config, "broker").await;
        (code == 0 && report["deployed"].as_array()?.len() == 2).then_some(())
    })
    .await
    .unwrap();
    let (lacking, code) = report(&without, "broker").await;
    assert_eq!(code, 6, "{lacking}");
    assert!(breaking(&lacking).iter().any(|(kind, ..)| *kind == "plugin_removed"), "{lacking}");

    // Where workers have it, theirs counts, and it is told once.
    let _worker = Cardcage::worker(&config).await.unwrap();
    eventually(soon(), "the worker has described its plugins", async || {
        let (report, code) = report(&config, "broker").await;
        (code == 0 && report["findings"] == json!([])).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn comparison_that_cannot_be_made_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{}").unwrap();
    for file in [folder.path().join("missing.json"), broken] {
        let output = check(&config, &["--against", file.to_str().unwrap()]).await;
        // The file's name was typed: nobody is sent to report a fault of cardcage.
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            output.stdout.contains("not compared") && output.stdout.contains("--save-manifest"),
            "{output:?}"
        );
        assert!(!output.stdout.contains("fault of cardcage"), "{output:?}");
    }
    let (_, code) = report(&config.set("broker.url", "nats://127.0.0.1:1"), "broker").await;
    assert_eq!(code, 69);
    // Where no worker ever was there is nothing to break, and it is said.
    let output = check(&Config::new(&nats).plugin("hello").unwrap(), &["--against", "broker"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("nothing is deployed there"), "{output:?}");
}

/// Messages of the findings that break nobody, of one kind.
fn notes(report: &Value, kind: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let notes = findings.filter(|one| one["kind"] == kind && one["breaks"] == false);
    notes.map(|one| one["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tasks_that_are_parked_or_wait_in_line_for_their_serial_key_are_counted_too() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("chaos").unwrap().plugin_at("skew", &skew("new"));
    // The worker is a minor version behind, and parks what it cannot read.
    let behind = config.clone().plugin_at("skew", &skew("old"));
    let (api, worker) = (Cardcage::api(&config).await.unwrap(), Cardcage::worker(&behind).await.unwrap());
    restored(&api).await;
    let http = api.http().unwrap();
    let pay = json!({ "amount": { "units": 5, "currency": "eur" } });
    assert_eq!(http.post_json("/skew/pay", &pay).await.unwrap().status, 202);
    for _ in 0..3 {
        let keyed = json!({ "mode": "sleep", "ms": 600_000, "serial": "one" });
        assert_eq!(http.post_json("/chaos/keyed", &keyed).await.unwrap().status, 202);
    }
    let counted = eventually(soon(), "one is parked, and three wait, of which one runs", async || {
        let (report, _) = report(&config, "broker").await;
        let tasks = report["tasks"].as_array()?;
        let of = |task: &str| tasks.iter().find(|one| one["task"] == task);
        (of("pay")?["parked"] == 1 && of("keyed")?["queued"] == 3).then_some(report)
    });
    let told = counted.await.unwrap_or_else(|error| panic!("{error}: {}", worker.stderr()));
    assert_eq!(
        notes(&told, "parked_tasks_fit"),
        ["1 of 1 that are parked, enqueued by 1.1.0, would come back and run"],
        "{told}"
    );
    let without = Config::default()
        .set("broker.url", nats.url())
        .set("broker.namespace", config.namespace())
        .plugin_at("skew", &skew("old"));
    let (told, code) = report(&without, "broker").await;
    let version = env!("CARGO_PKG_VERSION");
    let orphaned = format!("3 that wait for v0, enqueued by {version}, would find no worker");
    assert_eq!(code, 6, "{told}");
    let is_told = breaking(&told).contains(&("waiting_tasks_orphaned", "task keyed", &orphaned));
    assert!(is_told && notes(&told, "parked_tasks_fit").is_empty(), "{told}");
}

#[tokio::test]
async fn schedule_that_the_operator_changes_is_compared_as_it_fires() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("chaos").unwrap();
    let nightly = json!({ "nightly": { "every": "1h", "order": { "mode": "ok" } } }).to_string();
    let declared = |launch: Launch| launch.env("CARDCAGE_CHAOS_SCHEDULES", &nightly);
    let every_ten = config.clone().set("plugins.chaos.schedules.nightly.every", "10m");
    let _worker = declared(Launch::new(["worker"]).config(&every_ten)).ready().await.unwrap();
    let told = async |config: &Config| {
        let launch = Launch::new(["check", "--json", "--against", "broker"]).config(config);
        let output = declared(launch).run(soon()).await.unwrap();
        let mut report: Value = serde_json::from_str(&output.stdout).unwrap();
        (report["against"].take(), output.status.code().unwrap())
    };
    let deployed = eventually(soon(), "the worker has described its plugins", async || {
        let (report, code) = told(&every_ten).await;
        (!report["deployed"].as_array()?.is_empty()).then_some((report, code))
    });
    let (report, code) = deployed.await.unwrap();
    assert_eq!((code, &report["findings"]), (0, &json!([])), "what is deployed does not break itself");
    let (report, code) = told(&config).await;
    assert_eq!(
        (code, notes(&report, "schedule_changed")),
        (0, vec!["was 10m of chaos, and is 1h of chaos".to_owned()])
    );
    let off = config.set("plugins.chaos.schedules.nightly.enabled", false);
    let (report, code) = told(&off).await;
    let gone = "is switched off by the configuration: nothing starts chaos by itself".to_owned();
    assert_eq!((code, notes(&report, "schedule_changed")), (0, vec![gone]), "{report}");
}

#[tokio::test]
async fn body_that_becomes_required_breaks_callers_and_a_parameter_that_goes_is_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap();
    let file = folder.path().join("deployed.json");
    let file = file.to_str().unwrap();
    assert_eq!(check(&config, &["--save-manifest", file]).await.status.code(), Some(0));
    let mut deployed: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let paths = &mut deployed["plugins"][0]["description"]["openapi"]["paths"];
    // What is deployed took a call without a body, and had a parameter that nobody reads any more.
    let call = paths["/call"]["post"].as_object_mut().unwrap();
    call["requestBody"].as_object_mut().unwrap().remove("required");
    let gone = json!([{ "in": "query", "name": "loud", "schema": { "type": "boolean" } }]);
    call.insert("parameters".to_owned(), gone);
    std::fs::write(file, deployed.to_string()).unwrap();
    let (told, code) = report(&config, file).await;
    assert_eq!(
        (code, breaking(&told)),
        (6, vec![("request_narrowed", "POST /hello/call", "a body is required, and was not")])
    );
    let gone = "the query parameter `loud` is no longer documented: it may be passed over";
    assert_eq!(notes(&told, "request_narrowed"), [gone], "{told}");
}
