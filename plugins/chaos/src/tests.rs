//! The modes that a test can outlive.

use super::*;
use plugin_api::axum::body::Body;
use plugin_api::axum::http::Request;
use testkit::{TestHost, TestRoutes};

async fn routes() -> TestRoutes {
    TestHost::new().serve(definition(), &json!({})).await.unwrap()
}

fn post(body: &Value) -> Request<Body> {
    Request::post("/call")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

async fn counted(routes: &TestRoutes) -> Value {
    routes.send_json(Request::get("/seen").body(Body::empty()).unwrap()).await.1
}

async fn run(order: Value, attempt: u32) -> TaskResult<Value> {
    let order = serde_json::from_value(order).unwrap();
    TestHost::new().attempt(attempt).run_task(chaos, App::default(), order).await
}

#[tokio::test]
async fn each_way_to_fail_a_call_has_its_status() {
    let routes = routes().await;
    for (mode, status) in
        [("ok", 200), ("fail", 500), ("fail_for_good", 422), ("discard", 409), ("big_error", 500)]
    {
        assert_eq!(routes.send_json(post(&json!({"mode": mode}))).await.0, status, "{mode}");
    }
    let response = routes.send(post(&json!({"mode": "retry_after", "ms": 1500}))).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"2".parse().unwrap())
    );
    let twice = json!({"mode": "fail_until", "times": 2});
    assert_eq!(routes.send_json(post(&twice)).await.0, 503);
    assert_eq!(routes.send_json(post(&twice)).await.0, 200);
}

#[tokio::test]
async fn dropped_sleep_counts_as_cancelled() {
    let routes = routes().await;
    let sleeper = tokio::spawn({
        let routes = routes.clone();
        async move { routes.send(post(&json!({"mode": "sleep", "ms": 3_600_000}))).await }
    });
    while counted(&routes).await["started"] == 0 {
        tokio::task::yield_now().await;
    }
    sleeper.abort();
    assert!(sleeper.await.unwrap_err().is_cancelled());
    let seen = counted(&routes).await;
    assert_eq!((&seen["cancelled"], &seen["finished"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn stream_has_its_pieces_and_then_counts_as_finished() {
    let routes = routes().await;
    let response = routes.send(post(&json!({"mode": "slow_stream", "times": 3}))).await;
    assert_eq!(counted(&routes).await["finished"], 0);
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    assert_eq!(body, "piece 0\npiece 1\npiece 2\n");
    assert_eq!(counted(&routes).await["finished"], 1);
}

#[tokio::test]
async fn broken_stream_breaks() {
    let response = routes().await.send(post(&json!({"mode": "broken_stream"}))).await;
    assert!(axum::body::to_bytes(response.into_body(), 1024).await.is_err());
}

#[tokio::test]
async fn runtime_spawns_waits_and_talks() {
    let (status, saw) = routes().await.send_json(post(&json!({"mode": "spawn"}))).await;
    assert_eq!(status, 200);
    assert_eq!((&saw["spawned"], &saw["timer"], &saw["echo"]), (&json!(true), &json!(true), &json!("ping")));
}

#[tokio::test]
async fn task_fails_in_as_many_attempts_as_it_was_told() {
    let fail_until = json!({"mode": "fail_until", "times": 3});
    assert!(run(fail_until.clone(), 2).await.is_err());
    assert_eq!(run(fail_until, 3).await.unwrap()["attempt"], 3);
    let once = json!({"mode": "fail", "times": 1});
    assert!(run(once.clone(), 1).await.is_err());
    assert!(run(once, 2).await.is_ok());
    assert!(matches!(run(json!({"mode": "fail_for_good"}), 9).await, Err(TaskError::Fail(_))));
    assert!(matches!(run(json!({"mode": "discard"}), 1).await, Err(TaskError::Discard(_))));
    assert_eq!(
        run(json!({"mode": "huge_reply", "times": 2}), 9).await.unwrap().as_str().unwrap().len(),
        2 << 20
    );
}

#[tokio::test]
#[should_panic(expected = "in a destructor")]
async fn destructor_panics_when_the_handler_ends() {
    let _ = run(json!({"mode": "panic_in_drop"}), 1).await;
}

#[tokio::test]
async fn init_fails_when_told() {
    let error = TestHost::new().serve(definition(), &json!({"init": "fail"})).await.unwrap_err();
    assert!(error.to_string().contains("told not to start"));
}

/// The other half of the test below, in a process of its own.
#[tokio::test]
#[ignore = "ends its process"]
async fn dies_as_told() {
    let mode = std::env::var("CHAOS_TEST_MODE").unwrap();
    let _ = run(json!({ "mode": mode }), 1).await;
}

#[test]
fn deadly_modes_end_the_process_as_they_are_called() {
    use std::os::unix::process::ExitStatusExt;
    for (mode, signal, code) in [
        ("abort", Some(6), None),
        ("segfault", Some(11), None),
        ("segfault_aside", Some(11), None),
        // The threads of a test are the standard library's own, which says what it was and aborts.
        ("overflow_stack", Some(6), None),
        ("overflow_stack_aside", Some(6), None),
        ("exit", None, Some(0)),
        ("exit_aside", None, Some(0)),
    ] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::dies_as_told", "--ignored"])
            .env("CHAOS_TEST_MODE", mode)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!((status.signal(), status.code()), (signal, code), "{mode}");
    }
}

#[tokio::test]
async fn what_the_first_attempt_did_once_the_second_one_finds() {
    let host = TestHost::new();
    let app = || App::default();
    let body = || serde_json::from_value(json!({ "keys": 2, "fail_until": 2 })).unwrap();
    let first = host.run_task(reach::effects, app(), body()).await;
    assert!(matches!(first, Err(TaskError::Retry(_))), "{first:?}");
    let second = host.attempt(2).run_task(reach::effects, app(), body()).await.unwrap();
    assert_eq!(json!(second), json!({ "by_attempt": [1, 1], "by_the_last": 0 }));
}
