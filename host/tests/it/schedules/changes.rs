//! Schedules that change: other versions, other settings, plugins that go away.

use super::*;
use cardcage_harness::{Cardcage, plugin_library};
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

/// Chaos as a later version.
fn later(folder: &TempDir) -> PathBuf {
    let mut bytes = std::fs::read(plugin_library("chaos").unwrap()).unwrap();
    let (from, to) = (b"0.1.0", b"0.1.1");
    let places: Vec<usize> =
        bytes.windows(5).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 5].copy_from_slice(to);
    }
    let path = folder.path().join("libchaos_later.so");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn every(interval: &str) -> Value {
    json!({ "every": interval, "order": { "mode": "ok" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_with_both_versions_running_rewrites_what_changed_once_and_nothing_else() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let old = json!({ "same": every("1h"), "changed": every("2h"), "dropped": every("3h") });
    let new = json!({ "same": every("1h"), "changed": every("4h"), "added": every("5h") });
    let first = worker(&serving.config, &old).await;
    wait_held(&broker, "dropped", "is declared", |record| record.is_some()).await;
    let same = held(&broker, "same").await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let config = serving.config.clone().plugin_at("chaos", &later(&folder));
    let second = worker(&config, &new).await;
    wait_held(&broker, "changed", "is the later version's", |record| {
        record.is_some_and(|record| record.declared_by == "0.1.1")
    })
    .await;
    wait_held(&broker, "dropped", "is deleted", |record| record.is_none()).await;
    wait_held(&broker, "added", "is declared", |record| record.is_some()).await;
    let changed = held(&broker, "changed").await.unwrap();
    assert_eq!(changed.0.definition.every.as_deref(), Some("4h"));

    // The old version starts once more, and has its say in no round.
    let third = worker(&serving.config, &old).await;
    let since = std::time::Instant::now();
    eventually(soon(), "some rounds have passed", async || (since.elapsed() > 5 * LEASE).then_some(()))
        .await
        .unwrap();
    assert_eq!(held(&broker, "changed").await.unwrap(), changed, "it is not reset");
    assert_eq!(held(&broker, "same").await.unwrap(), same, "it was never written again");
    assert!(held(&broker, "dropped").await.is_none());

    // Rolled back: the old version is the highest live one.
    drop(second);
    wait_held(&broker, "changed", "is the old version's again", |record| {
        record.is_some_and(|record| record.definition.every.as_deref() == Some("2h"))
    })
    .await;
    wait_held(&broker, "added", "is deleted", |record| record.is_none()).await;
    assert_eq!(held(&broker, "same").await.unwrap(), same);
    drop((first, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_goes_on_slot_by_slot_while_versions_come_run_beside_each_other_and_go() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let ticks =
        json!({ "tick": { "every": "1s", "overlap": "queue", "order": { "mode": "ok", "note": "tick" } } });
    let mut old = worker(&serving.config, &ticks).await;
    wait_tasks(&broker, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let config = serving.config.clone().plugin_at("chaos", &later(&folder));
    let new = worker(&config, &ticks).await;
    // Both live for more than a round in which workers compare what they declare.
    let beside = wait_tasks(&broker, 3).await.len();
    wait_tasks(&broker, beside + 8).await;
    let versions: std::collections::BTreeSet<String> = {
        let tasks = wait_tasks(&broker, beside + 8).await;
        let workers = tasks.iter().flat_map(|task| &task.attempts).map(|attempt| attempt.worker.to_string());
        workers.collect()
    };
    assert_eq!(versions.len(), 2, "both took part: {versions:?}");
    old.stop(soon()).await.unwrap();
    let alone = wait_tasks(&broker, 3).await.len();
    wait_tasks(&broker, alone + 3).await;
    still(&broker, "tick").await;
    none_waits(&serving, &["tick"]).await;
    let tasks = wait_tasks(&broker, alone + 3).await;
    let seconds = seconds(&tasks.iter().collect::<Vec<_>>());
    assert_distinct(&seconds);
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    assert_eq!(last - first + 1, seconds.len() as u64, "none was left out: {seconds:?}");
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_a_plugin_that_no_worker_has_stand_still_until_it_is_back() {
    let set = |config: Config| quick(config).set("tasks.schedule_absent_s", 10);
    let serving = Serving::api(set).await;
    let broker = serving.broker(LEASE).await;
    let schedules = json!({ "tick": every("1h") });
    let with_chaos = worker(&serving.config, &schedules).await;
    wait_held(&broker, "tick", "is declared", |record| record.is_some()).await;
    let other = set(Config::new(&serving.nats))
        .set("broker.namespace", serving.config.namespace())
        .plugin("hello")
        .unwrap();
    let other = Cardcage::worker(&other).await.unwrap();
    drop(with_chaos);
    wait_held(&broker, "tick", "stands still", |record| {
        record.is_some_and(|record| record.absent_since.is_some() && !record.is_active())
    })
    .await;
    eventually(soon(), "the one that noticed says so", async || {
        other.stderr().contains("no worker has its plugin").then_some(())
    })
    .await
    .unwrap();
    let _back = worker(&serving.config, &schedules).await;
    wait_held(&broker, "tick", "goes on", |record| record.is_some_and(ScheduleRecord::is_active)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_changes_a_schedule_or_switches_it_off_in_the_configuration() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let schedules = json!({ "tick": every("1h"), "off": every("1h") });
    let _first = worker(&serving.config, &schedules).await;
    wait_held(&broker, "tick", "is declared", |record| record.is_some()).await;
    let config = serving
        .config
        .clone()
        .set("plugins.chaos.schedules.tick.cron", "0 30 2 * * *")
        .set("plugins.chaos.schedules.tick.time_zone", "Europe/Berlin")
        .set("plugins.chaos.schedules.off.enabled", false);
    let _second = worker(&config, &schedules).await;
    wait_held(&broker, "tick", "is the operator's", |record| {
        record.is_some_and(|record| {
            let definition = &record.definition;
            definition.every.is_none()
                && definition.cron.as_deref() == Some("0 30 2 * * *")
                && definition.time_zone.as_deref() == Some("Europe/Berlin")
        })
    })
    .await;
    wait_held(&broker, "off", "is off", |record| record.is_some_and(|record| !record.is_active())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_write_at_once_one_is_refused() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let _worker = worker(&serving.config, &json!({ "tick": every("1h") })).await;
    wait_held(&broker, "tick", "is declared", |record| record.is_some()).await;
    let (record, sequence) = held(&broker, "tick").await.unwrap();
    broker.write_recurring(&record, sequence).await.unwrap();
    let refused = broker.write_recurring(&record, sequence).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused}");
    assert_eq!(broker.recurring(None).await.unwrap().len(), 1, "one message is one schedule");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_in_one_sentence_by_check_and_by_a_starting_worker() {
    let serving = Serving::api(quick).await;
    let order = json!({ "mode": "ok" });
    for (schedule, said) in [
        (json!({ "cron": "0 0 25 * * *", "order": order }), "`25` is no hour"),
        (json!({ "cron": "* * * * *", "order": order }), "it has 5 fields, where six are needed"),
        (json!({ "every": "0s", "order": order }), "`0s` is no interval from 1s to 366d"),
        (
            json!({ "cron": "0 0 8 * * *", "time_zone": "Europe/Atlantis", "order": order }),
            "`Europe/Atlantis` is no time zone",
        ),
    ] {
        let schedules = json!({ "tick": schedule }).to_string();
        for command in ["check", "worker"] {
            let launch = Launch::new([command]).config(&serving.config);
            let launch = launch.env("CARDCAGE_CHAOS_SCHEDULES", &schedules);
            let ended = launch.run(soon()).await.unwrap();
            let told = format!("{}{}", ended.stdout, ended.stderr);
            assert_ne!(ended.status.code(), Some(0), "{command}: {told}");
            assert!(told.contains("declares the schedule `tick` wrongly"), "{command}: {told}");
            assert!(told.contains(said), "{command}: {told}");
        }
    }
    let config = serving.config.clone().set("plugins.chaos.schedules.tikc.enabled", false);
    let launch = Launch::new(["check"]).config(&config);
    let ended = launch.env("CARDCAGE_CHAOS_SCHEDULES", json!({ "tick": every("1h") }).to_string());
    let ended = ended.run(soon()).await.unwrap();
    assert_eq!(ended.status.code(), Some(78), "{}{}", ended.stdout, ended.stderr);
    let sentence = "`plugins.chaos.schedules.tikc` names no schedule of the plugin; it has `tick`";
    assert!(
        format!("{}{}", ended.stdout, ended.stderr).contains(sentence),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
}
