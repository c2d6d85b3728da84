//! Building responses.

use super::body::EdgeBody;
use super::head::{RequestId, is_hop_by_hop};
use bytes::Bytes;
use cardcage_protocol::problem::MEDIA_TYPE;
use cardcage_protocol::{Problem, ProblemCode};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A problem as a response; the request's id goes with it.
pub(super) fn problem(problem: Problem, id: RequestId) -> Response<EdgeBody> {
    let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let retry_after_s = problem.retry_after_s.or_else(|| problem.code.is_retryable().then_some(1));
    let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
    let body = problem.member("request_id", id.hex()).to_json();
    let mut response = Response::new(EdgeBody::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Some(seconds) = retry_after_s.filter(|_| is_unavailable) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    with_id(response, id)
}

/// Shorthand for a problem without a detail.
pub(super) fn code(code: ProblemCode, id: RequestId) -> Response<EdgeBody> {
    problem(Problem::new(code), id)
}

/// A JSON response.
pub(super) fn json(status: StatusCode, body: &Value, id: RequestId) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::whole(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_id(response, id)
}

/// Adds the request's id.
pub(super) fn with_id(mut response: Response<EdgeBody>, id: RequestId) -> Response<EdgeBody> {
    if let Ok(value) = HeaderValue::from_bytes(&id.digits()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The length that a plugin states for a body that streams.
pub(super) fn length(block: &Bytes) -> Option<usize> {
    let value = cardcage_abi::headers::get(block, CONTENT_LENGTH.as_str())?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A plugin's reply: its status and header block around a body.
pub(super) fn plugin(status: StatusCode, block: &Bytes, body: EdgeBody, is_head: bool) -> Response<EdgeBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in cardcage_abi::headers::iter(block).flatten() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        // The length is the edge's to say, but for HEAD, which has no body to measure.
        if !is_hop_by_hop(&name) && (is_head || name != CONTENT_LENGTH) {
            headers.append(name, value);
        }
    }
    response
}
