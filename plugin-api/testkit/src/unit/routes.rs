//! Calls of routes without a host: the plugin's router, and the routes that only enqueue.

use super::cut::Cut;
use super::ledger::New;
use super::world::{Refused, World};
use crate::{Error, Reply, Result};
use plugin_api::axum::body::{Body, to_bytes};
use plugin_api::bytes::Bytes;
use plugin_api::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use plugin_api::testing;
use plugin_api::tracing::instrument::WithSubscriber;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt as _;
use uuid::Uuid;

/// How long a caller waits, as `api.call_timeout_ms` has it.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls a route of the plugin, below its prefix. `None`: the caller has hung up at the handler's await that `cut` says.
pub(super) async fn send(world: &World, request: Request<Bytes>, cut: Option<u32>) -> Result<Option<Reply>> {
    let path = request.uri().path().to_owned();
    if let Some(task) = enqueues(world, request.method(), &path) {
        return Ok(Some(enqueue(world, &task, &request)));
    }
    let id = Uuid::new_v4().into_bytes();
    let route = format!("{} {path}", request.method());
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(world.host().request_context(id, CALL_TIMEOUT));
    let plugin = world.plugin.get().ok_or_else(|| Error::new("the plugin has not been started"))?;
    let handler = async {
        // A router's own errors are `Infallible`.
        let Ok(response) = plugin.router().oneshot(request).await;
        let (parts, body) = response.into_parts();
        (parts, to_bytes(body, usize::MAX).await)
    };
    let guarded = testing::guarded(world.host(), &route, id, handler).with_subscriber(world.subscriber());
    let reply = match tokio::time::timeout(CALL_TIMEOUT, Cut::new(Box::pin(guarded), cut)).await {
        Ok(None) => return Ok(None),
        Ok(Some(Ok((parts, Ok(body))))) => Reply { status: parts.status, headers: parts.headers, body },
        Ok(Some(Ok((_, Err(_))))) => {
            problem(&Refused(502, "stream_broken", "the body's stream broke".into()))
        }
        Ok(Some(Err(panic))) => problem(&Refused(500, "handler_panicked", panic)),
        Err(_) => problem(&Refused(
            504,
            "deadline_exceeded",
            "the deadline passed before there was an answer".into(),
        )),
    };
    Ok(Some(reply))
}

pub(super) fn problem(refused: &Refused) -> Reply {
    let status = StatusCode::from_u16(refused.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media_type = HeaderValue::from_static("application/problem+json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type)]);
    Reply { status, headers, body: Bytes::from(refused.problem().to_string()) }
}

/// The task of the route that only enqueues, where it is one.
fn enqueues(world: &World, method: &Method, path: &str) -> Option<String> {
    let routes = world.plugin.get()?.description().get("routes")?.as_array()?;
    let is = |route: &Value, name: &str, value: &str| route.get(name).is_some_and(|it| it == value);
    let route = routes.iter().find(|route| {
        is(route, "placement", "enqueue") && is(route, "method", method.as_str()) && is(route, "path", path)
    })?;
    Some(route.get("task")?.as_str()?.to_owned())
}

/// What a host does for such a route: hold the body against the task's type, keep it, answer with a receipt.
fn enqueue(world: &World, task: &str, request: &Request<Bytes>) -> Reply {
    let body = request.body();
    if serde_json::from_slice::<Value>(body).is_err() {
        return problem(&Refused(400, "malformed_request", "the body is no JSON".into()));
    }
    if let Some(Err(text)) = world.plugin.get().and_then(|plugin| plugin.accepts(task, body)) {
        return problem(&Refused(422, "invalid_body", text));
    }
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let new = New {
        id: Uuid::now_v7(),
        task: task.to_owned(),
        plugin: None,
        body: body.to_vec(),
        key: key.map(str::to_owned),
        due: world.clock.now(),
        parent: None,
        cut: None,
    };
    match world.take(new) {
        Err(refused) => problem(&refused),
        Ok((id, duplicate)) => {
            let link = format!("/tasks/{id}");
            let receipt =
                json!({ "id": id, "state": "queued", "duplicate": duplicate, "links": { "self": link } });
            let media_type = HeaderValue::from_static("application/json");
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type)]);
            Reply { status: StatusCode::ACCEPTED, headers, body: Bytes::from(receipt.to_string()) }
        }
    }
}
