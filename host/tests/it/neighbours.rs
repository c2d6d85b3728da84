//! Plugins that enqueue tasks of other plugins, by name and major.

use crate::serving::{Serving, child, pause, signal, soon};
use cardcage_harness::{Cardcage, Config, Launch, Signal};
use serde_json::{Value, json};

fn with_payments(config: Config) -> Config {
    config.plugin("payments").unwrap().plugin_set("payments", "stripe_webhook_secrets", vec!["whsec_test"])
}

fn refund() -> Value {
    json!({ "event_id": "evt_1", "object_id": "re_1", "kind": "refund.created", "amount": 5 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_enqueues_another_ones_task_if_the_body_fits_its_schema() {
    let (serving, _worker) = Serving::both(with_payments).await;
    let post = async |body: &Value| serving.http.post_json("/chaos/refund", body).await.unwrap();
    let reply = post(&json!({ "amount": "much" })).await;
    assert_eq!((reply.status, reply.problem_code().as_deref()), (422, Some("invalid_body")));
    assert!(reply.text().contains("does not fit the task `record_refund`"), "{}", reply.text());

    let reply = post(&refund()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.task_id().unwrap();
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["plugin"], &done["state"]), (&json!("payments"), &json!("succeeded")), "{done}");
    assert_eq!(done["result"]["event_id"], "evt_1");
    assert_eq!(post(&refund()).await.task_id().unwrap(), id, "its idempotency key holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_other_plugin_does_not_have_is_refused_by_name_where_it_is_enqueued() {
    let (serving, _worker) = Serving::both(with_payments).await;
    let order = json!({ "plugin": "payments", "major": 0, "enqueue": "record_nothing", "body": {} });
    let reply = serving.http.post_json("/chaos/reach_task", &order).await.unwrap();
    let done = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    let said = done["error"]["message"].as_str().unwrap();
    assert_eq!(done["state"], "failed", "{done}");
    assert!(said.contains("The plugin `payments` 0.1.0 has no task `record_nothing`"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_only_wants_another_one_starts_without_it_and_is_told_at_the_enqueue() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply = serving.http.post_json("/chaos/refund", &refund()).await.unwrap();
    assert_eq!((reply.status, reply.problem_code().as_deref()), (503, Some("unknown_plugin")));
    assert!(reply.text().contains("`payments` v0 is not among those of this host"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_needs_a_major_that_is_not_there_is_refused_by_hosts_and_by_check() {
    let serving = Serving::api(|config| config).await;
    let sentence = "needs the plugin `hello` v7, and this host has 0.1.0; configure that plugin too";
    for command in ["api", "worker", "check"] {
        let launch = Launch::new([command]).config(&serving.config).env("CARDCAGE_CHAOS_DESCRIBE", "needs");
        let ended = launch.run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(70), "{command}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(sentence) && said.contains("needs_plugin"), "{command}: {said}");
    }
    // For one that is not required, the host starts without it.
    let config = serving.config.clone().set("plugins.chaos.required", false);
    let launch = Launch::new(["check"]).config(&config).env("CARDCAGE_CHAOS_DESCRIBE", "needs");
    let ended = launch.run(soon()).await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("refused, not required"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_that_plugins_that_need_each_other_are_in_different_groups() {
    let serving = Serving::api(with_payments).await;
    let groups = |text: &str| {
        let table: toml::Table = format!("value = {text}").parse().unwrap();
        serving.config.clone().set("worker.group", table["value"].clone())
    };
    let check = async |config: &Config| {
        let launch = Launch::new(["check"]).config(config);
        launch.env("CARDCAGE_CHAOS_NEEDS", "payments 0").run(soon()).await.unwrap()
    };
    let ended = check(&groups(r#"[{ name = "money", plugins = ["payments"] }, { name = "rest" }]"#)).await;
    assert_eq!(ended.status.code(), Some(70), "{ended:?}");
    let sentence = "needs the plugin `payments` v0, which is not in the worker group `rest`";
    assert!(ended.stdout.contains(sentence) && ended.stdout.contains("in the same group"), "{ended:?}");
    let ended =
        check(&groups(r#"[{ name = "money", plugins = ["payments", "chaos"] }, { name = "rest" }]"#)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

fn reach(plugin: &str, major: u32, method: &str, path: &str) -> Value {
    json!({ "plugin": plugin, "major": major, "method": method, "path": path, "body": { "a": 1 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_calls_another_one_that_only_the_worker_runs_wherever_it_is_mounted() {
    let serving = Serving::api(|config| config.set("plugins.hello.prefix", "/far/away")).await;
    // The worker has the called plugin alone.
    let config = Config::new(&serving.nats).set("broker.namespace", serving.config.namespace());
    let config = config.plugin("hello").unwrap();
    let _worker = Cardcage::worker(&config).await.unwrap();
    let call = async |body: Value| serving.http.post_json("/chaos/reach", &body).await.unwrap();

    let reply = call(reach("hello", 0, "POST", "/call?x=1")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json().unwrap();
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!(r#"{"a":1}"#)), "{answer}");
    assert_eq!(answer["headers"]["content-type"], "application/json");
    // Also what is inline for callers from outside.
    let answer = call(reach("hello", 0, "GET", "/inline?name=you")).await.json().unwrap();
    assert_eq!(answer["body"], "Hello, you!", "{answer}");

    for (method, path, status, code) in [
        ("GET", "/none", 404, "no_such_route"),
        ("GET", "/call", 405, "method_not_allowed"),
        ("POST", "/task", 500, "plugin_error"),
        ("GET", "no slash", 500, "internal"),
    ] {
        let reply = call(reach("hello", 0, method, path)).await;
        assert_eq!((reply.status, reply.problem_code().as_deref()), (status, Some(code)), "{}", reply.text());
    }
    let large = json!({ "body": "x".repeat(600 * 1024), "plugin": "hello", "major": 0, "method": "POST", "path": "/call" });
    let reply = call(large).await;
    assert_eq!((reply.status, reply.problem_code().as_deref()), (413, Some("body_too_large")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_calls_another_plugin() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply =
        serving.http.post_json("/chaos/reach_task", &reach("hello", 0, "POST", "/call")).await.unwrap();
    let ended = serving.http.final_task(&reply.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(ended["result"]["body"], r#"{"a":1}"#, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_can_answer_says_why() {
    let serving = Serving::api(|config| config).await;
    let call = async |body: &Value| {
        let reply = serving.http.post_json("/chaos/reach", body).await.unwrap();
        (reply.status, reply.problem_code().unwrap_or_default(), reply.text())
    };
    let (status, code, text) = call(&reach("orders", 1, "GET", "/")).await;
    assert_eq!((status, &*code), (500, "plugin_error"));
    assert!(text.contains("It calls `orders` v1, which it declares neither by needs nor by wants"), "{text}");
    let (status, code, _) = call(&reach("payments", 0, "GET", "/")).await;
    assert_eq!((status, &*code), (503, "unknown_plugin"));
    let (status, code, text) = call(&reach("hello", 0, "POST", "/call")).await;
    assert_eq!((status, &*code), (503, "no_worker"), "{text}");

    let worker = serving.worker().await;
    let mut hasty = reach("hello", 0, "POST", "/call");
    assert_eq!(call(&hasty).await.0, 200);
    pause(child(&worker)).await;
    hasty["timeout_ms"] = 300.into();
    let started = std::time::Instant::now();
    let (status, code, text) = call(&hasty).await;
    assert_eq!((status, &*code), (504, "deadline_exceeded"), "{text}");
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "its own deadline, not the request's");
    signal(child(&worker), Signal::CONT);
}
