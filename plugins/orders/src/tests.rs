//! The plugin against small services of its own.

use super::*;
use plugin_api::axum::Router;
use plugin_api::axum::body::Body;
use plugin_api::axum::routing::{get, post};
use plugin_api::http::Request;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use testkit::TestHost;

/// What the fake services know and how they misbehave.
#[derive(Default)]
struct World {
    orders: HashMap<String, Value>,
    /// Status and `Retry-After` instead of an order.
    order_fault: Option<(u16, Option<&'static str>)>,
    /// By line: the status instead of an enrolment.
    line_faults: HashMap<String, u16>,
    enrolled: Vec<String>,
    asked: Vec<String>,
    tells_enrolments: bool,
    /// The status instead of telling.
    tell_fault: Option<u16>,
}

type Shared = Arc<Mutex<World>>;

async fn get_order(State(world): State<Shared>, Path(id): Path<String>) -> Response {
    let world = world.lock().unwrap();
    match (world.order_fault, world.orders.get(&id)) {
        (Some((status, after)), _) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            if let Some(after) = after {
                response.headers_mut().insert("retry-after", after.parse().unwrap());
            }
            response
        }
        (None, Some(order)) => Json(order.clone()).into_response(),
        (None, None) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn enroll(State(world): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> StatusCode {
    let mut world = world.lock().unwrap();
    let line = body["line_id"].as_str().unwrap().to_owned();
    let key = headers["idempotency-key"].to_str().unwrap();
    assert_eq!(key, format!("{}-{line}", body["order_id"].as_str().unwrap()));
    assert_eq!(body["email"], "learner@example.com");
    world.asked.push(line.clone());
    if let Some(status) = world.line_faults.get(&line) {
        return StatusCode::from_u16(*status).unwrap();
    }
    if world.enrolled.contains(&line) {
        return StatusCode::CONFLICT;
    }
    world.enrolled.push(line);
    StatusCode::OK
}

async fn enrolments(State(world): State<Shared>) -> Response {
    let world = world.lock().unwrap();
    if let Some(status) = world.tell_fault {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    if !world.tells_enrolments {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(json!({"line_ids": world.enrolled})).into_response()
}

/// Both services on one port; they live as long as the test's runtime.
async fn services(world: World) -> (Shared, String) {
    let world = Arc::new(Mutex::new(world));
    let router = Router::new()
        .route("/shop/orders/{id}", get(get_order))
        .route("/enroll", post(enroll))
        .route("/enrolments", get(enrolments))
        .with_state(world.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    (world, url)
}

fn settings(url: &str) -> Value {
    json!({"order_api_base_url": url, "lms_base_url": url, "project_key": "shop", "request_timeout_ms": 5000})
}

async fn app(host: &TestHost, url: &str) -> App {
    App::start(host.plugin_context(&settings(url))).await.unwrap()
}

fn world(lines: &[&str]) -> World {
    let items: Vec<_> =
        lines.iter().map(|id| json!({"id": id, "variant": {"sku": format!("course-{id}")}})).collect();
    let order = json!({"id": "o1", "customerEmail": "learner@example.com", "orderState": "Complete", "lineItems": items});
    World { orders: HashMap::from([("o1".into(), order)]), tells_enrolments: true, ..World::default() }
}

fn o1() -> Fulfil {
    Fulfil { order_id: "o1".into() }
}

#[tokio::test]
async fn every_line_is_enrolled_once_and_a_second_task_finds_nothing_left() {
    let host = TestHost::new();
    let (world, url) = services(world(&["a", "b"])).await;
    let app = app(&host, &url).await;
    let first = host.run_task(fulfil, app.clone(), o1()).await.unwrap();
    assert_eq!((first.enrolled, first.already), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    let second = host.run_task(fulfil, app, o1()).await.unwrap();
    assert_eq!((second.enrolled, second.already), (vec![], vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(world.lock().unwrap().asked, ["a", "b"]);
}

#[tokio::test]
async fn retry_after_partial_failure_enrols_only_what_is_missing() {
    let host = TestHost::new();
    let (world, url) = services(world(&["a", "b", "c"])).await;
    let app = app(&host, &url).await;
    world.lock().unwrap().line_faults.insert("b".into(), 503);
    let Err(TaskError::Retry(failure)) = host.run_task(fulfil, app.clone(), o1()).await else {
        panic!("no retry")
    };
    assert_eq!(failure.details.unwrap()["delayed"][0]["line_id"], "b");
    assert_eq!(world.lock().unwrap().enrolled, ["a", "c"]);

    world.lock().unwrap().line_faults.clear();
    world.lock().unwrap().asked.clear();
    let done = host.attempt(2).run_task(fulfil, app, o1()).await.unwrap();
    assert_eq!((done.enrolled, done.already), (vec!["b".to_owned()], vec!["a".to_owned(), "c".to_owned()]));
    assert_eq!(world.lock().unwrap().asked, ["b"]);
}

#[tokio::test]
async fn lms_that_does_not_tell_is_asked_again_under_the_same_key() {
    let host = TestHost::new();
    let (world, url) = services(World { tells_enrolments: false, ..world(&["a"]) }).await;
    let app = app(&host, &url).await;
    for attempt in [1, 2] {
        assert_eq!(host.attempt(attempt).run_task(fulfil, app.clone(), o1()).await.unwrap().enrolled, ["a"]);
    }
    assert_eq!(world.lock().unwrap().enrolled, ["a"]);
}

#[tokio::test]
async fn lms_that_cannot_tell_now_is_asked_later_and_nobody_is_enrolled_before() {
    let host = TestHost::new();
    let (world, url) = services(World { tell_fault: Some(503), ..world(&["a"]) }).await;
    let app = app(&host, &url).await;
    assert!(matches!(host.run_task(fulfil, app.clone(), o1()).await, Err(TaskError::Retry(_))));
    assert!(world.lock().unwrap().asked.is_empty());
    world.lock().unwrap().tell_fault = None;
    assert_eq!(host.attempt(2).run_task(fulfil, app, o1()).await.unwrap().enrolled, ["a"]);
}

#[tokio::test]
async fn refused_line_fails_the_task_after_the_others_are_enrolled() {
    let host = TestHost::new();
    let (world, url) = services(world(&["a", "b"])).await;
    let app = app(&host, &url).await;
    world.lock().unwrap().line_faults.insert("a".into(), 422);
    let Err(TaskError::Fail(failure)) = host.run_task(fulfil, app, o1()).await else { panic!("no failure") };
    assert_eq!(failure.details.unwrap()["refused"][0]["line_id"], "a");
    assert_eq!(world.lock().unwrap().enrolled, ["b"]);
}

#[tokio::test]
async fn order_api_decides_between_retry_and_failure() {
    let host = TestHost::new();
    let (world, url) = services(world(&["a"])).await;
    let app = app(&host, &url).await;
    let fault = |fault| world.lock().unwrap().order_fault = fault;
    let run = async || host.run_task(fulfil, app.clone(), o1()).await;

    fault(Some((503, Some("7"))));
    assert!(matches!(run().await, Err(TaskError::RetryAfter(after, _)) if after == Duration::from_secs(7)));
    fault(Some((503, None)));
    assert!(matches!(run().await, Err(TaskError::Retry(_))));
    fault(Some((400, None)));
    assert!(matches!(run().await, Err(TaskError::Fail(_))));
    fault(None);
    world.lock().unwrap().orders.clear();
    assert!(matches!(run().await, Err(TaskError::Fail(_))));
}

#[tokio::test]
async fn cancelled_order_is_discarded() {
    let host = TestHost::new();
    let mut cancelled = world(&["a"]);
    cancelled.orders.get_mut("o1").unwrap()["orderState"] = json!("Cancelled");
    let (world, url) = services(cancelled).await;
    let outcome = host.run_task(fulfil, app(&host, &url).await, o1()).await;
    assert!(matches!(outcome, Err(TaskError::Discard(_))));
    assert!(world.lock().unwrap().asked.is_empty());
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn order_is_answered_or_called_degraded() {
    let host = TestHost::new();
    let (world, url) = services(world(&["a"])).await;
    let routes = host.serve(definition(), &settings(&url)).await.unwrap();
    let (status, order) = routes.send_json(get_request("/o1")).await;
    assert_eq!((status, &order["lineItems"][0]["id"]), (StatusCode::OK, &json!("a")));
    assert_eq!(routes.send_json(get_request("/o2")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(routes.send_json(get_request("/..%2Fo2")).await.0, StatusCode::BAD_REQUEST);
    world.lock().unwrap().order_fault = Some((500, None));
    let (status, answer) = routes.send_json(get_request("/o1")).await;
    let expected = json!({"id": "o1", "degraded": true, "reason": "the order API answered 500"});
    assert_eq!((status, answer), (StatusCode::OK, expected));
}

#[tokio::test]
async fn order_api_that_stalls_is_given_up_within_the_callers_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let host = TestHost::new().time_limit(WAY_BACK + Duration::from_millis(50));
    let routes = host.serve(definition(), &settings(&url)).await.unwrap();
    let (status, answer) = routes.send_json(get_request("/o1")).await;
    let expected = json!({"id": "o1", "degraded": true, "reason": "the order API did not answer in time"});
    assert_eq!((status, answer), (StatusCode::OK, expected));
}

fn message(kind: &str, detail: &str, project: &str) -> Request<Body> {
    let mut message = json!({"id": "delivery", "detail-type": kind, "detail": {"id": detail, "type": kind,
        "projectKey": project, "orderState": "Complete", "resource": {"typeId": "order", "id": "o1"}}});
    message["id"] = json!(Uuid::new_v4());
    Request::post("/commercetools/messages").body(Body::from(message.to_string())).unwrap()
}

#[tokio::test]
async fn message_of_a_ready_order_becomes_one_task_in_however_many_deliveries() {
    let host = TestHost::new();
    let routes = host.serve(definition(), &settings("http://127.0.0.1:9")).await.unwrap();
    let (status, receipt) = routes.send_json(message("OrderStateChanged", "m1", "shop")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(routes.send_json(message("OrderStateChanged", "m1", "shop")).await.1["id"], receipt["id"]);
    let [task] = host.enqueued().try_into().unwrap();
    assert_eq!((task.task.as_str(), task.body), ("fulfil", json!({"order_id": "o1"})));
    assert_eq!(task.idempotency_key.as_deref(), Some("m1"));

    let (status, ignored) = routes.send_json(message("ReturnInfoSet", "m2", "shop")).await;
    assert_eq!((status, &ignored["reason"]), (StatusCode::OK, &json!("not_ready")));
    let (_, ignored) = routes.send_json(message("OrderStateChanged", "m3", "other")).await;
    assert_eq!(ignored["reason"], "other_project");
    let broken = Request::post("/commercetools/messages").body(Body::from("{}")).unwrap();
    assert_eq!(routes.send_json(broken).await.0, StatusCode::BAD_REQUEST);
}

/// Real shapes: the messages and orders in the samples folder, when it is there.
#[tokio::test]
async fn every_sample_is_understood() {
    let Ok(folder) =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples/commercetools"))
    else {
        return;
    };
    for file in folder {
        let path = file.unwrap().path();
        let (name, body) = (path.file_name().unwrap().to_str().unwrap(), std::fs::read(&path).unwrap());
        if name.starts_with("message-") {
            let ready = Message::read(&body).unwrap().is_order_ready(&[]);
            assert_eq!(ready, !name.contains("return-info"), "{name}");
        } else {
            let order: order_api::Order = serde_json::from_slice(&body).unwrap();
            assert!(
                order.customer_email.is_some()
                    && order.line_items.iter().all(|line| line.variant.sku.is_some())
            );
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let refusal = async |name: &str, value: Value| {
        let mut config = settings("http://127.0.0.1:9");
        config[name] = value;
        TestHost::new().serve(definition(), &config).await.unwrap_err().to_string()
    };
    for (name, value) in [
        ("lms_base_url", json!("localhost:80")),
        ("lms_base_url", json!("https://lms.example")),
        ("order_api_base_url", json!("http://orders.example/?a=b")),
        ("project_key", json!("../x")),
        ("request_timeout_ms", json!(0)),
    ] {
        let text = refusal(name, value).await;
        assert!(text.contains(name), "{name}: {text}");
    }
}
