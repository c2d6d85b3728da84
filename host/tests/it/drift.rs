//! Which versions run where is visible, and what an API offers that no live worker runs is named.

use crate::parked::Skewed;
use crate::serving::{Serving, soon};
use cardcage_harness::{Cardcage, Config, Launch, Output, eventually, plugin_library};
use serde_json::{Value, json};

async fn list(config: &Config, more: &[&str]) -> Output {
    let arguments = [&["instances", "list"], more].concat();
    Launch::new(arguments).config(config).run(soon()).await.unwrap()
}

async fn drift(config: &Config) -> (Option<i32>, Value) {
    let output = list(config, &["--check", "--json"]).await;
    let json: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), json)
}

/// The same, as soon as all that differs could be compared: hosts say how they describe themselves beside serving.
async fn compared(config: &Config) -> (Option<i32>, Value) {
    let all_compared = async || {
        let (code, found) = drift(config).await;
        (found["not_compared"] == json!([])).then_some((code, found))
    };
    eventually(soon(), "all schemas are compared", all_compared).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_offers_and_no_live_worker_runs_is_named_and_the_api_is_ready_all_the_same() {
    let skew = plugin_library("skew-old").unwrap();
    let serving = Serving::api(|config| config.plugin_at("skew", &skew)).await;
    // Without skew.
    let few = Config::new(&serving.nats).set("broker.namespace", serving.config.namespace());
    let few = few.plugin("hello").unwrap().plugin("chaos").unwrap();
    let (code, nobody) = drift(&serving.config).await;
    assert_eq!(code, Some(1), "{nobody}");
    assert_eq!(nobody["apis"].as_array().unwrap().len(), 1, "{nobody}");
    let plugins: Vec<&str> =
        nobody["drift"].as_array().unwrap().iter().map(|one| one["plugin"].as_str().unwrap()).collect();
    assert_eq!(plugins, ["chaos", "hello", "skew"], "{nobody}");
    assert_eq!(
        (&nobody["drift"][1]["tasks"], &nobody["drift"][1]["routes"]),
        (&json!(["echo"]), &json!(["call"]))
    );

    let mut worker = Cardcage::worker(&few).await.unwrap();
    let (code, some) = drift(&serving.config).await;
    assert_eq!(code, Some(1), "{some}");
    let drifts = some["drift"].as_array().unwrap();
    assert_eq!(drifts.len(), 1, "{some}");
    assert_eq!(
        (&drifts[0]["plugin"], &drifts[0]["version"], &drifts[0]["tasks"], &drifts[0]["routes"]),
        (&json!("skew"), &json!("1.0.0"), &json!(["pay"]), &json!([]))
    );
    let text = list(&serving.config, &[]).await;
    assert_eq!(text.status.code(), Some(0), "only --check judges: {text:?}");
    let (api, line) = (&drifts[0]["instance"], "no live worker can run skew 1.0.0: ");
    let line = format!("{line}{} accepts its tasks pay", api.as_str().unwrap());
    assert!(text.stdout.lines().any(|one| one == line), "{}", text.stdout);
    let ready = serving.api.admin().unwrap().get("/readyz?verbose").await.unwrap();
    assert_eq!(ready.status, 200, "{}", ready.text());

    let full = serving.worker().await;
    let (code, none) = drift(&serving.config).await;
    assert_eq!((code, &none["drift"]), (Some(0), &json!([])), "{none}");
    assert_eq!(none["workers"].as_array().unwrap().len(), 2, "{none}");
    drop(full);
    worker.stop(soon()).await.unwrap();
    eventually(soon(), "nobody runs anything again", async || {
        let (code, all) = drift(&serving.config).await;
        (code == Some(1) && all["drift"].as_array().unwrap().len() == 3).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn task_whose_bodies_live_workers_would_park_is_named_until_one_that_reads_them_joins() {
    let skewed = Skewed::new().await;
    let config = &skewed.serving.config;
    let old = skewed.old_worker().await;
    let (code, some) = compared(config).await;
    assert_eq!(code, Some(1), "{some}");
    let drifts = some["drift"].as_array().unwrap();
    assert_eq!(drifts.len(), 1, "{some}");
    assert_eq!(
        (&drifts[0]["plugin"], &drifts[0]["version"], &drifts[0]["unfit"], &drifts[0]["tasks"]),
        (&json!("skew"), &json!("1.1.0"), &json!(["pay"]), &json!([]))
    );
    let reason = &drifts[0]["reasons"][0];
    assert_eq!(
        (&reason["kind"], &reason["name"], &reason["code"], &reason["workers"]),
        (&json!("task"), &json!("pay"), &json!("body_unfit"), &json!(["1.0.0"])),
        "{some}"
    );
    let words =
        "of its body `amount` may be object, and only integer is taken by 1.0.0; such a task is parked";
    assert_eq!(reason["why"], words);
    // It is true.
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    let text = list(config, &[]).await.stdout;
    let api = drifts[0]["instance"].as_str().unwrap();
    let line = format!("no live worker reads all bodies of skew 1.1.0: {api} accepts its tasks pay");
    let told: Vec<&str> = text.lines().skip_while(|one| *one != line).collect();
    let remedy = "  remedy: bring workers to skew 1.1.0, and in a roll-out workers before API instances";
    assert_eq!(told, [line.as_str(), &format!("  pay: {words}"), remedy], "{text}");

    let new = skewed.serving.worker().await;
    assert_eq!(drift(config).await.0, Some(0), "one that reads them is enough");
    drop(new);
    eventually(soon(), "nobody reads them again", async || (drift(config).await.0 == Some(1)).then_some(()))
        .await
        .unwrap();
    drop(old);
    let upcasting = plugin_library("skew-upcast").unwrap();
    let _upcasting = Cardcage::worker(&config.clone().plugin_at("skew", &upcasting)).await.unwrap();
    eventually(soon(), "one that upcasts is there", async || {
        (drift(config).await.0 == Some(0)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn api_of_an_older_version_is_served_by_workers_that_take_more_or_upcast_and_not_the_other_way_round() {
    let library = |version: &str| plugin_library(&format!("skew-{version}")).unwrap();
    let serving = Serving::api(|config| config.plugin_at("skew", &library("old"))).await;
    let of = |version: &str| serving.config.clone().plugin_at("skew", &library(version));
    for version in ["new", "upcast"] {
        let worker = Cardcage::worker(&of(version)).await.unwrap();
        let (code, none) = compared(&serving.config).await;
        assert_eq!((code, &none["drift"]), (Some(0), &json!([])), "{version}: {none}");
        drop(worker);
    }
    let newest = Cardcage::api(&of("upcast")).await.unwrap();
    let _worker = Cardcage::worker(&of("new")).await.unwrap();
    let (code, some) = compared(&serving.config).await;
    let drifts = some["drift"].as_array().unwrap();
    assert_eq!((code, drifts.len()), (Some(1), 1), "{some}");
    assert_eq!((&drifts[0]["version"], &drifts[0]["unfit"]), (&json!("1.2.0"), &json!(["pay"])), "{some}");
    let why = drifts[0]["reasons"][0]["why"].as_str().unwrap();
    assert!(why.contains("`amount` may be missing, and is required by 1.1.0"), "{some}");
    drop(newest);
}
