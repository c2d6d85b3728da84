//! Previous libraries beside other plugins, beside worker groups, and in the eyes of `check --against`.

use super::{Site, accepted, done, loaded, once, ready, run_json, seat, with};
use crate::serving::soon;
use cardcage_harness::{Launch, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_needs_the_old_major_is_loaded_and_served_as_long_as_it_is_there() {
    let site = Site::new(|config| config.plugin("chaos").unwrap()).await;
    let host =
        |role: &str, config| Launch::new([role]).config(config).env("CARDCAGE_CHAOS_NEEDS", "majors 1");
    let without = site.of(2, &[]);
    for role in ["api", "worker", "check"] {
        let ended = host(role, &without).run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(70), "{role}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("needs the plugin `majors` v1, and this host has 2.0.0"), "{role}: {said}");
    }
    let config = site.of(2, &[1]);
    let checked = host("check", &config).run(soon()).await.unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let _worker = host("worker", &config).ready().await.unwrap();
    let api = host("api", &config).ready().await.unwrap();
    let http = api.http().unwrap();
    let reach = json!({ "plugin": "majors", "major": 1, "method": "GET", "path": "/which" });
    let reply = http.post_json("/chaos/reach", &reach).await.unwrap();
    assert_eq!((reply.status, &reply.json().unwrap()["body"]), (200, &json!("1.4.0")), "{}", reply.text());

    // The same from a worker, which knows the old major's schema.
    let reach = async |body: Value| {
        let order = json!({ "plugin": "majors", "major": 1, "enqueue": "work", "body": body });
        let id = http.post_json("/chaos/reach_task", &order).await.unwrap().task_id().unwrap();
        http.final_task(&id, soon()).await.unwrap()
    };
    let wrong = reach(json!({ "title": "x" })).await;
    assert!(wrong["error"].to_string().contains("does not fit the task `work`"), "{wrong}");
    let right = reach(json!({ "label": "by chaos" })).await;
    assert_eq!(right["state"], "succeeded", "{right}");
    eventually(soon(), "its task has run", async || {
        let (listed, _) = run_json(&config, &["tasks", "list", "--plugin", "majors", "--task", "work"]).await;
        let tasks = listed["tasks"].as_array()?;
        (tasks.len() == 1 && tasks[0]["state"] == "succeeded").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_libraries_of_a_worker_group_have_processes_with_the_groups_limits() {
    let groups: toml::Table = "groups = [{ name = \"one\", plugins = [\"majors\", \"hello\"], processes = 2, task_concurrency = 3 }, \
                               { name = \"rest\" }]"
        .parse()
        .unwrap();
    let site =
        Site::new(|config| config.plugin("chaos").unwrap().set("worker.group", groups["groups"].clone()))
            .await;
    let worker = site.reloadable("worker", &site.of(1, &[])).await;
    assert_eq!(ready(&worker).await["seats"].as_array().unwrap().len(), 3);
    let told = site.reload("worker", &worker, &site.of(2, &[1])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert!(!told.stdout.contains("worker.group"), "the groups are what they were: {told:?}");
    let now = ready(&worker).await;
    let seats: Vec<(String, u64, String)> = now["seats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let group = one["seat"]["group"].as_str().unwrap().to_owned();
            (group, one["seat"]["process"].as_u64().unwrap(), loaded(one).join(", "))
        })
        .collect();
    let expect = |group: &str, process, plugins: &str| (group.to_owned(), process, plugins.to_owned());
    let expected = [
        expect("one", 1, "hello 0.1.0, majors 2.0.0"),
        expect("one", 2, "hello 0.1.0, majors 2.0.0"),
        expect("rest", 1, "chaos 0.1.0"),
        expect("one/previous-1", 1, "majors 1.4.0"),
        expect("one/previous-1", 2, "majors 1.4.0"),
    ];
    assert_eq!(seats, expected, "{now}");
    let (listed, _) = run_json(&site.of(2, &[1]), &["workers", "list"]).await;
    let old =
        listed["workers"].as_array().unwrap().iter().filter(|worker| worker["group"] == "one/previous-1");
    assert_eq!(old.map(|worker| worker["slots"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 3], "{listed}");
    let api = site.api(&site.of(1, &[])).await;
    let http = api.http().unwrap();
    let id = accepted(&http, json!({ "label": "grouped" })).await;
    assert_eq!(done(&http, &id).await, once("1.4.0 did grouped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_against_the_broker_finds_waiting_tasks_taken_by_a_previous_library_and_lost_without_it() {
    let site = Site::new(|config| config).await;
    let worker = site.reloadable("worker", &site.of(1, &[])).await;
    let api = site.api(&site.of(1, &[])).await;
    let http = api.http().unwrap();
    let paused =
        Launch::new(["queues", "pause", "majors.work"]).config(&site.config).run(soon()).await.unwrap();
    assert_eq!(paused.status.code(), Some(0), "{paused:?}");
    accepted(&http, json!({ "label": "waits" })).await;
    let against = async |current, previous: &[u32]| {
        let config = with(site.config.clone(), current, previous);
        let (report, _) = run_json(&config, &["check", "--against", "broker"]).await;
        report["against"].clone()
    };
    let deployed = async |versions: &[&str]| {
        eventually(soon(), "the workers have described their plugins", async || {
            let report = against(2, &[1]).await;
            let mut known = loaded_names(&report["deployed"]);
            known.retain(|one| one.starts_with("majors"));
            (known == versions).then_some(())
        })
        .await
        .unwrap();
    };
    let orphaned = |report: &Value| -> Vec<String> {
        let findings = report["findings"].as_array().unwrap().iter();
        let orphaned = findings.filter(|one| one["kind"] == "waiting_tasks_orphaned");
        orphaned.map(|one| format!("{} {}", one["of"].as_str().unwrap(), one["breaks"])).collect()
    };
    // What the new major asks of a body, the old one does not where it stays.
    let narrowed = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|one| one["kind"] == "task_schema_narrowed" && one["breaks"] == true).count()
    };
    deployed(&["majors 1.4.0"]).await;
    let report = against(2, &[]).await;
    assert_eq!(orphaned(&report), ["task work true"], "{report}");
    assert!(narrowed(&report) > 0, "{report}");
    let report = against(2, &[1]).await;
    assert_eq!((orphaned(&report), narrowed(&report)), (Vec::<String>::new(), 0), "{report}");
    // Its routes are gone all the same, and that is told.
    assert!(report["findings"].to_string().contains("/majors/only_old"), "{report}");

    let told = site.reload("worker", &worker, &site.of(2, &[1])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    deployed(&["majors 1.4.0", "majors 2.0.0"]).await;
    let report = against(2, &[1]).await;
    assert_eq!((&report["breaks"], &report["findings"]), (&json!(0), &json!([])), "{report}");
    let report = against(2, &[]).await;
    assert_eq!(
        (orphaned(&report), &report["breaks"]),
        (vec!["task work true".to_owned()], &json!(1)),
        "{report}"
    );
    let now = ready(&worker).await;
    assert_eq!(loaded(seat(&now, Some("previous-1"))), ["majors 1.4.0"], "{now}");
    drop(worker);
}

fn loaded_names(deployed: &Value) -> Vec<String> {
    let deployed = deployed.as_array().unwrap().iter();
    deployed
        .map(|one| format!("{} {}", one["plugin"].as_str().unwrap(), one["version"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_lists_previous_libraries_with_their_tasks() {
    let site = Site::new(|config| config).await;
    let (report, code) = run_json(&site.of(2, &[1]), &["check"]).await;
    assert_eq!(code, 0, "{report}");
    let majors = report["plugins"].as_array().unwrap().iter().find(|one| one["name"] == "majors").unwrap();
    assert_eq!(majors["version"], "2.0.0");
    let previous = &majors["previous"][0];
    assert_eq!(
        (&previous["version"], &previous["tasks"]),
        (&json!("1.4.0"), &json!(["work", "tick"])),
        "{report}"
    );
}
