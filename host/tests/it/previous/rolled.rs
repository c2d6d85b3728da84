//! A new major rolled out by reloads, and the old one taken away again.

use super::{Site, accepted, done, loaded, once, ready, run_json, running, seat};
use crate::serving::{restored, soon};
use cardcage_harness::{Cardcage, Deadline, Http, eventually};
use cardcage_protocol::{Name, Priority, TaskAddress, TaskEnvelope, TaskId, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Callers that send what the instance which answers them takes, and what they were promised: id and result.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    callers: JoinSet<Vec<(String, String)>>,
}

impl Load {
    fn begin(http: &Http) -> Self {
        let mut load = Self { stop: Arc::default(), sent: Arc::default(), callers: JoinSet::new() };
        for caller in 0..4 {
            let (http, stop, sent) = (http.clone(), load.stop.clone(), load.sent.clone());
            load.callers.spawn(call(caller, http, stop, sent));
        }
        load
    }

    async fn more(&self, count: usize) {
        let wanted = self.sent.load(Ordering::Relaxed) + count;
        eventually(Deadline::seconds(60), "requests are answered", async || {
            (self.sent.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await
        .unwrap();
    }

    async fn end(self) -> Vec<(String, String)> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.concat()
    }
}

async fn call(
    caller: usize,
    http: Http,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) -> Vec<(String, String)> {
    let mut promised = Vec::new();
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let reply = http.get("/majors/which").await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let name = format!("{caller}.{nth}");
        // Bodies of the two majors differ, and the instance may have changed in between: then it says so.
        for (body, version) in [
            (json!({ "label": name, "sleep_ms": 20 }), "1.4.0"),
            (json!({ "title": name, "sleep_ms": 20 }), "2.0.0"),
        ] {
            let reply = http.post_json("/majors/work", &body).await.unwrap();
            match reply.status {
                202 => promised.push((reply.task_id().unwrap(), format!("{version} did {name}"))),
                422 => {}
                _ => panic!("{} {}", reply.status, reply.text()),
            }
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
    promised
}

#[tokio::test(flavor = "multi_thread")]
async fn new_major_comes_by_reload_under_load_and_loses_nothing_and_the_old_one_goes_by_reload() {
    let site = Site::new(|config| config).await;
    let worker = site.reloadable("worker", &site.of(1, &[])).await;
    let api = site.reloadable("api", &site.of(1, &[])).await;
    restored(&api).await;
    let http = api.http().unwrap();
    let load = Load::begin(&http);
    load.more(50).await;
    let long = accepted(&http, json!({ "label": "long", "sleep_ms": 3_000 })).await;
    running(&http, &long).await;

    // The workers first: instances of the old major are served on.
    let told = site.reload("worker", &worker, &site.of(2, &[1])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let now = ready(&worker).await;
    assert_eq!(loaded(seat(&now, None)), ["hello 0.1.0", "majors 2.0.0"], "{now}");
    assert_eq!(loaded(seat(&now, Some("previous-1"))), ["majors 1.4.0"], "{now}");
    load.more(50).await;
    let told = site.reload("api", &api, &site.of(2, &[1])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    load.more(50).await;
    let promised = load.end().await;
    let of = |version: &str| promised.iter().filter(|(_, result)| result.starts_with(version)).count();
    assert!(of("1.4.0") >= 90 && of("2.0.0") >= 40, "{} and {}", of("1.4.0"), of("2.0.0"));
    for (id, result) in &promised {
        assert_eq!(done(&http, id).await, once(result));
    }
    assert_eq!(done(&http, &long).await, once("1.4.0 did long"));

    // What the old process holds as it goes comes to its end.
    let broker = site.broker(Duration::from_secs(30)).await;
    let held = old_task("held", 2_000);
    broker.publish_task(&held, Duration::from_secs(10)).await.unwrap();
    running(&http, &held.id.to_string()).await;
    let told = site.reload("worker", &worker, &site.of(2, &[])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert_eq!(done(&http, &held.id.to_string()).await, once("1.4.0 did held"));
    eventually(soon(), "one child is left", async || (worker.child_pids().len() == 1).then_some(()))
        .await
        .unwrap();
    let now = ready(&worker).await;
    assert_eq!((now.get("seats"), now["ready"].clone(), loaded(&now).len()), (None, json!(true), 2), "{now}");

    // What comes now waits, and says for what.
    let late = old_task("late", 0);
    broker.publish_task(&late, Duration::from_secs(10)).await.unwrap();
    let late = late.id.to_string();
    let config = site.of(2, &[]);
    let (why, _) = run_json(&config, &["tasks", "why", &late]).await;
    assert_eq!(why["why"], "waiting: no live worker has majors v1 (1 has v2)", "{why}");
    assert_eq!(why["state"], "queued");

    // Until the old one is there again, on boards that were used before.
    let told = site.reload("worker", &worker, &site.of(2, &[1])).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert_eq!(done(&http, &late).await, once("1.4.0 did late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_drains_the_process_of_the_previous_library_too() {
    let site = Site::new(|config| config).await;
    let config = site.of(2, &[1]);
    let mut worker = Cardcage::worker(&config).await.unwrap();
    let api = site.api(&site.of(1, &[])).await;
    let http = api.http().unwrap();
    let id = accepted(&http, json!({ "label": "long", "sleep_ms": 2_000 })).await;
    running(&http, &id).await;
    assert_eq!(worker.stop(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());
    let task: Value = http.get(&format!("/tasks/{id}")).await.unwrap().json().unwrap();
    assert_eq!((&task["state"], &task["result"]), (&json!("succeeded"), &json!("1.4.0 did long")), "{task}");
}

/// Work for major 1, as an instance of it would enqueue it.
fn old_task(label: &str, sleep_ms: u64) -> TaskEnvelope {
    let address = TaskAddress {
        plugin: Name::new("majors").unwrap(),
        major: 1,
        task: Name::new("work").unwrap(),
        priority: Priority::Normal,
        id: TaskId::generate(),
    };
    let body = json!({ "label": label, "sleep_ms": sleep_ms });
    TaskEnvelope::new(address, "1.4.0".into(), Timestamp::now(), body.to_string().into())
}
