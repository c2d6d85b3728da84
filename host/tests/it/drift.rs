//! Which versions run where is visible, and what an API offers that no live worker runs is named.

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
