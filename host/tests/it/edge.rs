//! The HTTP edge: placements, limits, and what bad input gets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Cardcage, Config, Deadline, Nats, Reply, eventually};
use cardcage_protocol::{CallBody, CallReply, CallRequest, Namespace, ProblemCode, ReplyKind, Text};
use http::Method;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::serving::{Raw, Serving, assert_problem, http2, restored, sleep, soon, wait_metric};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn send(serving: &Serving, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    serving.http.send(method, path, headers, Bytes::copy_from_slice(body.as_bytes())).await.unwrap()
}

async fn post(serving: &Serving, path: &str, body: &str) -> Reply {
    send(serving, Method::POST, path, &[JSON], body).await
}

/// Moves hello's worker route into the API.
fn inline(config: Config) -> Config {
    config.set("plugins.hello.placement", "inline")
}

/// A broker connection of the test's own, to play a worker with.
async fn broker(serving: &Serving) -> Broker {
    let namespace = Namespace::new(serving.config.namespace()).unwrap();
    let options = Options { url: serving.nats.url(), namespace, ..Options::default() };
    let broker = Broker::connect(options).await.unwrap();
    broker.wait_connected(Duration::from_secs(10)).await.unwrap();
    broker
}

/// Takes hello's calls like a worker, one at a time.
struct FakeWorker {
    broker: Broker,
    calls: cardcage::broker::Subscription,
}

impl FakeWorker {
    async fn start(serving: &Serving) -> Self {
        let broker = broker(serving).await;
        let subject = format!("{}.call.hello.v0.*", serving.config.namespace());
        let calls = broker.subscribe_shared(subject, "workers").await.unwrap();
        let mut worker = Self { broker, calls };
        // What comes back to the subscription proves that the broker knows it.
        let probe = format!("{}.call.hello.v0.probe", serving.config.namespace());
        worker.broker.publish(probe, Bytes::new()).await.unwrap();
        tokio::time::timeout(soon().length(), worker.calls.next()).await.unwrap().unwrap();
        worker
    }

    /// The next call, and where its answer goes.
    async fn next(&mut self) -> (CallRequest, String) {
        let message = tokio::time::timeout(soon().length(), self.calls.next()).await.unwrap().unwrap();
        (CallRequest::decode(message.payload()).unwrap(), message.reply().unwrap().to_owned())
    }

    async fn answer(&self, reply_to: String, body: &'static str) {
        let reply = CallReply {
            kind: ReplyKind::Done,
            status: 200,
            worker_instance: Text::from_static("fake"),
            header_block: Bytes::new(),
            body: CallBody::Whole(Bytes::from_static(body.as_bytes())),
            ext: Bytes::new(),
        };
        self.broker.publish(reply_to, reply.encode().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn every_placement_answers() {
    let (serving, _worker) = Serving::both(|config| config).await;

    let greeting = serving.get("/hello/inline?name=Ada").await;
    assert_eq!((greeting.status, greeting.text().as_str()), (200, "Hello, Ada!"));

    let echoed = send(&serving, Method::POST, "/hello/call", &[("content-type", "text/plain")], "ping").await;
    assert_eq!((echoed.status, echoed.text().as_str()), (200, "ping"));
    assert_eq!(echoed.header("content-type"), Some("text/plain"));

    let receipt = post(&serving, "/hello/task", r#"{"n":1}"#).await;
    assert_eq!(receipt.status, 202, "{}", receipt.text());
    let id = receipt.task_id().unwrap();
    assert_eq!(receipt.header("location"), Some(format!("/tasks/{id}").as_str()));
    let task = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["result"], json!({ "n": 1 }));
    assert_eq!(task["id"], id);
    assert_eq!(
        (&task["plugin"], &task["task"], &task["attempt"]),
        (&json!("hello"), &json!("echo"), &json!(1))
    );
}

#[tokio::test]
async fn http2_in_clear_text_is_served() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let client = http2();
    for (path, body) in [("/hello/call", "over two"), ("/hello/call", "again")] {
        let request = hyper::Request::post(serving.http.url(path)).body(Full::from(body)).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 200));
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    }
    let request = hyper::Request::get(serving.http.url("/nowhere")).body(Full::default()).unwrap();
    assert_eq!(client.request(request).await.unwrap().status(), 404);
}

#[tokio::test]
async fn body_over_its_limit_gets_413_however_its_length_is_told() {
    let serving = Serving::api(|config| inline(config).set("api.body_max_bytes", 4096)).await;
    for path in ["/hello/call", "/hello/task"] {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4097\r\n\r\nsome")).await;
        assert_problem(&raw.reply().await, 413, "body_too_large");

        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")).await;
        raw.send(format!("1001\r\n{}\r\n", "x".repeat(4097))).await;
        assert_problem(&raw.reply().await, 413, "body_too_large");
    }
    let fits = "x".repeat(4096);
    assert_eq!(post(&serving, "/hello/call", &fits).await.text(), fits);
}

#[tokio::test]
async fn head_over_its_limit_gets_431() {
    let serving = Serving::api(|config| config).await;
    // A little over, and over what the HTTP library reads.
    for bytes in [20_000, 100_000] {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(format!("GET /hello/inline HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n", "x".repeat(bytes)))
            .await;
        assert_problem(&raw.reply().await, 431, "headers_too_large");
    }
    let mut raw = Raw::connect(&serving.address()).await;
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    raw.send(format!("GET /hello/inline HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert_problem(&raw.reply().await, 431, "headers_too_large");

    let mut raw = Raw::connect(&serving.address()).await;
    raw.send(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(20_000))).await;
    assert_problem(&raw.reply().await, 431, "headers_too_large");
}

#[tokio::test]
async fn head_over_its_limit_gets_431_over_http2_too() {
    let serving = Serving::api(|config| config).await;
    let client = http2();
    let ask = |bytes: usize| {
        let request = hyper::Request::get(serving.http.url("/hello/inline")).header("big", "x".repeat(bytes));
        client.request(request.body(Full::default()).unwrap())
    };
    let response = ask(20_000).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 431));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_problem(&Reply { status, headers, body }, 431, "headers_too_large");
    // Over what the HTTP library reads, it answers by itself; the connection lives on.
    assert_eq!(ask(100_000).await.unwrap().status(), 431);
    assert_eq!(ask(1_000).await.unwrap().status(), 200);
}

#[tokio::test]
async fn request_that_is_no_http_gets_a_problem_and_the_connection_ends() {
    let serving = Serving::api(|config| config).await;
    let garbage = [
        "this is no http\r\n\r\n",
        "GET\r\n\r\n",
        "GET /hello/inline HTTP/9.9\r\n\r\n",
        "GET /hello/inline HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ];
    for bytes in garbage {
        let mut raw = Raw::connect(&serving.address()).await;
        raw.send(bytes).await;
        assert_problem(&raw.reply().await, 400, "malformed_request");
        assert!(raw.is_closed().await, "{bytes:?}");
    }
    assert_eq!(serving.get("/hello/inline").await.status, 200);
}

#[tokio::test]
async fn garbage_after_sound_requests_gets_a_problem_and_the_connection_ends() {
    let serving = Serving::api(inline).await;
    for garbage in ["this is no http\r\n\r\n", "GET\r\n\r\n", "GET /hello/inline HTTP/9.9\r\n\r\n"] {
        let mut raw = Raw::connect(&serving.address()).await;
        for request in [
            "GET /hello/inline HTTP/1.1\r\nhost: x\r\n\r\n",
            "POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        ] {
            raw.send(request).await;
            assert_eq!(raw.reply().await.status, 200);
        }
        raw.send(garbage).await;
        assert_problem(&raw.reply().await, 400, "malformed_request");
        assert!(raw.is_closed().await);
    }
    // Sent together with the sound one.
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("GET /hello/inline HTTP/1.1\r\nhost: x\r\n\r\nthis is no http\r\n\r\n").await;
    let mut replies = String::new();
    tokio::time::timeout(soon().length(), raw.0.read_to_string(&mut replies)).await.unwrap().unwrap();
    let (first, second) = replies.split_once("Hello, world!").unwrap();
    assert!(first.starts_with("HTTP/1.1 200") && second.starts_with("HTTP/1.1 400"), "{replies}");
    assert!(second.contains("malformed_request"), "{replies}");
}

#[tokio::test]
async fn reply_that_reads_like_the_answer_to_garbage_comes_as_it_is() {
    let serving = Serving::api(|config| inline(config).set("api.body_max_bytes", 4_000_000)).await;
    let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // In one piece, and streamed.
    for body in [answer.to_owned(), answer.repeat(20_000)] {
        assert_eq!(post(&serving, "/hello/call", &body).await.text(), body);
    }
}

#[tokio::test]
async fn body_that_breaks_off_or_stalls_gets_400() {
    let serving = Serving::api(|config| inline(config).set("api.stream_idle_timeout_ms", 200)).await;
    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nsome").await;
    assert_problem(&raw.reply().await, 400, "malformed_request");

    let mut raw = Raw::connect(&serving.address()).await;
    raw.send("POST /hello/call HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n").await;
    assert_problem(&raw.reply().await, 400, "malformed_request");
}

#[tokio::test]
async fn unknown_path_gets_404_and_wrong_method_405_with_allow() {
    let serving = Serving::api(|config| config).await;
    for path in [
        "/",
        "/nowhere",
        "/hello",
        "/hello/",
        "/hello/none",
        "/hello/inline/more",
        "/tasks",
        "/tasks/a/b",
        "/docs",
    ] {
        assert_problem(&serving.get(path).await, 404, "no_such_route");
    }
    let cases = [
        (Method::POST, "/hello/inline", "GET, HEAD"),
        (Method::OPTIONS, "/hello/inline", "GET, HEAD"),
        (Method::GET, "/hello/call", "POST"),
        (Method::HEAD, "/hello/task", "POST"),
        (Method::DELETE, "/openapi.json", "GET, HEAD"),
        (Method::PUT, "/tasks/019a0000-0000-7000-8000-000000000000", "GET, HEAD"),
        (Method::from_bytes(b"BREW").unwrap(), "/hello/inline", "GET, HEAD"),
    ];
    for (method, path, allow) in cases {
        let reply = send(&serving, method.clone(), path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != Method::HEAD {
            assert_problem(&reply, 405, "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() {
    let serving = Serving::api(|config| config).await;
    for path in ["/hello/inline", "/openapi.json", "/problems/no_worker"] {
        let (get, head) = (serving.get(path).await, send(&serving, Method::HEAD, path, &[], "").await);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
    }
}

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

#[tokio::test]
async fn openapi_document_merges_the_plugins_and_every_reference_resolves() {
    let serving = Serving::api(|config| config).await;
    let reply = serving.get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let document = reply.json().unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/hello/inline", "/hello/call", "/hello/task", "/chaos/call", "/chaos/task", "/tasks/{id}"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer =
            reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_problem_code_has_a_page() {
    let serving = Serving::api(|config| config).await;
    for code in ProblemCode::ALL {
        let page = serving.get(&format!("/problems/{code}")).await;
        assert_eq!(page.status, 200, "{code}");
        assert_eq!(page.json().unwrap()["status"], code.status());
        assert!(page.json().unwrap()["what_to_do"].is_string());
    }
    let all = serving.get("/problems").await.json().unwrap();
    assert_eq!(all["problems"].as_array().unwrap().len(), ProblemCode::ALL.len());
    assert_problem(&serving.get("/problems/none").await, 404, "no_such_route");
}

#[tokio::test]
async fn operator_moves_a_plugin_or_a_route_with_one_word() {
    let serving = Serving::api(|config| config).await;
    assert_problem(&post(&serving, "/hello/call", "x").await, 503, "no_worker");

    let moved = Cardcage::api(&inline(serving.config.clone())).await.unwrap();
    let echoed = moved.http().unwrap().send(Method::POST, "/hello/call", &[], "x".into()).await.unwrap();
    assert_eq!((echoed.status, echoed.text().as_str()), (200, "x"));

    let away = serving.config.clone().set("plugins.hello.placement", "worker");
    let away = Cardcage::api(&away).await.unwrap();
    restored(&away).await;
    assert_problem(&away.http().unwrap().get("/hello/inline").await.unwrap(), 503, "no_worker");

    let route: toml::Table = toml::from_str("\"POST /call\" = \"inline\"").unwrap();
    let one =
        serving.config.clone().set("plugins.hello.placement", "worker").set("plugins.hello.routes", route);
    let one = Cardcage::api(&one).await.unwrap();
    restored(&one).await;
    let http = one.http().unwrap();
    assert_eq!(http.send(Method::POST, "/hello/call", &[], "y".into()).await.unwrap().text(), "y");
    assert_problem(&http.get("/hello/inline").await.unwrap(), 503, "no_worker");
}

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

#[tokio::test]
async fn one_request_too_many_is_told_at_once() {
    let serving = Serving::api(|config| config.set("api.in_flight_max", 1)).await;
    let mut worker = FakeWorker::start(&serving).await;
    let http = serving.http.clone();
    let first = tokio::spawn(async move { http.post_json("/hello/call", &json!(1)).await.unwrap() });
    let (_, reply_to) = worker.next().await;
    assert_problem(&serving.get("/hello/inline").await, 503, "overloaded");
    worker.answer(reply_to, "late").await;
    assert_eq!(first.await.unwrap().text(), "late");
    assert_eq!(serving.get("/hello/inline").await.status, 200);
}

#[tokio::test]
async fn every_response_has_a_request_id_of_its_own() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let mut ids = BTreeSet::new();
    let paths =
        ["/hello/inline", "/nowhere", "/openapi.json", "/problems", "/tasks/x", "/chaos/seen", "/hello/call"];
    for path in paths {
        let reply =
            serving.http.send(Method::GET, path, &[("x-request-id", "mine")], Bytes::new()).await.unwrap();
        let id = reply.header("x-request-id").unwrap_or_else(|| panic!("{path}")).to_owned();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{path}: {id}");
        ids.insert(id);
    }
    ids.insert(post(&serving, "/hello/call", "x").await.header("x-request-id").unwrap().to_owned());
    ids.insert(post(&serving, "/hello/task", "1").await.header("x-request-id").unwrap().to_owned());
    assert_eq!(ids.len(), paths.len() + 2);
}

#[tokio::test]
async fn trace_context_reaches_workers_and_tasks_and_unsound_ones_are_replaced() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let serving = Serving::api(|config| config).await;
    let mut worker = FakeWorker::start(&serving).await;
    for given in [Some(GIVEN), Some("nonsense"), None] {
        let http = serving.http.clone();
        let call = tokio::spawn(async move {
            let header = given.map(|given| ("traceparent", given));
            http.send(Method::POST, "/hello/call?q=1", header.as_slice(), "x".into()).await.unwrap()
        });
        let (request, reply_to) = worker.next().await;
        worker.answer(reply_to, "done").await;
        let reply = call.await.unwrap();
        let header = |name| {
            let value = cardcage_abi::headers::get(&request.header_block, name).unwrap();
            std::str::from_utf8(value).unwrap().to_owned()
        };
        assert_eq!(Some(header("x-request-id").as_str()), reply.header("x-request-id"));
        assert_eq!((header(":method").as_str(), header(":path").as_str()), ("POST", "/call?q=1"));
        match given {
            Some(GIVEN) => assert_eq!(header("traceparent"), GIVEN),
            // A new trace, whose id is the request's.
            _ => assert_eq!(header("traceparent").split('-').nth(1), Some(header("x-request-id").as_str())),
        }
    }
    let id = send(&serving, Method::POST, "/hello/task", &[JSON, ("traceparent", GIVEN)], "1")
        .await
        .task_id()
        .unwrap();
    assert_eq!(stored_header(&serving, &id, "traceparent").await, GIVEN);
}

/// A header of a task that waits in hello's queue.
async fn stored_header(serving: &Serving, id: &str, name: &str) -> String {
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let stream = format!("{}_TASKS_hello", serving.config.namespace());
    let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
    let subject = format!("{}.task.hello.v0.echo.p5.{id}", serving.config.namespace());
    let message = stream.direct_get_last_for_subject(subject).await.unwrap();
    message.headers.get(name).unwrap().to_string()
}
