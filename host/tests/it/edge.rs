//! The HTTP edge, as callers meet it. Here: placements, routing, and what every response has.

mod documents;
mod idle;
mod limits;
mod malformed;
mod outage;
mod tasks;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Cardcage, Config, Reply};
use cardcage_protocol::{CallBody, CallReply, CallRequest, Namespace, ReplyKind, Text};
use http::Method;
use http_body_util::{BodyExt, Full};
use serde_json::json;

use crate::serving::{Serving, assert_problem, http2, restored, soon};

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
