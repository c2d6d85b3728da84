//! An RFC 9457 problem, as routes answer it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

/// An error for the caller of a route: `application/problem+json`.
///
/// Everything in it goes to the caller. What only operators may see belongs in the log.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(skip)]
    status: StatusCode,
    code: String,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a status (4xx or 5xx, anything else becomes 500), a stable code and a title.
    pub fn new(status: StatusCode, code: impl Into<String>, title: impl Into<String>) -> Self {
        let is_error = status.is_client_error() || status.is_server_error();
        let status = if is_error { status } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self {
            status,
            code: code.into(),
            title: title.into(),
            detail: None,
            more: Map::new(),
            retry_after_s: None,
        }
    }

    /// 400 with a detail.
    pub fn bad_request(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "The request is not valid").detail(detail)
    }

    /// 404 with a detail.
    pub fn not_found(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, "There is no such thing").detail(detail)
    }

    /// 500. The text goes to the caller, so it says nothing of the inside.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The plugin failed").detail(detail)
    }

    /// What happened this time, for the caller.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A further member of the problem.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.more.insert(name.into(), value.into());
        self
    }

    /// Tells the caller when a retry may help.
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Reads what a host service answered; a text that is no problem becomes a 503.
    pub(crate) fn from_host(value: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(value).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let status = value.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok());
        let status =
            status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let code = text("code").unwrap_or_else(|| "host_service_failed".into());
        let mut problem =
            Self::new(status, code, text("title").unwrap_or_else(|| "The host cannot do this now".into()));
        problem.detail = text("detail");
        problem.retry_after_s = value.get("retry_after_s").and_then(Value::as_u64);
        problem
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.title, self.code)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = match serde_json::to_value(&self) {
            Ok(Value::Object(body)) => body,
            _ => Map::new(),
        };
        body.insert("type".into(), Value::from(format!("/problems/{}", self.code)));
        body.insert("status".into(), Value::from(self.status.as_u16()));
        let mut response = (self.status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_an_error_whatever_status_it_was_given() {
        let problem = Problem::new(StatusCode::OK, "odd", "Odd").retry_after_s(2);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
