//! How the two services that the plugin calls fail, and what that means for an attempt.
//!
//! The rules are the same for both: what may pass is tried again, when the service says so if it does; what will not pass
//! is not. Neither their URLs nor their bodies get into texts that callers see.

use plugin_api::prelude::*;
use reqwest::header::RETRY_AFTER;

/// The longest wait that a service can ask for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 3_600;

/// A service did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It does not know the thing.
    #[error("{service} does not know it")]
    NotFound { service: &'static str },
    /// It will not do it, now or later.
    #[error("{service} refused with {status}")]
    Refused { service: &'static str, status: u16 },
    /// It was not asked: the line does not say what was bought.
    #[error("the line has no SKU, so no course")]
    NoCourse,
    /// It could not do it now. `after`: when it wants to be asked again.
    #[error("{service} {what}")]
    Unavailable { service: &'static str, what: String, after: Option<Duration> },
}

impl Error {
    /// Sorts an answer that is no success.
    pub(crate) fn from_answer(service: &'static str, answer: &reqwest::Response) -> Self {
        let status = answer.status().as_u16();
        match status {
            404 | 410 => Self::NotFound { service },
            // 401 and 403 pass once the operator has mended the credentials; the order must not be lost by then.
            401 | 403 | 408 | 425 | 429 | 500.. => {
                Self::Unavailable { service, what: format!("answered {status}"), after: retry_after(answer) }
            }
            _ => Self::Refused { service, status },
        }
    }

    /// Sorts a request without an answer, or with one that cannot be read.
    pub(crate) fn from_request(service: &'static str, error: &reqwest::Error) -> Self {
        let what = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_connect() {
            "cannot be reached"
        } else if error.is_decode() {
            "answered what cannot be read"
        } else {
            "broke off"
        };
        Self::Unavailable { service, what: what.to_owned(), after: None }
    }
}

impl Error {
    /// What an attempt that met it answers. A method: `?` turns every error into a retry, which not all of these are.
    pub(crate) fn into_task_error(self) -> TaskError {
        let text = self.to_string();
        match self {
            Self::NotFound { .. } | Self::Refused { .. } | Self::NoCourse => TaskError::fail(text),
            Self::Unavailable { after: Some(after), .. } => TaskError::retry_after(after, text),
            Self::Unavailable { after: None, .. } => TaskError::retry(text),
        }
    }
}

/// Seconds only: neither service sends dates.
fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    let seconds: u64 = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)))
}
