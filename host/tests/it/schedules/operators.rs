//! Operators' commands on schedules.

use super::*;
use cardcage_harness::Output;
use serde_json::json;

async fn run(serving: &Serving, arguments: &[&str]) -> Output {
    Launch::new(arguments.iter().copied()).config(&serving.config).run(soon()).await.unwrap()
}

async fn json_of(serving: &Serving, arguments: &[&str]) -> Value {
    let output = run(serving, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

async fn entry(serving: &Serving, name: &str) -> Value {
    let list = json_of(serving, &["schedules", "list"]).await;
    let found = list["schedules"].as_array().unwrap().iter().find(|entry| entry["schedule"] == name);
    found.unwrap_or_else(|| panic!("{name} is in {list}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_holds_over_restarts_of_worker_and_broker_until_it_is_resumed() {
    let mut serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let schedules =
        json!({ "tick": { "every": "1s", "overlap": "queue", "order": { "mode": "ok", "note": "tick" } } });
    let mut first = worker(&serving.config, &schedules).await;
    wait_tasks(&broker, 2).await;
    let paused = json_of(&serving, &["schedules", "pause", "chaos.tick"]).await;
    assert_eq!(paused["state"], "paused", "{paused}");
    none_waits(&serving, &["tick"]).await;

    first.stop(soon()).await.unwrap();
    serving.nats.kill9();
    serving.nats.restart().await.unwrap();
    broker.wait_connected(Duration::from_secs(30)).await.unwrap();
    let _second = worker(&serving.config, &schedules).await;
    let before = stream(&serving).await.get_info().await.unwrap().state.last_sequence;
    let since = std::time::Instant::now();
    eventually(soon(), "slots would have passed", async || (since.elapsed() > 2 * LEASE).then_some(()))
        .await
        .unwrap();
    let after = stream(&serving).await.get_info().await.unwrap().state.last_sequence;
    assert_eq!(after, before, "nothing fired, and no worker wrote");
    assert_eq!(entry(&serving, "tick").await["state"], "paused");

    let count = tasks(&broker).await.len();
    let resumed = json_of(&serving, &["schedules", "resume", "chaos.tick"]).await;
    assert_eq!((&resumed["state"], &resumed["paused_at"]), (&json!("active"), &json!(null)));
    wait_tasks(&broker, count + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_tells_the_next_slot_and_the_last_firing_and_run_starts_one_beside_them() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let order = json!({ "mode": "ok", "note": "beside" });
    let schedules = json!({
        "tick": { "every": "2s", "order": { "mode": "ok", "note": "tick" } },
        "yearly": { "cron": "0 0 12 1 1 *", "time_zone": "Europe/Berlin", "order": order },
    });
    let _worker = worker(&serving.config, &schedules).await;
    wait_tasks(&broker, 1).await;
    let tick = entry(&serving, "tick").await;
    let task: String = serde_json::from_value(tick["last_task"].clone()).unwrap();
    assert_eq!(serving.http.final_task(&task, soon()).await.unwrap()["task"], "chaos", "{tick}");
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap().unix_ms();
    assert!(time(&tick["next_at"]) > time(&tick["last_at"]), "{tick}");
    let yearly = entry(&serving, "yearly").await;
    assert!(yearly["next_at"].as_str().unwrap().ends_with("-01-01T11:00:00.000Z"), "{yearly}");
    assert_eq!((&yearly["last_at"], &yearly["state"]), (&json!(null), &json!("active")));
    let table = run(&serving, &["schedules", "list"]).await.stdout;
    assert!(table.contains("chaos.yearly") && table.contains("0 0 12 1 1 * Europe/Berlin"), "{table}");

    let started = json_of(&serving, &["schedules", "run", "chaos.yearly"]).await;
    let done = serving.http.final_task(started["id"].as_str().unwrap(), soon()).await.unwrap();
    assert_eq!((&done["state"], &done["result"]["note"]), (&json!("succeeded"), &json!("beside")), "{done}");

    let unknown = run(&serving, &["schedules", "pause", "chaos.nightly"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("there is no schedule chaos.nightly"), "{}", unknown.stderr);
}
