//! How far plugins are kept from the host and from each other: their runtimes, their panics, their crashes, their
//! logs.

use std::time::Duration;

use cardcage_harness::{Cardcage, Config, Deadline, Http, Nats, Reply, eventually};
use serde_json::{Value, json};

use super::loading::outside;

/// Time for what should happen soon.
fn soon() -> Deadline {
    Deadline::seconds(60)
}

/// `hello` and `chaos` in an API without a broker, the calls of `chaos` inline.
fn inline() -> Config {
    let config = Config::default().set("broker.url", "nats://127.0.0.1:1");
    config.plugin("hello").unwrap().plugin("chaos").unwrap().set("plugins.chaos.placement", "inline")
}

async fn order(http: &Http, order: Value) -> cardcage_harness::Result<Reply> {
    http.post_json("/chaos/call", &order).await
}

async fn greets(http: &Http) {
    let reply = http.get("/hello/inline").await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!"));
}

async fn verbose(host: &Cardcage) -> Value {
    host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap()
}

#[tokio::test]
async fn timers_sockets_and_spawned_tasks_work_in_a_plugin() {
    let api = Cardcage::api(&inline()).await.unwrap();
    let reply = order(&api.http().unwrap(), json!({ "mode": "spawn" })).await.unwrap();
    let saw = reply.json().unwrap();
    assert_eq!((&saw["spawned"], &saw["timer"], &saw["echo"]), (&json!(true), &json!(true), &json!("ping")));
    assert_eq!(saw["thread"], "chaos", "it ran on the plugin's own runtime");
}

#[tokio::test]
async fn panics_of_handlers_never_end_a_process() {
    let api = Cardcage::api(&inline()).await.unwrap();
    let http = api.http().unwrap();
    let before = verbose(&api).await["child_pid"].clone();
    for _ in 0..50 {
        let panicked = order(&http, json!({ "mode": "panic" })).await.unwrap();
        assert_eq!((panicked.status, panicked.problem_code().as_deref()), (500, Some("handler_panicked")));
        assert!(!panicked.text().contains("as told"), "nothing of the inside: {}", panicked.text());
        order(&http, json!({ "mode": "panic_in_drop" })).await.unwrap();
    }
    greets(&http).await;
    let after = verbose(&api).await;
    assert_eq!((&after["child_pid"], &after["restarts"]), (&before, &json!(0)));
    let told = |line: &&str| line.contains("plugin code panicked") && line.contains("plugin=\"chaos\"");
    assert!(api.stderr().lines().filter(told).count() >= 100, "each panic is in the log");
}

#[tokio::test]
async fn blocked_plugin_thread_leaves_the_inline_routes_of_others_answering() {
    let api = Cardcage::api(&inline()).await.unwrap();
    let http = api.http().unwrap();
    // More than the plugin has threads, or the host.
    let blocked: Vec<_> = (0..8)
        .map(|_| {
            let http = http.clone();
            tokio::spawn(async move { http.get("/chaos/inline_block?ms=600000").await })
        })
        .collect();
    let admin = api.admin().unwrap();
    eventually(soon(), "eight requests are held", async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        metrics.contains("cardcage_http_requests_in_flight 8").then_some(())
    })
    .await
    .unwrap();
    for _ in 0..20 {
        tokio::time::timeout(Duration::from_secs(5), greets(&http)).await.expect("the other plugin answers");
    }
    assert!(blocked.iter().all(|request| !request.is_finished()));
    blocked.iter().for_each(|request| request.abort());
}

/// Asks until the handler is known to be short and a whole round of it ended on lent threads.
async fn ends_in_place(host: &Cardcage, ask: impl AsyncFn() -> cardcage_harness::Result<Reply>) {
    const ROUND: u64 = 50;
    let admin = host.admin().unwrap();
    let ended = async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("cardcage_handlers_ended_in_place_total "))?;
        line.parse::<u64>().ok()
    };
    eventually(soon(), "a round of handlers ends in place", async || {
        let before = ended().await?;
        for _ in 0..ROUND {
            ask().await.ok().filter(|reply| reply.status == 200)?;
        }
        (ended().await? == before + ROUND).then_some(())
    })
    .await
    .unwrap();
}

/// The host's own word that a thread was lent, and was not given back in time.
async fn holds_up_a_lent_thread(host: &Cardcage) {
    eventually(soon(), "a lent thread is held up", async || {
        host.stderr().contains("holds up a thread of the host").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn handler_that_blocks_a_lent_thread_leaves_others_answering() {
    let api = Cardcage::api(&inline()).await.unwrap();
    let http = api.http().unwrap();
    ends_in_place(&api, async || http.get("/chaos/inline_block?ms=0").await).await;
    let blocked: Vec<_> = (0..8)
        .map(|_| {
            let http = http.clone();
            tokio::spawn(async move { http.get("/chaos/inline_block?ms=600000").await })
        })
        .collect();
    holds_up_a_lent_thread(&api).await;
    for _ in 0..20 {
        tokio::time::timeout(Duration::from_secs(5), greets(&http)).await.expect("the other plugin answers");
    }
    assert!(blocked.iter().all(|request| !request.is_finished()));
    // It is said whose doing it is.
    let log = api.stderr();
    let line = log.lines().find(|line| line.contains("holds up a thread of the host")).unwrap();
    assert!(line.contains("plugin=\"chaos\"") && line.contains("held_by=\"inline_block "), "{line}");
    let metrics = api.admin().unwrap().get("/metrics").await.unwrap().text();
    let times = |plugin: &str| {
        let start = format!("cardcage_lent_thread_held_up_total{{plugin=\"{plugin}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(start.as_str())?.parse::<u64>().ok())
    };
    assert!(times("chaos").is_some_and(|times| times > 0), "{metrics}");
    assert_eq!(times("hello"), Some(0), "{metrics}");
    blocked.iter().for_each(|request| request.abort());
}

#[tokio::test]
async fn call_that_blocks_a_lent_thread_of_a_worker_leaves_other_calls_answering() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap().plugin("chaos").unwrap();
    let worker = Cardcage::worker(&config).await.unwrap();
    let api = Cardcage::api(&config).await.unwrap();
    let http = api.http().unwrap();
    ends_in_place(&worker, async || order(&http, json!({ "mode": "ok" })).await).await;
    let blocking = http.clone();
    let blocked =
        tokio::spawn(async move { order(&blocking, json!({ "mode": "block", "ms": 600_000 })).await });
    holds_up_a_lent_thread(&worker).await;
    for _ in 0..20 {
        let body = json!({});
        let reply = tokio::time::timeout(Duration::from_secs(5), http.post_json("/hello/call", &body));
        assert_eq!(reply.await.expect("the other plugin answers").unwrap().status, 200);
    }
    assert!(!blocked.is_finished());
    blocked.abort();
}

#[tokio::test]
async fn inline_handler_that_crashes_ends_its_child_only_and_is_named() {
    let mut api = Cardcage::api(&inline()).await.unwrap();
    let http = api.http().unwrap();
    for (crashes, (mode, signal)) in
        (1..).zip([("abort", "SIGABRT"), ("segfault", "SIGSEGV"), ("exit", "exited")])
    {
        let before = verbose(&api).await["child_pid"].clone();
        let crashed = order(&http, json!({ "mode": mode })).await;
        assert!(crashed.is_err(), "the caller sees its connection end: {crashed:?}");
        // At once, and without a second try: the supervisor holds the listening socket meanwhile.
        greets(&http).await;
        api.wait_ready(soon()).await.unwrap();
        let after = verbose(&api).await;
        assert_eq!(after["restarts"], crashes, "{after}");
        assert_ne!(after["child_pid"], before);
        let log = api.stderr();
        let told = |line: &&str| line.contains("the child died") && line.contains(signal);
        let line = log.lines().find(told).unwrap_or_else(|| panic!("{signal} is told:\n{log}"));
        assert!(line.contains("polled=\"chaos/call "), "the plugin is named: {line}");
    }
    assert_eq!(api.child_pids().len(), 1);
}

#[tokio::test]
async fn request_that_is_dropped_cancels_its_inline_handler() {
    let api = Cardcage::api(&inline()).await.unwrap();
    let http = api.http().unwrap();
    let seen = async |what: &str| {
        let seen = http.get("/chaos/inline_seen").await.ok()?.json().ok()?;
        (seen[what] == 1).then_some(())
    };
    let asking = http.clone();
    let asked = tokio::spawn(async move { order(&asking, json!({ "mode": "sleep", "ms": 600_000 })).await });
    eventually(soon(), "the handler runs", async || seen("started").await).await.unwrap();
    asked.abort();
    eventually(soon(), "the handler is cancelled", async || seen("cancelled").await).await.unwrap();
}

fn logged(host: &Cardcage) -> Vec<Value> {
    host.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The one event with this message.
fn event(host: &Cardcage, message: &str) -> Value {
    let mut events: Vec<_> = logged(host).into_iter().filter(|event| event["message"] == message).collect();
    assert_eq!(events.len(), 1, "`{message}` in {}", host.stderr());
    events.remove(0)
}

fn outsider() -> Config {
    let config = Config::default().set("broker.url", "nats://127.0.0.1:1").set("log.format", "json");
    config.plugin_at("outsider", &outside::library("outsider"))
}

#[tokio::test]
async fn plugins_events_reach_the_hosts_log_and_say_whose_they_are() {
    let api = Cardcage::api(&outsider()).await.unwrap();
    let reply = api.http().unwrap().post_json("/outsider/log", &json!({})).await.unwrap();
    let request_id = reply.header("x-request-id").unwrap();
    for (message, level) in
        [("said with tracing", "INFO"), ("said with log", "WARN"), ("said in a spawned task", "INFO")]
    {
        let event = event(&api, message);
        assert_eq!((&event["level"], &event["target"]), (&json!(level), &json!("plugin")));
        assert_eq!((&event["plugin"], &event["version"]), (&json!("outsider"), &json!("3.1.4")));
        assert_eq!((&event["module"], &event["route"]), (&json!("outsider"), &json!("POST /log")));
        assert_eq!(event["request_id"], request_id, "{event}");
    }
    let fields = event(&api, "said with tracing")["fields"].clone();
    assert_eq!(fields, json!({ "colour": "green", "n": 7 }).to_string());
    let spans = event(&api, "said in a spawned task")["spans"].clone();
    assert_eq!(spans, json!([{ "name": "aside", "fields": { "size": 3 } }]).to_string());
}

#[tokio::test]
async fn events_of_disabled_levels_are_neither_evaluated_nor_sent() {
    for (filter, evaluated) in [("info", 0), ("debug", 2), ("info,outsider=debug", 2)] {
        let api = Cardcage::api(&outsider().set("log.filter", filter)).await.unwrap();
        let reply = api.http().unwrap().post_json("/outsider/log", &json!({})).await.unwrap();
        assert_eq!(reply.json().unwrap(), json!({ "evaluated": evaluated }), "{filter}");
        let quiet =
            |event: &&Value| event["message"].as_str().is_some_and(|text| text.contains("too quietly"));
        assert_eq!(logged(&api).iter().filter(quiet).count(), evaluated, "{filter}: {}", api.stderr());
    }
}

#[tokio::test]
async fn tasks_events_carry_the_task_and_its_id() {
    let nats = Nats::start().await.unwrap();
    let config = outsider().set("broker.url", nats.url());
    let api = Cardcage::api(&config).await.unwrap();
    let worker = Cardcage::worker(&config).await.unwrap();
    let http = api.http().unwrap();
    let receipt = eventually(soon(), "the task is accepted", async || {
        http.post_json("/outsider/log-task", &json!({})).await.ok().filter(|reply| reply.status == 202)
    });
    let id = receipt.await.unwrap().task_id().unwrap();
    assert_eq!(http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    let event = event(&worker, "said in a task");
    assert_eq!((&event["plugin"], &event["version"]), (&json!("outsider"), &json!("3.1.4")));
    assert_eq!((&event["task"], &event["task_id"]), (&json!("log_task"), &json!(id)));
}
