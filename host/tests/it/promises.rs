//! What callers are promised, held against real processes that are killed, paused and restarted.

use cardcage_harness::{Cardcage, Config, Deadline, Http, Nats, Signal, eventually};
use cardcage_protocol::Timestamp;
use futures_util::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use crate::serving::restored;
use crate::webhooks::queue_is_empty;

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

/// What a task's attempts say about the time when the broker was away.
struct Course {
    done: Value,
    /// When its handler first started, and when the last attempt ended.
    began: Timestamp,
    ended: Timestamp,
}

impl Course {
    async fn of(http: &Http, id: &str) -> Self {
        let done = http.final_task(id, Deadline::seconds(120)).await.unwrap();
        let attempts = done["attempts"].as_array().unwrap();
        let time = |attempt: &Value, what: &str| attempt[what].as_str().unwrap().parse().unwrap();
        let (began, ended) =
            (time(&attempts[0], "started_at"), time(&attempts[attempts.len() - 1], "ended_at"));
        let succeeded = attempts.iter().filter(|attempt| attempt["cause"] == "succeeded").count();
        assert_eq!((&done["state"], succeeded), (&json!("succeeded"), 1), "{done}");
        Self { done, began, ended }
    }
}

/// Posts so many tasks of so many milliseconds, several at a time.
async fn accepted_sleeps(http: &Http, count: u64, ms: u64) -> Vec<String> {
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..count {
        let http = http.clone();
        posts.spawn(async move { accepted(&http, "/chaos/task", &chaos("sleep", ms, 0)).await });
    }
    posts.join_all().await
}

/// How many tasks of chaos are with a worker, and how many wait for one.
async fn held_and_waiting(nats: &Nats, config: &Config) -> Option<(usize, u64)> {
    let client = async_nats::connect(nats.url()).await.ok()?;
    let name = format!("{}_TASKS_chaos", config.namespace());
    let stream = async_nats::jetstream::new(client).get_stream(name).await.ok()?;
    let mut consumers = stream.consumers();
    let (mut held, mut waiting) = (0, 0);
    while let Some(consumer) = consumers.next().await {
        let consumer = consumer.ok()?;
        held += consumer.num_ack_pending;
        waiting += consumer.num_pending;
    }
    Some((held, waiting))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_no_accepted_task_and_consumption_resumes() {
    let mut nats = Nats::start().await.unwrap();
    let config = config(&nats).set("worker.task_concurrency", 16);
    let api = Cardcage::api(&config).await.unwrap();
    restored(&api).await;
    let http = api.http().unwrap();
    let ids = accepted_sleeps(&http, 400, 400).await;
    let worker = Cardcage::worker(&config).await.unwrap();
    eventually(soon(), "the worker has its hands full and hundreds wait", async || {
        let (held, waiting) = held_and_waiting(&nats, &config).await?;
        // More than are looked for below: a few start between this look and the kill.
        (held >= 8 && waiting >= 250).then_some(())
    })
    .await
    .unwrap();

    let killed = Timestamp::now();
    nats.kill9();
    let refused = http.post_json("/hello/task", &json!({})).await.unwrap();
    assert_eq!((refused.status, refused.problem_code().as_deref()), (503, Some("broker_unavailable")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(http.get("/hello/inline?name=x").await.unwrap().status, 200, "inline routes go on");
    nats.restart().await.unwrap();
    let back = Timestamp::now();

    let mut courses = Vec::new();
    for id in &ids {
        courses.push(Course::of(&http, id).await);
    }
    let in_flight = courses.iter().filter(|course| course.began <= killed && course.ended > killed).count();
    let resumed: Vec<_> = courses.iter().map(|course| course.began).filter(|began| *began > back).collect();
    assert!(in_flight > 0, "some were in flight at the kill");
    assert!(resumed.len() >= 200, "hundreds were pending at the kill: {}", resumed.len());
    // Ten seconds is the promise, for a release build on an idle machine.
    let pause_ms = resumed.iter().min().unwrap().unix_ms() - back.unix_ms();
    assert!(
        pause_ms <= 50_000,
        "the next task started {pause_ms} ms after the broker's return\n{}",
        worker.stderr()
    );

    queue_is_empty(&nats, &config, "chaos").await;
    for (id, course) in ids.iter().zip(&courses) {
        let after = http.get(&format!("/tasks/{id}")).await.unwrap().json().unwrap();
        assert_eq!(after, course.done, "the outcome stands");
    }
    let again = accepted(&http, "/hello/task", &json!({ "n": 1 })).await;
    assert_eq!(http.final_task(&again, soon()).await.unwrap()["state"], "succeeded");
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
    let killed_at = Timestamp::now();
    let _second = Cardcage::worker(&config).await.unwrap();
    let done = http.final_task(&id, soon()).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{done}");
    let again = attempts[1]["started_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    // A lease and a second are promised.
    let after_ms = again.unix_ms().saturating_sub(killed_at.unix_ms());
    assert!(after_ms < 5 * 4_000, "it was started again {after_ms} ms after its worker's death: {done}");
    assert_ne!(attempts[0]["cause"], "succeeded", "the first attempt is accounted for: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_sent_twice_runs_once() {
    let nats = Nats::start().await.unwrap();
    let config = config(&nats);
    let (api, _worker) = both(&config).await;
    let http = api.http().unwrap();
    let send = async |body: Value| {
        let headers = [("idempotency-key", "order-7"), ("content-type", "application/json")];
        http.send(Method::POST, "/chaos/task", &headers, body.to_string().into()).await.unwrap()
    };
    let order = chaos("sleep", 200, 0);
    let (first, second) = tokio::join!(send(order.clone()), send(order.clone()));
    assert_eq!((first.status, second.status), (202, 202), "{} {}", first.text(), second.text());
    let id = first.task_id().unwrap();
    assert_eq!(second.task_id().unwrap(), id);
    let other = send(chaos("sleep", 300, 0)).await;
    assert_eq!((other.status, other.problem_code().as_deref()), (422, Some("idempotency_conflict")));
    assert_eq!(http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    assert_eq!(send(order).await.task_id().unwrap(), id, "also when it is done");

    // Without the key it is another task, which is counted.
    let unkeyed = accepted(&http, "/chaos/task", &chaos("ok", 0, 0)).await;
    assert_eq!(http.final_task(&unkeyed, soon()).await.unwrap()["state"], "succeeded");
    queue_is_empty(&nats, &config, "chaos").await;
    let seen = http.get("/chaos/seen").await.unwrap().json().unwrap();
    assert_eq!((&seen["started"], &seen["finished"]), (&json!(2), &json!(2)), "one run each: {seen}");
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
