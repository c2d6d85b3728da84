//! JetStream's own requests, as JSON: the few that the host needs.
//!
//! They are raw because settings are compared with what the broker *echoes*, field by field, including fields that the
//! client library does not know.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};

use super::{Broker, Error};

/// Time for one administrative request.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(5);

/// How many streams or consumers are asked about at a time.
const ASKED_AT_ONCE: usize = 8;

/// No JetStream error: the stream does not exist.
pub(super) const STREAM_NOT_FOUND: u32 = 10059;
/// The consumer does not exist.
pub(super) const CONSUMER_NOT_FOUND: u32 = 10014;
/// The stream exists with other settings.
pub(super) const STREAM_NAME_IN_USE: u32 = 10058;
/// The consumer exists (with `action: create`, with other settings).
pub(super) const CONSUMER_EXISTS: [u32; 2] = [10013, 10148];

impl Broker {
    /// One request to `$JS.API.<tail>`.
    pub(super) async fn api(
        &self,
        tail: &str,
        body: &Value,
        wait: Duration,
    ) -> Result<Map<String, Value>, Error> {
        let payload = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let reply = self.request(format!("$JS.API.{tail}"), None, payload, wait).await?;
        let answer: Map<String, Value> = serde_json::from_slice(&reply.payload)
            .map_err(|error| Error::unreadable(format!("the broker's answer to {tail}"), error))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(refusal(error)),
        }
    }

    /// Removes every message of `stream` whose subject matches `filter`; returns how many there were.
    pub(super) async fn purge(&self, stream: &str, filter: &str) -> Result<u64, Error> {
        let answer =
            self.api(&format!("STREAM.PURGE.{stream}"), &json!({ "filter": filter }), API_TIMEOUT).await?;
        Ok(answer.get("purged").and_then(Value::as_u64).unwrap_or(0))
    }
}

/// The answers to questions that do not depend on each other, in their order, or the first failure. A worker with many plugins asks many
/// before it is ready.
pub(super) async fn side_by_side<T>(
    questions: impl Iterator<Item = impl Future<Output = Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    let questions: Vec<_> = questions.collect();
    stream::iter(questions).buffered(ASKED_AT_ONCE).try_collect().await
}

/// Reads the `error` object of an answer.
pub(super) fn refusal(error: &Value) -> Error {
    let number = |name: &str| error.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let description = error.get("description").and_then(Value::as_str).unwrap_or("no description").to_owned();
    Error::Refused { code: number("err_code").or(number("code")).unwrap_or(0), description }
}

/// Compares wanted fields with echoed ones. A field that the broker leaves out stands at its zero.
pub(super) fn differences(
    object: &str,
    want: &Map<String, Value>,
    have: &Map<String, Value>,
) -> Vec<super::Difference> {
    want.iter()
        .filter_map(|(field, want)| {
            let have = have.get(field).unwrap_or(&Value::Null);
            let same = want == have || (have.is_null() && is_zero(want));
            let difference = || super::Difference {
                object: object.to_owned(),
                field: field.clone(),
                want: want.to_string(),
                have: have.to_string(),
            };
            (!same).then(difference)
        })
        .collect()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}
