//! Following a task to its end: by waiting, and event by event, while hosts and broker come and go.

use crate::serving::{Serving, assert_problem, child, next_piece, pieces, signal, soon};
use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Config, Reply, Signal, eventually};
use cardcage_protocol::Namespace;
use http::Method;
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn quick(config: Config) -> Config {
    config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
}

async fn accepted(serving: &Serving, order: Value) -> String {
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

async fn running(serving: &Serving, id: &str) {
    eventually(soon(), "the task runs", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
}

/// A long-poll that goes on in the background.
fn waiting(serving: &Serving, id: &str) -> tokio::task::JoinHandle<Reply> {
    let (http, path) = (serving.http.clone(), format!("/tasks/{id}?wait=60s"));
    tokio::spawn(async move { http.get(&path).await.unwrap() })
}

/// Waits until the API has so many requests under way.
async fn under_way(serving: &Serving, count: u64) {
    crate::serving::wait_metric(&serving.api, &format!("cardcage_http_requests_in_flight {count}")).await;
}

/// A stream of events.
struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    async fn of(serving: &Serving, id: &str) -> Self {
        let request = hyper::Request::get(serving.http.url(&format!("/tasks/{id}/events")));
        let response = pieces().request(request.body(Full::from("")).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event's name and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let value = block.lines().find_map(|line| line.strip_prefix(name));
                    value.map(str::to_owned)
                };
                let event = field("event: ").zip(field("data: "));
                self.text = rest.to_owned();
                if let Some((name, data)) = event {
                    return Some((name, serde_json::from_str(&data).unwrap()));
                }
            }
            let piece = next_piece(&mut self.body).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// All that come until the end.
    async fn rest(mut self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_poll_ends_with_the_task_or_with_its_time() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 1_000 })).await;
    let began = Instant::now();
    let reply = waiting(&serving, &id).await.unwrap();
    assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("succeeded")));
    assert!(began.elapsed() < Duration::from_secs(30), "it did not wait for its time");

    let long = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    let began = Instant::now();
    let reply = serving.get(&format!("/tasks/{long}?wait=500ms")).await;
    assert_eq!((reply.status, &reply.json().unwrap()["state"]), (200, &json!("running")));
    assert!(began.elapsed() >= Duration::from_millis(500));

    for bad in ["10", "x", "-1s", "1h", "", "1.5s"] {
        let reply = serving.get(&format!("/tasks/{id}?wait={bad}")).await;
        assert_problem(&reply, 400, "malformed_request");
    }
    let unknown = "019a0000-0000-7000-8000-000000000000";
    assert_problem(&serving.get(&format!("/tasks/{unknown}?wait=10s")).await, 404, "no_such_task");
    assert_problem(&serving.get(&format!("/tasks/{unknown}/events")).await, 404, "no_such_task");
    let post = serving.http.post_json(&format!("/tasks/{id}/events"), &json!({})).await.unwrap();
    assert_problem(&post, 405, "method_not_allowed");
    let head = serving.http.send(Method::HEAD, &format!("/tasks/{long}/events"), &[], Bytes::new()).await;
    assert_eq!(head.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_the_end_through_the_death_of_the_worker() {
    let (serving, mut first) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000, "times": 1 })).await;
    running(&serving, &id).await;
    let (poll, events) = (waiting(&serving, &id), Events::of(&serving, &id).await);
    under_way(&serving, 2).await;
    let pid = child(&first);
    first.kill9();
    signal(pid, Signal::KILL);
    let _second = serving.worker().await;
    let polled = poll.await.unwrap().json().unwrap();
    assert_eq!(polled["state"], "succeeded", "{polled}");
    let causes: Vec<_> = polled["attempts"].as_array().unwrap().iter().map(|a| a["cause"].clone()).collect();
    assert_eq!(causes, ["lease_lost", "succeeded"]);
    let events = events.rest().await;
    assert_eq!(
        events.first().map(|(name, task)| (name.as_str(), &task["state"])),
        Some(("state", &json!("running")))
    );
    assert_eq!(events.last(), Some(&("end".to_owned(), polled)));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_while_the_task_runs_and_the_record_has_the_last_word() {
    let (serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "progress", "ms": 400, "times": 10 })).await;
    let events = Events::of(&serving, &id).await;
    let shown = eventually(soon(), "progress is shown", async || {
        let task = serving.get(&format!("/tasks/{id}")).await.json().ok()?;
        Some(task["progress"].clone()).filter(|progress| !progress.is_null())
    });
    let shown = shown.await.unwrap();
    assert_eq!(
        (&shown["total"], &shown["message"], &shown["attempt"]),
        (&json!(10), &json!("misbehaving"), &json!(1))
    );

    // Neither a live event nor a record that was never stored is believed.
    let namespace = Namespace::new(serving.config.namespace()).unwrap();
    let options = Options { url: serving.nats.url(), namespace, ..Options::default() };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(Duration::from_secs(10)).await.unwrap();
    let task = id.parse().unwrap();
    let forged = Bytes::from_static(b"{\"state\":\"failed\"}");
    for subject in [broker.subjects().done(task), broker.subjects().task_event(task)] {
        for payload in [forged.clone(), Bytes::from_static(b"\xff rubbish"), Bytes::new()] {
            broker.publish(subject.clone(), payload).await.unwrap();
        }
    }
    let events = events.rest().await;
    let done: Vec<u64> = events
        .iter()
        .filter(|(name, _)| name == "progress")
        .filter_map(|(_, p)| p["done"].as_u64())
        .collect();
    assert!(done.len() >= 3 && done.is_sorted(), "{done:?}");
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["state"]), ("end", &json!("succeeded")));
    assert!(last["progress"].is_null(), "what has ended makes no progress");
    assert_eq!(events.iter().filter(|(name, _)| name == "end").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_told_when_the_broker_is_lost() {
    let (mut serving, _worker) = Serving::both(quick).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    running(&serving, &id).await;
    let (poll, events) = (waiting(&serving, &id), Events::of(&serving, &id).await);
    under_way(&serving, 2).await;
    serving.nats.kill9();
    assert_problem(&poll.await.unwrap(), 503, "broker_unavailable");
    let (name, problem) = events.rest().await.pop().unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("problem", &json!("broker_unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_leave_at_once_when_the_api_stops() {
    let (mut serving, _worker) = Serving::both(|config| config.set("drain.grace_ms", 20_000)).await;
    let id = accepted(&serving, json!({ "mode": "sleep", "ms": 600_000 })).await;
    running(&serving, &id).await;
    let (poll, events) = (waiting(&serving, &id), Events::of(&serving, &id).await);
    under_way(&serving, 2).await;
    let began = Instant::now();
    let status = serving.api.stop(soon()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", serving.api.stderr());
    assert!(began.elapsed() < Duration::from_secs(15), "long before the grace is over");
    assert_problem(&poll.await.unwrap(), 503, "shutting_down");
    let (name, problem) = events.rest().await.pop().unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("problem", &json!("shutting_down")));
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_bounded_and_a_place_is_free_when_one_goes() {
    let serving = Serving::api(|config| config.set("api.followers_max", 2)).await;
    let id = accepted(&serving, json!({ "mode": "ok" })).await;
    let (first, second) = (Events::of(&serving, &id).await, Events::of(&serving, &id).await);
    assert_problem(&serving.get(&format!("/tasks/{id}?wait=1s")).await, 503, "overloaded");
    assert_problem(&serving.get(&format!("/tasks/{id}/events")).await, 503, "overloaded");
    assert_eq!(serving.get(&format!("/tasks/{id}")).await.status, 200);
    drop(first);
    eventually(soon(), "a place is free", async || {
        (serving.get(&format!("/tasks/{id}?wait=1ms")).await.status == 200).then_some(())
    })
    .await
    .unwrap();
    drop(second);
}
