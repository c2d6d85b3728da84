//! What callers get while the broker or every worker is away.

use std::time::{Duration, Instant};

use cardcage_harness::{Cardcage, Config, Deadline, Nats, Signal, eventually};
use serde_json::json;

use super::post;
use crate::serving::{Serving, assert_problem, child, pause, restored, signal, sleep, soon, wait_metric};

#[tokio::test]
async fn no_worker_is_told_at_once() {
    let serving = Serving::api(|config| config).await;
    for _ in 0..5 {
        let began = Instant::now();
        let reply = post(&serving, "/hello/call", "x").await;
        assert_problem(&reply, 503, "no_worker");
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn lost_broker_gets_503_while_inline_routes_go_on_and_comes_back_by_itself() {
    let (mut serving, _worker) = Serving::both(|config| config).await;
    assert_eq!(post(&serving, "/hello/call", "x").await.status, 200);
    serving.nats.kill9();
    for _ in 0..3 {
        for path in ["/hello/call", "/hello/task"] {
            let began = Instant::now();
            let reply = post(&serving, path, "1").await;
            assert_problem(&reply, 503, "broker_unavailable");
            assert!(began.elapsed() < Duration::from_secs(15), "{path}: {:?}", began.elapsed());
        }
        assert_problem(
            &serving.get("/tasks/019a0000-0000-7000-8000-000000000000").await,
            503,
            "broker_unavailable",
        );
        assert_eq!(serving.get("/hello/inline").await.status, 200);
    }
    serving.nats.restart().await.unwrap();
    eventually(Deadline::seconds(50), "calls are answered again", async || {
        (post(&serving, "/hello/call", "x").await.status == 200).then_some(())
    })
    .await
    .unwrap();
    let id = eventually(Deadline::seconds(50), "tasks are taken again", async || {
        post(&serving, "/hello/task", "1").await.task_id().ok()
    })
    .await
    .unwrap();
    assert_eq!(serving.http.final_task(&id, Deadline::seconds(60)).await.unwrap()["state"], "succeeded");
}

#[tokio::test]
async fn call_under_way_when_the_broker_is_lost_is_told_so() {
    let (mut serving, worker) = Serving::both(|config| config).await;
    let call = serving.order_later(sleep(120_000));
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    let began = Instant::now();
    serving.nats.kill9();
    assert_problem(&call.await.unwrap(), 503, "broker_unavailable");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn broker_that_hangs_gets_503_for_tasks_while_inline_routes_go_on() {
    let serving = Serving::api(|config| config).await;
    assert_eq!(post(&serving, "/hello/task", "1").await.status, 202);
    serving.nats.pause().await.unwrap();
    let began = Instant::now();
    assert_problem(&post(&serving, "/hello/task", "1").await, 503, "broker_unavailable");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(serving.get("/hello/inline").await.status, 200);
    serving.nats.resume().unwrap();
    eventually(Deadline::seconds(50), "tasks are taken again", async || {
        (post(&serving, "/hello/task", "1").await.status == 202).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn call_to_a_broker_that_hangs_is_told_so_before_its_deadline_and_both_sides_go_on_after_it() {
    let (serving, worker) = Serving::both(|config| config).await;
    let call = serving.order_later(sleep(120_000));
    wait_metric(&worker, "cardcage_calls_in_flight 1").await;
    let began = Instant::now();
    serving.nats.pause().await.unwrap();
    assert_problem(&call.await.unwrap(), 503, "broker_unavailable");
    // What comes after it hears so at once.
    for path in ["/hello/call", "/hello/task", "/tasks/01990000-0000-7000-8000-000000000000"] {
        let reply = match path.starts_with("/tasks") {
            true => serving.get(path).await,
            false => post(&serving, path, "1").await,
        };
        assert_problem(&reply, 503, "broker_unavailable");
        assert!(reply.header("retry-after").is_some(), "{path}");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    serving.nats.resume().unwrap();
    eventually(Deadline::seconds(50), "calls are answered again", async || {
        (post(&serving, "/hello/call", "1").await.status == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn slow_handler_is_not_taken_for_a_broker_that_hangs() {
    let (serving, _worker) = Serving::both(|config| config).await;
    assert_eq!(serving.order(sleep(6_000)).await.status, 200);
    assert!(!serving.api.stderr().contains("does not answer"));
}

#[tokio::test]
async fn somebody_who_listens_to_everything_does_not_make_a_broker_seem_to_hang() {
    let (serving, worker) = Serving::both(|config| config).await;
    let tap = async_nats::connect(serving.nats.url()).await.unwrap();
    let _everything = tap.subscribe(">").await.unwrap();
    tap.flush().await.unwrap();
    // Nothing else comes to the API meanwhile, for longer than a silent broker is borne.
    assert_eq!(serving.order(sleep(6_000)).await.status, 200);
    for host in [&serving.api, &worker] {
        assert!(!host.stderr().contains("does not answer"), "{}", host.stderr());
    }
}

#[tokio::test]
async fn host_that_was_itself_kept_waiting_does_not_blame_the_broker() {
    let (serving, _worker) = Serving::both(|config| config).await;
    pause(child(&serving.api)).await;
    let began = Instant::now();
    eventually(soon(), "the child has stood still for long", async || {
        (began.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await
    .unwrap();
    signal(child(&serving.api), Signal::CONT);
    // Long enough for a verdict on the time before.
    assert_eq!(serving.order(sleep(3_000)).await.status, 200);
    assert!(!serving.api.stderr().contains("does not answer"), "{}", serving.api.stderr());
}

#[tokio::test]
async fn api_started_without_a_broker_serves_inline_routes_and_finds_it_later() {
    let mut nats = Nats::start().await.unwrap();
    nats.kill9();
    let api = Cardcage::api(&Config::new(&nats).plugin("hello").unwrap()).await.unwrap();
    let http = api.http().unwrap();
    assert_eq!(http.get("/hello/inline").await.unwrap().status, 200);
    for path in ["/hello/task", "/hello/call"] {
        assert_problem(&http.post_json(path, &json!(1)).await.unwrap(), 503, "broker_unavailable");
    }
    let ready = api.admin().unwrap().get("/readyz?verbose").await.unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the broker cannot be reached"), "{}", ready.text());

    nats.restart().await.unwrap();
    restored(&api).await;
    assert_eq!(http.post_json("/hello/task", &json!(1)).await.unwrap().status, 202);
}
