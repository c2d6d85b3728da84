//! Each slot runs once, whoever dies.

use super::*;
use crate::serving::signal;
use cardcage_harness::Signal;
use serde_json::json;
use std::os::unix::process::ExitStatusExt as _;

fn every_second() -> Value {
    json!({ "tick": { "every": "1s", "overlap": "queue", "order": { "mode": "ok", "note": "tick" } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_is_one_task_with_three_workers_of_which_one_dies() {
    let serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let mut first = worker(&serving.config, &every_second()).await;
    let _second = worker(&serving.config, &every_second()).await;
    let _third = worker(&serving.config, &every_second()).await;
    wait_tasks(&broker, 4).await;
    let children = first.child_pids();
    first.kill9();
    children.into_iter().for_each(|child| signal(child, Signal::KILL));
    wait_tasks(&broker, 9).await;
    still(&broker, "tick").await;
    none_waits(&serving, &["tick"]).await;
    // The stream has seen two records and nothing else but firings.
    let fired = stream(&serving).await.get_info().await.unwrap().state.last_sequence - 2;
    let tasks = wait_tasks(&broker, usize::try_from(fired).unwrap()).await;
    assert_eq!(tasks.len() as u64, fired, "as many tasks as slots");
    assert_distinct(&seconds(&tasks.iter().collect::<Vec<_>>()));
    let workers: std::collections::BTreeSet<_> =
        tasks.iter().flat_map(|task| &task.attempts).map(|attempt| attempt.worker.to_string()).collect();
    assert!(workers.len() > 1, "more than one worker took part: {workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slot_runs_twice_and_later_ones_go_on_when_the_broker_is_killed() {
    let mut serving = Serving::api(quick).await;
    let broker = serving.broker(LEASE).await;
    let schedules = json!({
        "tick": { "every": "1s", "overlap": "queue", "order": { "mode": "ok", "note": "every" } },
        "tock": { "cron": "*/2 * * * * *", "time_zone": "Europe/Berlin", "overlap": "queue",
                  "order": { "mode": "ok", "note": "cron" } },
    });
    let _worker = worker(&serving.config, &schedules).await;
    for round in 1..=3 {
        wait_tasks(&broker, round * 4).await;
        serving.nats.kill9();
        serving.nats.restart().await.unwrap();
        broker.wait_connected(Duration::from_secs(30)).await.unwrap();
    }
    wait_tasks(&broker, 20).await;
    still(&broker, "tick").await;
    still(&broker, "tock").await;
    none_waits(&serving, &["tick", "tock"]).await;
    let tasks = wait_tasks(&broker, 20).await;
    for note in ["every", "cron"] {
        let of_it = noted(&tasks, note);
        assert!(of_it.len() >= 4, "{note} goes on");
        assert_distinct(&seconds(&of_it));
    }
    let on_its_slot = |task: &&&TaskRecord| task.enqueued_at.unix_ms() % 2_000 < 1_000;
    let cron = noted(&tasks, "cron");
    let on_slot = cron.iter().filter(on_its_slot).count();
    assert!(on_slot + 3 >= cron.len(), "but for the slots that the broker slept through, all are even");
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_whose_worker_dies_between_its_writes_is_one_task() {
    for point in ["after_slot_remembered", "after_slot_published"] {
        let serving = Serving::api(quick).await;
        let broker = serving.broker(LEASE).await;
        let schedules = every_second();
        let doomed = Launch::new(["worker"]).config(&serving.config);
        let doomed = doomed.env("CARDCAGE_CHAOS_SCHEDULES", schedules.to_string());
        let mut doomed = doomed.env("CARDCAGE_FAILPOINT", format!("{point}:2")).start().unwrap();
        let end = doomed.wait_exit(soon()).await.unwrap();
        assert_eq!(end.signal(), Some(9), "{point} is reached: {}", doomed.stderr());
        let _second = worker(&serving.config, &schedules).await;
        wait_tasks(&broker, 6).await;
        still(&broker, "tick").await;
        none_waits(&serving, &["tick"]).await;
        let fired = stream(&serving).await.get_info().await.unwrap().state.last_sequence - 2;
        let tasks = wait_tasks(&broker, usize::try_from(fired).unwrap()).await;
        assert_eq!(tasks.len() as u64, fired, "{point}: as many tasks as slots");
        assert_distinct(&seconds(&tasks.iter().collect::<Vec<_>>()));
        assert!(tasks.iter().all(|task| task.attempts.len() == 1), "{point}: each ran once");
    }
}
