//! Routes that publish their body as a task.

use super::body::EdgeBody;
use super::respond;
use super::router::Route;
use super::service::{Arrived, Edge};
use crate::enqueue::{self, NewTask};
use bytes::Bytes;
use cardcage_protocol::{Priority, Problem, ProblemCode, limits};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// At most so many schema errors are told.
const ERRORS_TOLD: usize = 8;

pub(super) async fn answer(
    edge: &Edge,
    route: &Route,
    incoming: &Arrived<'_>,
    body: Bytes,
) -> Response<EdgeBody> {
    let Some(target) = &route.enqueue else {
        return respond::code(ProblemCode::Internal, incoming.id);
    };
    if let Err(problem) = check(incoming, &target.schema, &body) {
        return respond::problem(problem, incoming.id);
    }
    let key = match idempotency_key(incoming) {
        Ok(key) => key,
        Err(problem) => return respond::problem(problem, incoming.id),
    };
    let new = NewTask {
        identity: &route.identity,
        task: &target.task,
        route: route.name.as_str(),
        idempotency_key: key,
        traceparent: Some(incoming.traceparent.clone()),
        parent: None,
        // A caller does not choose: what is urgent is the plugin's to say.
        priority: Priority::Normal,
        delay: None,
        terms: target.terms.clone(),
        body,
    };
    match enqueue::publish(&edge.broker, new, edge.limits.enqueue_timeout).await {
        Ok(published) => {
            let link = format!("/tasks/{}", published.id);
            let receipt = json!({
                "id": published.id.to_string(),
                "state": "queued",
                "duplicate": published.duplicate,
                "links": { "self": link },
            });
            let mut response = respond::json(StatusCode::ACCEPTED, &receipt, incoming.id);
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(header::LOCATION, link);
            }
            response
        }
        Err(problem) => respond::problem(problem, incoming.id),
    }
}

fn check(incoming: &Arrived<'_>, schema: &jsonschema::Validator, body: &Bytes) -> Result<(), Problem> {
    let content_type = incoming.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media =
        content_type.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if media.as_deref().is_some_and(|media| media != "application/json" && !media.ends_with("+json")) {
        return Err(Problem::new(ProblemCode::UnsupportedMediaType).detail("Send application/json."));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemCode::MalformedRequest).detail(format!("The body is no JSON: {error}."))
    })?;
    let errors: Vec<Value> = schema
        .iter_errors(&value)
        .take(ERRORS_TOLD)
        .map(|error| json!({ "at": error.instance_path().to_string(), "error": error.masked().to_string() }))
        .collect();
    match errors.first() {
        None => Ok(()),
        Some(first) => {
            let at = first.get("at").and_then(Value::as_str).filter(|at| !at.is_empty()).unwrap_or("the top");
            let error = first.get("error").and_then(Value::as_str).unwrap_or_default();
            let detail = format!("At {at}: {error}.");
            Err(Problem::new(ProblemCode::InvalidBody).detail(detail).member("errors", errors))
        }
    }
}

fn idempotency_key(incoming: &Arrived<'_>) -> Result<Option<String>, Problem> {
    let Some(key) = incoming.headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().map(|key| key.trim().trim_matches('"')).filter(|key| !key.is_empty());
    match key {
        Some(key) if key.len() <= limits::IDEMPOTENCY_KEY_MAX_BYTES => Ok(Some(key.to_owned())),
        _ => {
            let detail =
                format!("Idempotency-Key has 1 to {} visible characters.", limits::IDEMPOTENCY_KEY_MAX_BYTES);
            Err(Problem::new(ProblemCode::MalformedRequest).detail(detail))
        }
    }
}
