//! Problems: every error that a caller can get from the host, in one table.
//!
//! A code is stable, has a page under `/problems/<code>`, and says whether a retry helps and what to do. The JSON is
//! RFC 9457's. The text for the caller holds nothing of a plugin's or the host's internals; that goes to the log.
//!
//! Refuses: codes made up at the place of the error.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// What a problem's `type` begins with; the rest is the code.
pub const TYPE_PREFIX: &str = "/problems/";

macro_rules! problems {
    ($($variant:ident $code:literal $status:literal $retryable:literal $title:literal $advice:literal;)*) => {
        /// A stable problem code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $(#[doc = concat!("`", $code, "`: ", $title)] $variant,)*
        }

        impl ProblemCode {
            /// All codes, in the order of the reference page.
            pub const ALL: &'static [ProblemCode] = &[$(Self::$variant),*];

            /// The stable code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// One line that says what happened.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Says whether the same request may succeed later.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// What the caller, or the operator, can do.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// The code with this text.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

problems! {
    NoSuchRoute "no_such_route" 404 false "No plugin has a route for this path."
        "Check the path against /openapi.json, and that the plugin is loaded.";
    MethodNotAllowed "method_not_allowed" 405 false "The path exists, but not with this method."
        "Use one of the methods in the Allow header.";
    BodyTooLarge "body_too_large" 413 false "The request's body is larger than this route accepts."
        "Send a smaller body, or ask the operator to raise the limit.";
    HeadersTooLarge "headers_too_large" 431 false "The request's headers are larger than the host accepts."
        "Send fewer or shorter headers.";
    MalformedRequest "malformed_request" 400 false "The request is not valid HTTP, or not valid JSON where JSON is needed."
        "Correct the request; the detail says where it goes wrong.";
    InvalidBody "invalid_body" 422 false "The body does not match the schema."
        "Correct the fields named in the detail; /openapi.json has the schema.";
    UnsupportedMediaType "unsupported_media_type" 415 false "The body's media type is not accepted here."
        "Send the body with a Content-Type that the route accepts, usually application/json.";
    NoWorker "no_worker" 503 true "No worker for this plugin is running."
        "Retry later. Operator: start a worker that loads this plugin and major version.";
    WorkerBusy "worker_busy" 503 true "Every worker for this plugin is at its limit."
        "Retry after the time in Retry-After. Operator: add workers or raise the call limit.";
    WorkerCrashed "worker_crashed" 502 true "The worker crashed while it handled the request."
        "Retry only if the request may run twice. Operator: the supervisor's log names the plugin.";
    PluginQuarantined "plugin_quarantined" 503 true "The plugin crashed its workers too often and takes no calls."
        "Retry later. Operator: look at the dead letters, then run `cardcage plugin release`, or start workers with a new version.";
    DeadlineExceeded "deadline_exceeded" 504 true "The deadline passed before there was an answer."
        "The request may still have taken effect; retry only if it may run twice.";
    HandlerPanicked "handler_panicked" 500 false "The plugin's handler failed unexpectedly."
        "Report it to the plugin's authors with the request id.";
    PluginError "plugin_error" 500 false "The plugin could not handle the request."
        "Report it to the plugin's authors with the request id.";
    ReplyTooLarge "reply_too_large" 502 false "The plugin's answer is larger than the host accepts."
        "Ask for less at once. Plugin author: page or stream the answer.";
    BrokerUnavailable "broker_unavailable" 503 true "The message broker cannot be reached, so nothing was promised."
        "Retry after the time in Retry-After, with the same idempotency key.";
    QueueFull "queue_full" 503 true "The plugin's task queue is full."
        "Retry after the time in Retry-After. Operator: add workers or raise the queue's bound.";
    ScheduleFull "schedule_full" 503 true "As many tasks wait for their time as the broker may keep."
        "Retry after the time in Retry-After, or enqueue without a delay. Operator: raise stores.delayed_max_messages or stores.delayed_max_bytes.";
    KeysFull "keys_full" 503 true "As many idempotency, unique or other keys are kept as may be."
        "Retry later, or without a key where that is safe. Operator: raise stores.idempotency_max_messages or stores.limits_max_messages.";
    NoSuchTask "no_such_task" 404 false "There is no task with this id, or its result is no longer kept."
        "Check the id; results are kept for a limited time.";
    TaskEnded "task_ended" 409 false "The task has already ended."
        "Read its outcome at /tasks/{id}.";
    UnknownPlugin "unknown_plugin" 503 true "The plugin that is asked for is not known to this host."
        "Operator: configure the plugin, in the version that is needed, on this host too.";
    TooManyChildren "too_many_children" 413 false "One attempt of a task enqueued more than its record can hold."
        "Plugin author: enqueue less per task, keep large data elsewhere, or publish at once with enqueue_now.";
    InvalidBatch "invalid_batch" 422 false "These tasks cannot be enqueued together."
        "Plugin author: enqueue together at most 1,000 tasks of one plugin, all at once or all delayed, without keys of their own; the detail says what is wrong.";
    AttemptOver "attempt_over" 409 false "The attempt that enqueued this task is over, so nothing is enqueued in its name."
        "Plugin author: await what a handler spawns before it returns.";
    StreamBroken "stream_broken" 502 true "The body's stream broke on its way."
        "Retry only if the request may run twice.";
    // 422 as in draft-ietf-httpapi-idempotency-key-header, section 2.7; its 409 is for a request still under way.
    IdempotencyConflict "idempotency_conflict" 422 false "The idempotency key was used before with another body."
        "Use a new key for a new request.";
    Overloaded "overloaded" 503 true "The host handles as many requests as it may."
        "Retry after the time in Retry-After.";
    ShuttingDown "shutting_down" 503 true "The host is shutting down."
        "Retry; another instance will answer.";
    Internal "internal" 500 false "The host failed unexpectedly."
        "Report it to the operator with the request id.";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ProblemCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One problem, as it is sent to a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The code; it decides type, status and title.
    pub code: ProblemCode,
    /// What is particular to this occurrence, for the caller's eyes.
    pub detail: Option<String>,
    /// Seconds after which a retry makes sense, for the `Retry-After` header. Not part of the JSON.
    pub retry_after_s: Option<u32>,
    /// Further members of the JSON, such as `request_id` or `errors`. Standard members win.
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem without detail.
    #[must_use]
    pub fn new(code: ProblemCode) -> Self {
        Self { code, detail: None, retry_after_s: None, members: Map::new() }
    }

    /// Sets the detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets the seconds after which a retry makes sense.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Adds a member to the JSON.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// The JSON of RFC 9457.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = self.members.clone();
        json.insert("type".into(), format!("{TYPE_PREFIX}{}", self.code).into());
        json.insert("title".into(), self.code.title().into());
        json.insert("status".into(), self.code.status().into());
        json.insert("code".into(), self.code.as_str().into());
        if let Some(detail) = &self.detail {
            json.insert("detail".into(), detail.as_str().into());
        }
        Value::Object(json).to_string().into_bytes()
    }
}

impl From<ProblemCode> for Problem {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail.as_deref().unwrap_or(self.code.title()))
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_name_with_an_error_status_and_advice() {
        for code in ProblemCode::ALL {
            assert!(crate::name::is_name(code.as_str()));
            assert!((400..600).contains(&code.status()));
            assert!(code.title().ends_with('.') && code.advice().ends_with('.'));
            assert_eq!(ProblemCode::from_code(code.as_str()), Some(*code));
        }
        let distinct: std::collections::HashSet<_> = ProblemCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(distinct.len(), ProblemCode::ALL.len());
    }

    #[test]
    fn problems_are_rfc_9457_json() {
        let problem =
            Problem::new(ProblemCode::NoWorker).detail("plugin orders v1").member("request_id", "r1");
        let json: Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "/problems/no_worker");
        assert_eq!(json["status"], 503);
        assert_eq!(json["detail"], "plugin orders v1");
        assert_eq!(json["request_id"], "r1");
    }
}
