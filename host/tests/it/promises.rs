//! What callers are promised, held against real processes that are killed, paused and restarted.

use cardcage_harness::{Cardcage, Config, Deadline, Http, Nats, Signal, eventually};
use http::Method;
use serde_json::{Value, json};

/// Generous: debug builds on a busy machine.
fn soon() -> Deadline {
    Deadline::seconds(60)
}

fn config(nats: &Nats) -> Config {
    let config = Config::new(nats).plugin("hello").unwrap().plugin("chaos").unwrap();
    // Short, so that a lost worker's task comes back while a test waits.
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000).set("tasks.backoff", "100ms..1s")
}

async fn accepted(http: &Http, path: &str, body: &Value) -> String {
    let reply = http.post_json(path, body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

fn chaos(mode: &str, ms: u64, times: u64) -> Value {
    json!({ "mode": mode, "ms": ms, "times": times })
}

async fn both(config: &Config) -> (Cardcage, Cardcage) {
    let worker = Cardcage::worker(config).await.unwrap();
    (Cardcage::api(config).await.unwrap(), worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_posted_while_no_worker_runs_are_done_when_one_starts() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let api = Cardcage::api(&config).await.unwrap();
    let http = api.http().unwrap();
    let id = accepted(&http, "/hello/task", &json!({ "n": 1 })).await;
    let waiting = http.get(&format!("/tasks/{id}")).await.unwrap().json().unwrap();
    assert_eq!(waiting["state"], "queued");
    let call = http.post_json("/hello/call", &json!({})).await.unwrap();
    assert_eq!((call.status, call.problem_code().as_deref()), (503, Some("no_worker")));
    assert!(call.header("retry-after").is_some());

    let _worker = Cardcage::worker(&config).await.unwrap();
    let done = http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "n": 1 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_no_accepted_task_and_consumption_resumes() {
    let mut nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, _worker) = both(&config).await;
    let http = api.http().unwrap();
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(accepted(&http, "/chaos/task", &chaos("sleep", 50, n)).await);
    }
    nats.kill9();
    let refused = eventually(soon(), "enqueueing is refused", async || {
        let reply = http.post_json("/hello/task", &json!({})).await.ok()?;
        (reply.status == 503).then_some(reply)
    });
    let refused = refused.await.unwrap();
    assert_eq!(refused.problem_code().as_deref(), Some("broker_unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(http.get("/hello/inline?name=x").await.unwrap().status, 200, "inline routes go on");

    nats.restart().await.unwrap();
    for id in &ids {
        let done = http.final_task(id, soon()).await.unwrap();
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    let again = eventually(soon(), "tasks are accepted again", async || {
        let reply = http.post_json("/hello/task", &json!({})).await.ok()?;
        (reply.status == 202).then_some(())
    });
    again.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_mid_task_has_its_task_finished_by_another() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, mut first) = both(&config).await;
    let http = api.http().unwrap();
    let id = accepted(&http, "/chaos/task", &chaos("sleep", 4_000, 0)).await;
    let running = eventually(soon(), "the task runs", async || {
        let task = http.get(&format!("/tasks/{id}")).await.ok()?.json().ok()?;
        (task["state"] == "running").then_some(())
    });
    running.await.unwrap();
    let children = first.child_pids();
    first.kill9();
    for pid in children {
        // Gone already where it was quick to notice.
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    let _second = Cardcage::worker(&config).await.unwrap();
    let done = http.final_task(&id, soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{done}");
    assert_ne!(attempts[0]["cause"], "succeeded", "the first attempt is accounted for: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_sent_twice_runs_once() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, _worker) = both(&config).await;
    let http = api.http().unwrap();
    let send = async |body: &Value| {
        let headers = [("idempotency-key", "order-7"), ("content-type", "application/json")];
        http.send(Method::POST, "/hello/task", &headers, body.to_string().into()).await.unwrap()
    };
    let (first, second) = (send(&json!({ "a": 1 })).await, send(&json!({ "a": 1 })).await);
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.task_id().unwrap(), second.task_id().unwrap());
    let other = send(&json!({ "a": 2 })).await;
    assert_eq!((other.status, other.problem_code().as_deref()), (422, Some("idempotency_conflict")));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_handlers_have_names_and_tell_nothing_of_the_inside() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, worker) = both(&config).await;
    let http = api.http().unwrap();
    let panicked = http.post_json("/chaos/call", &chaos("panic", 0, 0)).await.unwrap();
    assert_eq!((panicked.status, panicked.problem_code().as_deref()), (500, Some("handler_panicked")));
    assert!(!panicked.text().contains(".rs"), "{}", panicked.text());
    assert!(worker.stderr().contains("plugin code panicked"), "the log has it");

    let child = worker.child_pids();
    let crashed = http.post_json("/chaos/call", &chaos("segfault", 0, 0)).await.unwrap();
    assert_eq!((crashed.status, crashed.problem_code().as_deref()), (502, Some("worker_crashed")));
    let back = eventually(soon(), "a new child serves", async || {
        let reply = http.post_json("/chaos/call", &chaos("ok", 0, 0)).await.ok()?;
        (reply.status == 200 && worker.child_pids() != child).then_some(())
    });
    back.await.unwrap();
    assert!(worker.stderr().contains("SIGSEGV"), "{}", worker.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_plugin_leaves_other_plugins_answering() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, _worker) = both(&config).await;
    let http = api.http().unwrap();
    let order = chaos("block", 20_000, 0);
    let blocked = async { http.post_json("/chaos/call", &order).await };
    let others = async {
        for n in 0..20 {
            assert_eq!(http.get("/hello/inline").await.unwrap().status, 200, "inline {n}");
            assert_eq!(
                http.post_json("/hello/call", &json!({ "n": n })).await.unwrap().status,
                200,
                "call {n}"
            );
        }
    };
    tokio::select! {
        _ = blocked => panic!("the blocked call came back before the others were answered"),
        () = others => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_name() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let api = Cardcage::api(&config.set("api.body_max_bytes", 4_096)).await.unwrap();
    let http = api.http().unwrap();
    let code = async |method: &str, path: &str, headers: &[(&str, &str)], body: String| {
        let reply = http.send(method.parse().unwrap(), path, headers, body.into()).await.unwrap();
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert!(reply.header("x-request-id").is_some(), "{method} {path}");
        (reply.status, reply.problem_code().unwrap())
    };
    let json = [("content-type", "application/json")];
    let named = |status, code: &str| (status, code.to_owned());
    assert_eq!(code("GET", "/nothing", &[], String::new()).await, named(404, "no_such_route"));
    assert_eq!(code("PUT", "/hello/call", &[], String::new()).await, named(405, "method_not_allowed"));
    let large = "x".repeat(5_000);
    assert_eq!(code("POST", "/hello/task", &json, large).await, named(413, "body_too_large"));
    let long = "y".repeat(20_000);
    assert_eq!(
        code("GET", "/hello/inline", &[("x-long", &long)], String::new()).await,
        named(431, "headers_too_large")
    );
    assert_eq!(code("POST", "/hello/task", &json, "{".into()).await, named(400, "malformed_request"));
    let wrong = json!({ "mode": "no such mode" }).to_string();
    assert_eq!(code("POST", "/chaos/task", &json, wrong).await, named(422, "invalid_body"));
    let text = [("content-type", "text/plain")];
    assert_eq!(code("POST", "/hello/task", &text, "{}".into()).await, named(415, "unsupported_media_type"));
    let unknown = "/tasks/01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(code("GET", unknown, &[], String::new()).await, named(404, "no_such_task"));
    assert_eq!(code("GET", "/tasks/nonsense", &[], String::new()).await, named(404, "no_such_task"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_runs_and_exits_0_and_a_killed_supervisor_leaves_nothing() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (mut api, mut worker) = both(&config).await;
    let http = api.http().unwrap();
    let order = chaos("sleep", 1_000, 0);
    let call = async { http.post_json("/chaos/call", &order).await.unwrap().status };
    let stop = async {
        let started = eventually(soon(), "the call runs", async || {
            let metrics = worker.admin().ok()?.get("/metrics").await.ok()?.text();
            metrics.contains("cardcage_calls_in_flight 1").then_some(())
        });
        started.await.unwrap();
        worker.signal(Signal::TERM).unwrap();
    };
    let (status, ()) = tokio::join!(call, stop);
    assert_eq!(status, 200, "the call was finished");
    assert_eq!(worker.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());

    api.kill9();
    let gone =
        eventually(soon(), "the child has ended too", async || api.child_pids().is_empty().then_some(()));
    gone.await.unwrap();
}
