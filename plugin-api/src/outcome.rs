//! From a task's body to its outcome, types erased.
//!
//! Invariant: a body that does not fit, as it is or upcast, costs no attempt: no handler was started.

use crate::task::{Failure, Task, TaskContext, TaskError, TaskResult};
use cardcage_abi::code;
use serde::Serialize;
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// An outcome as it crosses to the host.
pub(crate) struct Outcome {
    pub(crate) code: u32,
    pub(crate) delay_ms: u64,
    pub(crate) value: Vec<u8>,
}

impl Outcome {
    pub(crate) fn failure(code: u32, message: impl Into<String>) -> Self {
        let failure = Failure { message: message.into(), details: None };
        Self { code, delay_ms: 0, value: failure.encode() }
    }

    fn from_result<T: Serialize>(result: TaskResult<T>) -> Self {
        let (code, delay, failure) = match result {
            Ok(value) => {
                return match serde_json::to_vec(&value) {
                    Ok(value) => Self { code: code::TASK_SUCCEEDED, delay_ms: 0, value },
                    Err(error) => Self::failure(
                        code::TASK_FAILED,
                        format!("the result cannot be written as JSON: {error}"),
                    ),
                };
            }
            Err(TaskError::Retry(failure)) => (code::TASK_RETRY, Duration::ZERO, failure),
            Err(TaskError::RetryAfter(delay, failure)) => (code::TASK_RETRY_AFTER, delay, failure),
            Err(TaskError::Fail(failure)) => (code::TASK_FAILED, Duration::ZERO, failure),
            Err(TaskError::Discard(failure)) => (code::TASK_DISCARDED, Duration::ZERO, failure),
        };
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self { code, delay_ms, value: failure.encode() }
    }
}

/// A task of a plugin whose state is `S`, types erased.
pub(crate) trait ErasedTask<S>: Send + Sync {
    fn name(&self) -> &'static str;
    fn describe(&self) -> Value;
    /// Whether the handler's type takes this body, as it is or upcast; if not, why.
    fn accepts(&self, body: &[u8]) -> Result<(), String>;
    fn run(&self, ctx: TaskContext<S>, body: &[u8]) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

pub(crate) struct Erased<T>(std::marker::PhantomData<fn() -> T>);

impl<T> Erased<T> {
    pub(crate) fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: Task> ErasedTask<T::State> for Erased<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn describe(&self) -> Value {
        let options = T::OPTIONS;
        json!({
            "name": T::NAME,
            "description": T::DESCRIPTION,
            "input_schema": schemars::schema_for!(T::Input),
            "output_schema": schemars::schema_for!(T::Output),
            "max_attempts": options.max_attempts,
            "backoff_initial_ms": options.backoff_initial_ms,
            "backoff_max_ms": options.backoff_max_ms,
            "timeout_ms": options.timeout_ms,
            "soft_timeout_ms": options.soft_timeout_ms,
            "result_ttl_s": options.result_ttl_s,
            "concurrency": options.concurrency,
            "max_running": options.max_running,
            "priorities": options.priorities,
            "rate": options.rate,
            "unique_key": options.unique_key,
            "serial_key": options.serial_key,
            "expires_ms": options.expires_ms,
            "on_lost": options.on_lost,
            "exhausted": options.exhausted,
            "upcasts": options.upcast.is_some(),
        })
    }

    fn accepts(&self, body: &[u8]) -> Result<(), String> {
        decode::<T>(body).map(drop)
    }

    fn run(&self, ctx: TaskContext<T::State>, body: &[u8]) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        match decode::<T>(body) {
            Ok(input) => Box::pin(async move { Outcome::from_result(T::run(ctx, input).await) }),
            Err(text) => Box::pin(std::future::ready(Outcome::failure(code::TASK_UNDECODABLE, text))),
        }
    }
}

/// The body as the handler takes it: as it is, or upcast.
fn decode<T: Task>(body: &[u8]) -> Result<T::Input, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let error = match serde_path_to_error::deserialize(&mut reader) {
        Ok(input) => return Ok(input),
        Err(error) => error,
    };
    let text = format!("the body does not fit at `{}`: {}", error.path(), error.inner());
    match upcast::<T>(body) {
        Some(Ok(input)) => Ok(input),
        Some(Err(upcast)) => Err(format!("{text}; and {upcast}")),
        None => Err(text),
    }
}

/// What the task's upcaster makes of a body, and what is wrong with that; `None` where there is no upcaster, or no JSON.
fn upcast<T: Task>(body: &[u8]) -> Option<Result<T::Input, String>> {
    let (upcast, body) = (T::OPTIONS.upcast?, serde_json::from_slice(body).ok()?);
    let Some(body) = upcast(body) else {
        return Some(Err("the upcaster does not know it either".to_owned()));
    };
    Some(serde_path_to_error::deserialize(body).map_err(|error| {
        format!("what the upcaster makes of it does not fit at `{}`: {}", error.path(), error.inner())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_means_retry_and_keeps_its_causes() {
        fn fails() -> TaskResult<()> {
            Err(std::io::Error::other("the disk is full"))?;
            Ok(())
        }
        let outcome = Outcome::from_result(fails());
        assert_eq!(outcome.code, code::TASK_RETRY);
        assert!(String::from_utf8_lossy(&outcome.value).contains("the disk is full"));
    }

    #[test]
    fn retry_after_carries_its_delay() {
        let outcome = Outcome::from_result::<()>(Err(TaskError::retry_after(Duration::from_secs(3), "busy")));
        assert_eq!((outcome.code, outcome.delay_ms), (code::TASK_RETRY_AFTER, 3000));
    }
}
