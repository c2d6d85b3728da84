//! What a bench answers: replies of routes, and outcomes of tasks.

use crate::{Error, Result};
use plugin_api::bytes::Bytes;
use plugin_api::http::{HeaderMap, StatusCode};
use serde_json::Value;
use uuid::Uuid;

/// A route's answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a problem; `None` where the answer is none.
    pub fn code(&self) -> Option<String> {
        Some(self.json().get("code")?.as_str()?.to_owned())
    }

    /// The task that a receipt is for.
    ///
    /// # Errors
    /// It is no receipt; the error shows the answer.
    pub fn task_id(&self) -> Result<Uuid> {
        let receipt = self.json();
        let id = receipt.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        id.filter(|_| self.status == StatusCode::ACCEPTED)
            .ok_or_else(|| Error::new(format!("the answer is no receipt: {} {}", self.status, self.text())))
    }
}

/// What became of a task.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The task.
    pub id: Uuid,
    /// `succeeded`, `failed`, `cancelled` or `expired`; or `parked`, where no version can read its body.
    pub state: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// What the handler returned; `Null` where it did not succeed.
    pub result: Value,
    /// Code, message and details of the last error.
    pub error: Option<Failure>,
}

/// Why a task, or an attempt, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// A stable code, such as `failed`, `error`, `panicked` or `timeout`.
    pub code: String,
    /// What the handler said.
    pub message: String,
    /// What it added.
    pub details: Option<Value>,
}

impl Outcome {
    /// The result of a task that succeeded.
    ///
    /// # Errors
    /// It did not; the error says how it ended.
    pub fn succeeded(self) -> Result<Value> {
        match self.state.as_str() {
            "succeeded" => Ok(self.result),
            state => {
                let why = self.error.map(|error| format!(" ({}): {}", error.code, error.message));
                let why = why.unwrap_or_default();
                Err(Error::new(format!("the task is {state} after {} attempts{why}", self.attempts)))
            }
        }
    }

    /// The code of its error, empty where there is none.
    pub fn code(&self) -> &str {
        self.error.as_ref().map_or("", |error| error.code.as_str())
    }

    /// The outcome in what `GET /tasks/{id}` says; `None` where the task is still to run.
    pub(crate) fn read(view: &Value) -> Option<Self> {
        let text = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let state = text(view, "state");
        let over = matches!(state.as_str(), "succeeded" | "failed" | "cancelled" | "expired" | "parked");
        let attempts = view.get("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        over.then(|| Self {
            id: text(view, "id").parse().unwrap_or_default(),
            state,
            attempts: attempts.unwrap_or_default(),
            result: view.get("result").cloned().unwrap_or_default(),
            error: view.get("error").filter(|error| error.is_object()).map(|error| Failure {
                code: text(error, "code"),
                message: text(error, "message"),
                details: error.get("details").cloned(),
            }),
        })
    }
}
