//! One child hands over to the next.

use super::{Installation, followed};
use crate::serving::{Raw, child, sleep, soon};
use cardcage_harness::{Deadline, Http, Signal, eventually, plugin_library};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Callers in a steady stream, and what they were promised.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    accepted: Arc<Mutex<Vec<String>>>,
    running: tokio::task::JoinSet<()>,
}

/// Callers beside each other, and the pause of each: 200 requests a second, where the machine keeps up.
const CALLERS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

impl Load {
    /// Asserts that every request is answered as on a quiet day: some on kept connections, some on new ones.
    pub(super) fn begin(address: &str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            accepted: Arc::default(),
            running: tokio::task::JoinSet::new(),
        };
        let kept = Http::new(address).unwrap();
        for caller in 0..CALLERS {
            let (stop, answered, accepted) =
                (load.stop.clone(), load.answered.clone(), load.accepted.clone());
            let (kept, address) = (kept.clone(), address.to_owned());
            load.running.spawn(async move {
                let mut ticks = tokio::time::interval(PAUSE);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                for nth in 0.. {
                    ticks.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let http = if caller % 4 == 0 { Http::new(&address).unwrap() } else { kept.clone() };
                    let (reply, wanted) = match (caller + nth) % 4 {
                        0 => (http.get("/hello/inline").await, 200),
                        1 => (http.post_json("/hello/call", &json!({ "nth": nth })).await, 200),
                        2 => (http.post_json("/chaos/call", &sleep(50)).await, 200),
                        _ => (http.post_json("/chaos/task", &sleep(200)).await, 202),
                    };
                    let reply = reply.unwrap_or_else(|error| panic!("a request failed: {error}"));
                    assert_eq!(reply.status, wanted, "{}", reply.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                    accepted.lock().await.extend(reply.task_id().ok().filter(|_| wanted == 202));
                }
            });
        }
        load
    }

    pub(super) async fn answers(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        eventually(Deadline::seconds(60), "requests are answered", async || {
            (self.answered.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await
        .unwrap();
    }

    pub(super) async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.accepted.lock().await)
    }
}

/// Each of these tasks of chaos has succeeded, and came to a good end once, as its trace says.
pub(super) async fn each_ran_once(installation: &Installation, accepted: &[String]) {
    for id in accepted {
        let task = installation.http.final_task(id, soon()).await.unwrap();
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    let trace = std::fs::read_to_string(installation.file("trace")).unwrap();
    let mut ran: BTreeMap<&str, usize> = BTreeMap::new();
    for line in trace.lines() {
        *ran.entry(line.split(' ').next().unwrap()).or_default() += 1;
    }
    for id in accepted {
        assert_eq!(ran.get(id.as_str()), Some(&1), "{id} ran once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_refuse_no_request_and_lose_and_double_no_task() {
    let installation = Installation::new(|config, folder| {
        let trace = folder.path().join("trace").display().to_string();
        config.plugin_set("chaos", "trace", trace).set("drain.grace_ms", 19_000)
    })
    .await;
    let Installation { api, worker, http, .. } = &installation;
    let load = Load::begin(http.url("").trim_start_matches("http://"));
    for nth in 1..=3 {
        load.answers(100).await;
        let (api_child, worker_child) = (child(api), child(worker));
        // In place, as a careless copy does it: the running hosts have copies of their own.
        let version = if nth % 2 == 1 { "new" } else { "old" };
        installation
            .overwrite_skew(&std::fs::read(plugin_library(&format!("skew-{version}")).unwrap()).unwrap());
        let output = installation.reload(&[api, worker]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", worker.stderr());
        let expected = if nth % 2 == 1 { "1.1.0" } else { "1.0.0" };
        for host in [api, worker] {
            assert_eq!(installation.version_of(host, "skew").await.as_deref(), Some(expected));
        }
        followed(api, api_child).await;
        followed(worker, worker_child).await;
    }
    load.answers(100).await;
    let accepted = load.end().await;
    assert!(accepted.len() >= 50, "only {} tasks were accepted: too few to tell", accepted.len());
    each_ran_once(&installation, &accepted).await;
    for host in [api, worker] {
        let metrics = host.admin().unwrap().get("/metrics").await.unwrap().text();
        assert!(metrics.contains("cardcage_reloads_total 3\n"), "{metrics}");
        assert!(metrics.contains("cardcage_child_restarts_total 0\n"), "nobody died: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_takes_over_a_plugin_that_was_added_and_drops_one_that_was_removed() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, http, .. } = &installation;
    assert_eq!(
        http.get("/payments/charges/none").await.unwrap().problem_code().as_deref(),
        Some("no_such_route")
    );
    let mut config = installation.config.to_toml().parse::<toml::Table>().unwrap();
    let plugins = config["plugins"].as_table_mut().unwrap();
    plugins.remove("skew");
    let library = plugin_library("skew-new").unwrap().display().to_string();
    plugins.insert("skew".to_owned(), toml::toml! { library = "x" prefix = "/moved" }.into());
    plugins["skew"].as_table_mut().unwrap().insert("library".to_owned(), library.into());
    plugins.remove("hello");
    std::fs::write(installation.file("cardcage.toml"), config.to_string()).unwrap();
    api.signal(Signal::HUP).unwrap();
    let fresh = || Http::new(http.url("").trim_start_matches("http://")).unwrap();
    let moved = eventually(soon(), "the moved plugin serves", async || {
        let reply = fresh().post_json("/moved/pay", &json!({ "amount": 3 })).await.unwrap();
        (reply.status == 202).then_some(reply)
    })
    .await;
    assert!(moved.is_ok(), "{}", api.stderr());
    let gone = fresh().get("/hello/inline").await.unwrap();
    assert_eq!(gone.problem_code().as_deref(), Some("no_such_route"), "the plugin that was removed is gone");
    assert!(installation.version_of(api, "hello").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connection_gets_one_more_answer_that_says_it_ends_and_an_idle_one_is_closed() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, http, .. } = &installation;
    let address = http.url("").trim_start_matches("http://").to_owned();
    let (mut kept, mut idle) = (Raw::connect(&address).await, Raw::connect(&address).await);
    for connection in [&mut kept, &mut idle] {
        connection.post("/hello/task", &json!({})).await;
        let reply = connection.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (202, None));
    }
    let mut waiting = Raw::connect(&address).await;
    waiting.post("/chaos/call", &sleep(6_000)).await;
    eventually(soon(), "the call is under way", async || {
        let metrics = installation.worker.admin().unwrap().get("/metrics").await.ok()?.text();
        metrics.contains("cardcage_calls_in_flight 1\n").then_some(())
    })
    .await
    .unwrap();
    let output = installation.reload(&[api]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    kept.post("/hello/task", &json!({})).await;
    let reply = kept.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
    assert!(kept.is_closed().await && idle.is_closed().await);
    let reply = waiting.reply().await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close")),
        "what was under way ends where it began"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn task_under_way_ends_in_the_child_that_began_it_and_one_that_takes_too_long_is_handed_back() {
    let installation = Installation::new(|config, _| config.set("drain.grace_ms", 8_000)).await;
    let Installation { worker, http, .. } = &installation;
    let short = installation.accepted("/chaos/task", sleep(4_000)).await;
    let long = json!({ "mode": "sleep", "ms": 600_000, "times": 1 });
    let long = installation.accepted("/chaos/task", long).await;
    for id in [&short, &long] {
        eventually(soon(), "the task runs", async || {
            let task = http.get(&format!("/tasks/{id}")).await.ok()?.json().ok()?;
            (task["state"] == "running").then_some(())
        })
        .await
        .unwrap();
    }
    let before = child(worker);
    let output = installation.reload(&[worker]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let causes = |task: &Value| -> Vec<String> {
        let attempts = task["attempts"].as_array().unwrap();
        attempts.iter().map(|one| one["cause"].as_str().unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(causes(&http.final_task(&short, soon()).await.unwrap()), ["succeeded"]);
    assert_eq!(causes(&http.final_task(&long, soon()).await.unwrap()), ["interrupted", "succeeded"]);
    followed(worker, before).await;
}
