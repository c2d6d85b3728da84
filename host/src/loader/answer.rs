//! What handlers answer, as the host's other rooms see it: no type of the boundary shows here.

use bytes::Bytes;
use http::StatusCode;
use std::pin::Pin;
use tokio::sync::mpsc;

/// A streaming request body: anything that yields bytes.
pub type RequestBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;
/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A route's answer.
#[derive(Debug)]
pub enum Answered {
    /// The handler answered.
    Response {
        /// The status.
        status: StatusCode,
        /// Header block, as the boundary and the wire carry it.
        headers: Bytes,
        /// The body.
        body: AnswerBody,
    },
    /// The handler panicked; the text is for the log.
    Panicked(String),
    /// The handler failed otherwise; the text is for the log.
    Failed(String),
}

/// A reply's body.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// The start, and then piece by piece; ends with `None`, or an error where it broke.
    Stream(Bytes, mpsc::Receiver<Result<Bytes, String>>),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The result, JSON.
    Succeeded(Bytes),
    /// Try again by the policy.
    Retry(Bytes),
    /// Try again after so many milliseconds.
    RetryAfter(u64, Bytes),
    /// Failed for good; the error as JSON.
    Failed(Bytes),
    /// No longer wanted.
    Discarded(Bytes),
    /// Panicked; the error as JSON.
    Panicked(Bytes),
    /// The handler does not take this body.
    Undecodable(Bytes),
    /// The handler was dropped before it answered.
    Dropped,
}

/// An attempt's identity and body.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The task's id.
    pub task_id: [u8; 16],
    /// Its place in the description.
    pub task: u32,
    /// Counted from 1.
    pub attempt: u32,
    /// Milliseconds since the Unix epoch.
    pub deadline_unix_ms: u64,
    /// Milliseconds since the Unix epoch at which the handler is told to come to an end.
    pub soft_deadline_unix_ms: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub enqueued_unix_ms: u64,
    /// Header block.
    pub headers: Bytes,
    /// The author's JSON.
    pub body: Bytes,
}
