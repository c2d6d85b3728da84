//! Tasks over HTTP: accepting them once, and telling where they are.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;

use super::{JSON, post, send};
use crate::serving::{Serving, assert_problem, soon};

#[tokio::test]
async fn enqueue_refuses_what_is_not_the_tasks_json() {
    let serving = Serving::api(|config| config).await;
    assert_problem(&post(&serving, "/chaos/task", r#"{"mode": "#).await, 400, "malformed_request");
    assert_problem(&post(&serving, "/chaos/task", "").await, 400, "malformed_request");

    let text =
        send(&serving, Method::POST, "/chaos/task", &[("content-type", "text/plain")], r#"{"mode":"ok"}"#)
            .await;
    assert_problem(&text, 415, "unsupported_media_type");

    let cases =
        [(r#"{"mode":"ok","ms":"soon"}"#, "/ms"), (r#"{"mode":"dance"}"#, "/mode"), (r#"[1]"#, "the top")];
    for (body, place) in cases {
        let reply = post(&serving, "/chaos/task", body).await;
        assert_problem(&reply, 422, "invalid_body");
        let detail = reply.json().unwrap()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(place), "{body}: {detail}");
        assert!(!reply.json().unwrap()["errors"].as_array().unwrap().is_empty());
    }
    let with_charset = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(
        send(&serving, Method::POST, "/chaos/task", &with_charset, r#"{"mode":"ok"}"#).await.status,
        202
    );
    let unnamed = send(&serving, Method::POST, "/chaos/task", &[], r#"{"mode":"ok"}"#).await;
    assert_eq!(unnamed.status, 202, "{}", unnamed.text());
}

#[tokio::test]
async fn task_posted_without_a_worker_is_queued_and_runs_when_one_starts() {
    let serving = Serving::api(|config| config).await;
    let id = post(&serving, "/hello/task", r#"{"n":2}"#).await.task_id().unwrap();
    let task = serving.get(&format!("/tasks/{id}")).await;
    assert_eq!(task.status, 200);
    let task = task.json().unwrap();
    assert_eq!((&task["state"], &task["attempt"]), (&json!("queued"), &json!(0)), "{task}");
    assert!(task["enqueued_at"].is_string());

    let _worker = serving.worker().await;
    let task = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&task["state"], &task["result"]), (&json!("succeeded"), &json!({ "n": 2 })));
}

#[tokio::test]
async fn idempotency_key_gives_the_same_task_and_refuses_another_body() {
    let serving = Serving::api(|config| config).await;
    let keyed = |key: &'static str, path: &'static str, body: &'static str| {
        let serving = &serving;
        async move { send(serving, Method::POST, path, &[JSON, ("idempotency-key", key)], body).await }
    };
    let first = keyed("k1", "/hello/task", "1").await;
    let again = keyed("k1", "/hello/task", "1").await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.task_id().unwrap(), again.task_id().unwrap());
    assert_eq!(
        (&first.json().unwrap()["duplicate"], &again.json().unwrap()["duplicate"]),
        (&json!(false), &json!(true))
    );
    assert_problem(&keyed("k1", "/hello/task", "2").await, 422, "idempotency_conflict");

    // Another key, and the same one elsewhere, are other tasks.
    let other = keyed("k2", "/hello/task", "1").await.task_id().unwrap();
    let elsewhere = keyed("k1", "/chaos/task", r#"{"mode":"ok"}"#).await.task_id().unwrap();
    let ids: BTreeSet<_> = [first.task_id().unwrap(), other, elsewhere].into();
    assert_eq!(ids.len(), 3);

    assert_problem(&keyed("", "/hello/task", "1").await, 400, "malformed_request");
    let long = "k".repeat(256);
    let reply = send(&serving, Method::POST, "/hello/task", &[JSON, ("idempotency-key", &long)], "1").await;
    assert_problem(&reply, 400, "malformed_request");
}

#[tokio::test]
async fn many_at_once_with_one_idempotency_key_make_one_task() {
    let serving = Serving::api(|config| config).await;
    let one = || async {
        send(&serving, Method::POST, "/hello/task", &[JSON, ("idempotency-key", "same")], "1").await
    };
    let replies = futures_util::future::join_all((0..20).map(|_| one())).await;
    let ids: BTreeSet<_> = replies.iter().map(|reply| reply.task_id().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn unknown_and_malformed_task_ids_get_404() {
    let serving = Serving::api(|config| config).await;
    for id in [
        "019a0000-0000-7000-8000-000000000000",
        "nonsense",
        "00000000-0000-0000-0000-000000000000",
        "*",
        "%3E",
    ] {
        assert_problem(&serving.get(&format!("/tasks/{id}")).await, 404, "no_such_task");
    }
}
