//! Worker groups: what one process does to itself is no other's business, and what each may use is kept.

use crate::reload::Installation;
use crate::serving::{Serving, child, signal, soon};
use cardcage_harness::{Cardcage, Config, Launch, Nats, Signal, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn toml(text: &str) -> toml::Value {
    let table: toml::Table = format!("value = {text}").parse().unwrap();
    table["value"].clone()
}

/// A lease so long that nothing in these tests waits for its end.
pub(crate) fn grouped(config: Config, groups: &str) -> Config {
    config.set("tasks.lease_ms", 120_000).set("drain.grace_ms", 10_000).set("worker.group", toml(groups))
}

const TWO: &str = r#"[{ name = "calm", plugins = ["hello"] }, { name = "wild" }]"#;

async fn accepted(serving: &Serving, path: &str, body: Value) -> String {
    let reply = serving.http.post_json(path, &body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn ready(worker: &Cardcage) -> Value {
    worker.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap()
}

/// What the worker says of one process of a group.
fn seat<'a>(ready: &'a Value, group: &str, process: u32) -> &'a Value {
    let of = |one: &&Value| one["seat"] == json!({ "group": group, "process": process });
    ready["seats"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("{group} {process}: {ready}"))
}

fn pid(ready: &Value, group: &str) -> u32 {
    u32::try_from(seat(ready, group, 1)["child_pid"].as_u64().unwrap()).unwrap()
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

fn time(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<cardcage_protocol::Timestamp>().unwrap().unix_ms()
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task: Value = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn death_of_one_groups_process_leaves_the_others_tasks_running_and_its_own_comes_back() {
    let (serving, worker) = Serving::both(|config| grouped(config, TWO)).await;
    let before = ready(&worker).await;
    let (calm, wild) = (pid(&before, "calm"), pid(&before, "wild"));
    // Private copies are named by their hash.
    let libraries = |pid: u32| -> BTreeSet<String> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let names = maps.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".so"));
        names.filter(|name| name.len() == 64).map(str::to_owned).collect()
    };
    let names = |group| {
        seat(&before, group, 1)["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!((names("calm"), names("wild")), (vec![json!("hello")], vec![json!("chaos")]), "{before}");
    assert_eq!((libraries(calm).len(), libraries(wild).len()), (1, 1), "each has its plugin's library only");
    assert!(libraries(calm).is_disjoint(&libraries(wild)));

    let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 5_000 })).await;
    running(&serving, &id).await;
    signal(calm, Signal::KILL);
    let metric = |name: &str, group: &str, value: u32| {
        format!("cardcage_group_{name}{{group=\"{group}\",process=\"1\"}} {value}")
    };
    eventually(soon(), "the group that died is back", async || {
        let text = worker.admin().unwrap().get("/metrics").await.ok()?.text();
        let has = |line: String| text.lines().any(|one| one == line);
        (has(metric("ready", "calm", 1)) && has(metric("child_restarts_total", "calm", 1))).then(|| {
            assert!(has(metric("child_restarts_total", "wild", 0)), "{text}");
            assert!(text.contains("cardcage_tasks_in_flight{group=\"wild\",process=\"1\"} "), "{text}");
        })
    })
    .await
    .unwrap();
    assert_eq!(serving.http.post_json("/hello/call", &json!({})).await.unwrap().status, 200);
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    let after = ready(&worker).await;
    assert_eq!((pid(&after, "wild"), after["ready"].clone()), (wild, json!(true)), "{after}");
    assert_ne!(pid(&after, "calm"), calm);
    assert_eq!(seat(&after, "calm", 1)["last_crash"]["cause"], "killed", "{after}");
    assert_eq!(seat(&after, "wild", 1)["last_crash"], Value::Null, "{after}");
    assert!(
        worker.stderr().contains("group=\"calm\"") || worker.stderr().contains("\"group\":\"calm\""),
        "{}",
        worker.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_a_group_share_its_queue_and_each_keeps_its_own_bound() {
    let groups =
        r#"[{ name = "wild", plugins = ["chaos"], processes = 2, task_concurrency = 2 }, { name = "rest" }]"#;
    let change = |config| grouped(config, groups).set("plugins.chaos.task_concurrency", 1);
    let (serving, worker) = Serving::both(change).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        // Two tasks of the plugin: the bound is over both.
        for path in ["/chaos/task", "/chaos/short"] {
            ids.push(accepted(&serving, path, json!({ "mode": "sleep", "ms": 300 })).await);
        }
    }
    let mut spans: Vec<(String, u64, u64)> = Vec::new();
    for id in &ids {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
        let attempt = &done["attempts"][0];
        let by = attempt["worker"].as_str().unwrap().to_owned();
        spans.push((by, time(&attempt["started_at"]), time(&attempt["ended_at"])));
    }
    let by: BTreeSet<&String> = spans.iter().map(|(by, ..)| by).collect();
    assert_eq!(by.len(), 2, "both processes ran some: {spans:?}");
    for (nth, (by, start, end)) in spans.iter().enumerate() {
        let overlap = |(other, from, to): &&(String, u64, u64)| other == by && from < end && start < to;
        assert!(
            !spans[nth + 1..].iter().any(|span| overlap(&span)),
            "one at a time in each process: {spans:?}"
        );
    }
    let listed =
        Launch::new(["workers", "list", "--json"]).config(&serving.config).run(soon()).await.unwrap();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let workers = listed["workers"].as_array().unwrap();
    let wild: BTreeSet<&str> = workers
        .iter()
        .filter(|worker| worker["group"] == "wild")
        .map(|worker| {
            assert_eq!(worker["slots"], 1, "{worker}");
            worker["instance"].as_str().unwrap()
        })
        .collect();
    assert_eq!(wild, by.iter().map(|by| by.as_str()).collect(), "{listed}");
    assert_eq!(workers.iter().filter(|worker| worker["group"] == "rest").count(), 1, "{listed}");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_ceiling_of_a_group_ends_its_process_and_no_other() {
    let groups = r#"[{ name = "wild", plugins = ["chaos"], memory_max_mb = 250 }, { name = "calm" }]"#;
    let change = |config| grouped(config, groups).set("tasks.lost_limit", 1);
    let (serving, worker) = Serving::both(change).await;
    let calm = pid(&ready(&worker).await, "calm");
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "hoard", "times": 256, "ms": 60_000 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert!(done.to_string().contains("memory ceiling"), "{done}");
    let after = ready(&worker).await;
    assert_eq!(seat(&after, "wild", 1)["last_crash"]["cause"], "memory", "{after}");
    assert_eq!((pid(&after, "calm"), &seat(&after, "calm", 1)["restarts"]), (calm, &json!(0)), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_ceiling_of_a_plugin_gives_it_a_process_that_alone_is_ended() {
    let change = |config: Config| {
        let config = config.set("tasks.lease_ms", 120_000).set("drain.grace_ms", 10_000);
        config.set("plugins.chaos.memory_max_mb", 250).set("tasks.lost_limit", 1)
    };
    let (serving, worker) = Serving::both(change).await;
    let before = ready(&worker).await;
    assert_eq!(before["seats"].as_array().unwrap().len(), 2, "{before}");
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "hoard", "times": 256, "ms": 60_000 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert!(done.to_string().contains("memory ceiling"), "{done}");
    let after = ready(&worker).await;
    assert_eq!(seat(&after, "chaos", 1)["last_crash"]["cause"], "memory", "{after}");
    assert_eq!(pid(&after, "rest"), pid(&before, "rest"), "{after}");
    assert_eq!(seat(&after, "rest", 1)["restarts"], 0, "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn process_that_has_run_its_groups_number_of_tasks_gives_way_and_no_other_does() {
    let groups = r#"[{ name = "calm", plugins = ["hello"] }, { name = "wild", recycle_after_tasks = 5 }]"#;
    let (serving, worker) = Serving::both(|config| grouped(config, groups)).await;
    let before = ready(&worker).await;
    let mut ids = Vec::new();
    eventually(soon(), "the process of `wild` is replaced", async || {
        ids.push(accepted(&serving, "/chaos/task", json!({ "mode": "ok" })).await);
        ids.push(accepted(&serving, "/hello/task", json!({})).await);
        (pid(&ready(&worker).await, "wild") != pid(&before, "wild")).then_some(())
    })
    .await
    .unwrap();
    for id in &ids {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    }
    assert!(ids.len() >= 10, "five of each at least: {}", ids.len());
    assert_eq!(pid(&ready(&worker).await, "calm"), pid(&before, "calm"));
}

#[tokio::test(flavor = "multi_thread")]
async fn group_that_cannot_do_without_a_refused_plugin_stops_the_whole_host() {
    let nats = Nats::start().await.unwrap();
    let noise = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(noise.path(), b"no library").unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap().plugin_at("noise", noise.path());
    let groups = r#"[{ name = "good", plugins = ["hello"] }, { name = "bad", plugins = ["noise"] }]"#;
    let config = grouped(config, groups);
    let output = Launch::new(["worker"]).config(&config).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", output.stderr);
    assert!(output.stderr.contains("a worker group has given up"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_changes_what_groups_have_and_may_use_and_all_of_them_or_none() {
    let groups = r#"[{ name = "calm", plugins = ["hello", "skew"] }, { name = "wild" }]"#;
    let this = Installation::new(|config, _| grouped(config, groups)).await;
    let before = ready(&this.worker).await;
    let id = this.accepted("/chaos/task", json!({ "mode": "sleep", "ms": 3_000 })).await;

    // A plugin moves, while a task of another runs.
    let moved = r#"[{ name = "calm", plugins = ["hello"] }, { name = "wild", task_concurrency = 3 }]"#;
    this.rewrite(&grouped(this.config.clone(), moved));
    let told = this.reload(&[&this.worker]).await;
    assert_eq!(told.status.code(), Some(0), "{} {}", told.stdout, told.stderr);
    let after = ready(&this.worker).await;
    let has = |ready: &Value, group: &str| seat(ready, group, 1)["plugins"].to_string().contains("\"skew\"");
    assert_eq!(
        (has(&before, "calm"), has(&after, "calm"), has(&after, "wild")),
        (true, false, true),
        "{after}"
    );
    assert_ne!(pid(&before, "wild"), pid(&after, "wild"));
    let done = this.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");

    // Other groups are a restart's business, and the command says so.
    let other = r#"[{ name = "calm", plugins = ["hello"] }, { name = "wild", processes = 2 }]"#;
    this.rewrite(&grouped(this.config.clone(), other));
    let told = this.reload(&[&this.worker]).await;
    assert_eq!(told.status.code(), Some(0), "{} {}", told.stdout, told.stderr);
    assert!((told.stdout.clone() + &told.stderr).contains("worker.group"), "{} {}", told.stdout, told.stderr);
    assert_eq!(ready(&this.worker).await["seats"].as_array().unwrap().len(), 2);

    let config = grouped(this.config.clone(), moved).set("plugins.hello.memory_max_mb", 900);
    this.rewrite(&config);
    let told = this.reload(&[&this.worker]).await;
    assert_eq!(told.status.code(), Some(0), "{} {}", told.stdout, told.stderr);
    let other = grouped(this.config.clone(), moved).set("plugins.chaos.memory_max_mb", 900);
    this.rewrite(&other);
    let told = this.reload(&[&this.worker]).await;
    let text = told.stdout.clone() + &told.stderr;
    assert!(text.contains("plugins.chaos.memory_max_mb"), "{text}");
    assert_eq!(ready(&this.worker).await["seats"].as_array().unwrap().len(), 2, "{text}");

    // The plugin of one group does not start, which only its new child finds out: the other's new child goes, too.
    eventually(soon(), "those before are gone", async || (this.worker.child_pids().len() == 2).then_some(()))
        .await
        .unwrap();
    let served = ready(&this.worker).await;
    this.rewrite(&grouped(this.config.clone(), moved).plugin_set("chaos", "init", "fail"));
    let told = this.reload(&[&this.worker]).await;
    assert_eq!(told.status.code(), Some(70), "{} {}", told.stdout, told.stderr);
    let now = ready(&this.worker).await;
    assert_eq!((pid(&now, "calm"), pid(&now, "wild")), (pid(&served, "calm"), pid(&served, "wild")));
    eventually(soon(), "no other child is left", async || {
        (this.worker.child_pids().len() == 2).then_some(())
    })
    .await
    .unwrap();
    let now = ready(&this.worker).await;
    assert_eq!((pid(&now, "calm"), now["ready"].clone()), (pid(&served, "calm"), json!(true)), "{now}");
    tokio::time::timeout(Duration::from_secs(30), this.http.post_json("/hello/call", &json!({})))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_drains_every_group_within_the_grace() {
    let (serving, mut worker) = Serving::both(|config| grouped(config, TWO)).await;
    let id = accepted(&serving, "/chaos/task", json!({ "mode": "sleep", "ms": 2_000 })).await;
    running(&serving, &id).await;
    worker.signal(Signal::TERM).unwrap();
    assert_eq!(worker.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());
    let done: Value = serving.get(&format!("/tasks/{id}")).await.json().unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_groups_there_is_one_process_and_no_word_of_groups() {
    let (_serving, worker) = Serving::both(|config| config).await;
    child(&worker);
    let now = ready(&worker).await;
    assert_eq!((now.get("seats"), now.get("seat")), (None, None), "{now}");
    let text = worker.admin().unwrap().get("/metrics").await.unwrap().text();
    assert!(!text.contains("group="), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_reports_lists_and_metrics_say_which_group_a_process_is_of() {
    for format in ["text", "json"] {
        let (serving, worker) = Serving::both(|config| {
            grouped(config, TWO).set("log.format", format).set("tasks.quarantine_after", 0)
        })
        .await;
        assert_eq!(serving.order(json!({ "mode": "panic" })).await.status, 500);
        let panicked = eventually(soon(), "the child has logged the panic", async || {
            worker.stderr().lines().find(|line| line.contains("plugin code panicked")).map(str::to_owned)
        });
        let line = panicked.await.unwrap();
        match format {
            "text" => assert!(line.ends_with(" group=\"wild\" process=1"), "{line}"),
            _ => {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&line["group"], &line["process"]), (&json!("wild"), &json!(1)), "{line}");
            }
        }
        // Nobody has to know the child by its number.
        assert_eq!(serving.order(json!({ "mode": "segfault" })).await.status, 502);
        let crashed = eventually(soon(), "the crash is reported", async || {
            let now = ready(&worker).await;
            (now["last_crash"].is_object() && now["ready"] == true).then_some(now)
        });
        let now = crashed.await.unwrap();
        assert_eq!(now["last_crash"]["seat"], json!({ "group": "wild", "process": 1 }), "{now}");
        let died = worker.stderr().lines().find(|line| line.contains("the child died")).unwrap().to_owned();
        assert!(died.contains("wild"), "{died}");
        let text = worker.admin().unwrap().get("/metrics").await.unwrap().text();
        let of = "{group=\"wild\",process=\"1\",cause=\"signal\",plugin=\"chaos\"} 1";
        assert!(text.contains(&format!("cardcage_group_child_crashes_total{of}")), "{text}");

        let list = async |more: &[&str]| {
            let arguments = [&["instances", "list"], more].concat();
            Launch::new(arguments).config(&serving.config).run(soon()).await.unwrap().stdout
        };
        let listed: Value = serde_json::from_str(&list(&["--json"]).await).unwrap();
        let workers = listed["workers"].as_array().unwrap().iter();
        let groups: BTreeSet<&str> = workers.map(|worker| worker["group"].as_str().unwrap()).collect();
        assert_eq!(groups, BTreeSet::from(["calm", "wild"]), "{listed}");
        assert_eq!(listed["apis"][0].get("group"), None, "{listed}");
        let table = list(&[]).await;
        let row = |name: &str| table.lines().any(|line| line.contains("worker") && line.contains(name));
        assert!(table.lines().next().unwrap().contains("group") && row("calm") && row("wild"), "{table}");
    }
}
