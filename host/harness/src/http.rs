//! A small HTTP client for asking a host questions in tests: any status is an answer, only no answer is an error.

use std::time::Duration;

use bytes::Bytes;
use cardcage_protocol::State;
use cardcage_protocol::problem::MEDIA_TYPE;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::{Deadline, eventually};
use crate::{Error, Result};

/// Longer than any limit of the host, so that the host's answer is what a test sees.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client of one address. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    /// A client of `address`, such as `127.0.0.1:8080`. It uses no proxy and follows no redirect.
    ///
    /// # Errors
    /// The machine's TLS or resolver set-up is broken.
    pub fn new(address: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(Error::doing("cannot build an HTTP client"))?;
        Ok(Self { base: format!("http://{address}"), client })
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `GET path`.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    /// Any request.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply> {
        let asking = || format!("{method} {}{path}", self.base);
        let mut request = self.client.request(method.clone(), self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            request.send().await.map_err(|error| Error::new(format!("{}: {}", asking(), causes(&error))))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body =
            answer.bytes().await.map_err(|error| Error::new(format!("{}: {}", asking(), causes(&error))))?;
        Ok(Reply { status, headers, body })
    }

    /// Asks for a task until it is in a final state, and returns what `GET /tasks/{id}` then says.
    ///
    /// # Errors
    /// It is in none at the deadline (the error holds the last answer), or nobody answers.
    pub async fn final_task(&self, id: &str, deadline: Deadline) -> Result<Value> {
        let mut last = String::from("no answer");
        let outcome = eventually(deadline, &format!("task {id} is in a final state"), async || {
            match self.get(&format!("/tasks/{id}")).await {
                Ok(reply) => {
                    last = format!("{} {}", reply.status, reply.text());
                    reply.json().ok().filter(is_final)
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            }
        })
        .await;
        outcome.map_err(|error| Error::new(format!("{error}; the last answer was: {last}")))
    }
}

fn is_final(task: &Value) -> bool {
    task.get("state").is_some_and(|state| State::deserialize(state).is_ok_and(State::is_final))
}

/// reqwest's own message leaves out the cause, which is what a person needs.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A header as text; `None` if it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON; the error holds the answer.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(format!("the answer is no JSON ({error}): {} {}", self.status, self.text()))
        })
    }

    /// The code of a problem (RFC 9457): its `code`, else the last part of its `type`. `None` if it is no problem.
    pub fn problem_code(&self) -> Option<String> {
        if !self.header("content-type")?.starts_with(MEDIA_TYPE) {
            return None;
        }
        let problem = self.json().ok()?;
        let member = |name: &str| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        member("code").or_else(|| member("type")?.rsplit('/').next().map(str::to_owned))
    }

    /// The task id of a receipt.
    ///
    /// # Errors
    /// It is no receipt; the error holds the answer.
    pub fn task_id(&self) -> Result<String> {
        let id = self.json()?.get("id").and_then(Value::as_str).map(str::to_owned);
        id.ok_or_else(|| Error::new(format!("the answer is no receipt: {} {}", self.status, self.text())))
    }
}
