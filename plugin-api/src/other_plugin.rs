//! Calling another plugin's routes.
//!
//! The host finds the route in the other plugin's description, and a worker that has that plugin answers, as it answers
//! callers from outside.

use crate::context::{HostHandle, RequestContext};
use crate::{Problem, TaskContext};
use bytes::Bytes;
use cardcage_abi::{CallOut, FfiBytes, FfiCallback, code, headers};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the host says itself, or what speaks of one connection.
const NOT_PASSED_ON: [&str; 8] = [
    "traceparent",
    "x-request-id",
    "content-length",
    "connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl RequestContext {
    /// Another plugin, for one that declares it by [`needs`](crate::Plugin::needs) or [`wants`](crate::Plugin::wants).
    pub fn plugin(&self, name: impl Into<Cow<'static, str>>, major: u32) -> OtherPlugin {
        OtherPlugin {
            host: self.host,
            name: name.into(),
            major,
            deadline: self.deadline,
            traceparent: self.traceparent.clone(),
        }
    }
}

impl<S> TaskContext<S> {
    /// Another plugin, for one that declares it by [`needs`](crate::Plugin::needs) or [`wants`](crate::Plugin::wants).
    ///
    /// An attempt that is repeated calls again: see [`once`](Self::once).
    pub fn plugin(&self, name: impl Into<Cow<'static, str>>, major: u32) -> OtherPlugin {
        OtherPlugin {
            host: self.info.host,
            name: name.into(),
            major,
            deadline: self.info.deadline,
            traceparent: self.info.traceparent.clone(),
        }
    }
}

/// Another plugin, whose routes can be called; made by [`RequestContext::plugin`] and [`TaskContext::plugin`].
///
/// ```no_run
/// # use plugin_api::prelude::*;
/// # async fn show(ctx: RequestContext) -> Result<(), Problem> {
/// let order = ctx.plugin("orders", 1).get("/7f3c").await?;
/// let quote = ctx.plugin("prices", 2).post("/quotes").json(&json!({ "sku": "a1" })).timeout(Duration::from_secs(2)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OtherPlugin {
    host: HostHandle,
    name: Cow<'static, str>,
    major: u32,
    deadline: SystemTime,
    traceparent: Option<Arc<str>>,
}

impl OtherPlugin {
    /// Starts a call. `path`, with a query where there is one, is below the other plugin's prefix, wherever an operator
    /// mounts it.
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> RouteCall {
        let path = path.as_ref();
        let sound = PathAndQuery::try_from(path).ok().filter(|_| path.starts_with('/'));
        let fault = sound.is_none().then(|| format!("`{path}` is no path that begins with a slash"));
        RouteCall {
            to: self.clone(),
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            fault,
        }
    }

    /// Starts a `GET`.
    pub fn get(&self, path: impl AsRef<str>) -> RouteCall {
        self.request(Method::GET, path)
    }

    /// Starts a `POST`.
    pub fn post(&self, path: impl AsRef<str>) -> RouteCall {
        self.request(Method::POST, path)
    }

    /// Starts a `PUT`.
    pub fn put(&self, path: impl AsRef<str>) -> RouteCall {
        self.request(Method::PUT, path)
    }

    /// Starts a `PATCH`.
    pub fn patch(&self, path: impl AsRef<str>) -> RouteCall {
        self.request(Method::PATCH, path)
    }

    /// Starts a `DELETE`.
    pub fn delete(&self, path: impl AsRef<str>) -> RouteCall {
        self.request(Method::DELETE, path)
    }
}

/// A call of another plugin's route. `.await` sends it and answers the response, whatever its status.
///
/// It is a [`Problem`] where there is none: `no_worker`, `worker_busy` (after other workers were asked for a second),
/// `plugin_quarantined`, `unknown_plugin`, `broker_unavailable` (503), `deadline_exceeded` (504), `worker_crashed` (502),
/// `no_such_route` (404), and the 500 of a handler that panicked, or of a plugin that is not declared. Body and answer are
/// in one piece of at most 512 KiB each (`body_too_large`, `reply_too_large`).
///
/// Dropping the future stops waiting. The handler may then go on until the deadline.
#[derive(Debug)]
#[must_use = "a call does nothing until it is awaited"]
pub struct RouteCall {
    to: OtherPlugin,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    fault: Option<String>,
}

impl RouteCall {
    /// Adds a header. The trace context and an id are the host's to add.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            _ => self.fault = Some("one of its headers is none".to_owned()),
        }
        self
    }

    /// The body, as it is.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The body as JSON, with its content type.
    pub fn json<B: Serialize + ?Sized>(mut self, body: &B) -> Self {
        match serde_json::to_vec(body) {
            Ok(json) => self.body = Bytes::from(json),
            Err(error) => self.fault = Some(format!("its body cannot be written as JSON: {error}")),
        }
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// When to stop waiting, by the host's clock; no later than the caller's own deadline, which it is otherwise.
    pub fn deadline(mut self, deadline: SystemTime) -> Self {
        self.to.deadline = self.to.deadline.min(deadline);
        self
    }

    /// The same, as a time from now.
    pub fn timeout(self, time: Duration) -> Self {
        let now = self.to.host.now();
        match now.checked_add(time) {
            Some(deadline) => self.deadline(deadline),
            None => self,
        }
    }

    async fn send(self) -> Result<Response<Bytes>, Problem> {
        if let Some(fault) = &self.fault {
            tracing::error!(of = &*self.to.name, fault, "a call of another plugin cannot be sent");
            return Err(Problem::internal(format!("a call of `{}` cannot be sent: {fault}", self.to.name)));
        }
        let deadline = self.to.deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
        let target = json!({
            "plugin": self.to.name,
            "major": self.to.major,
            "deadline_unix_ms": u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
        let call = CallOut {
            target: FfiBytes::from(target.to_string()),
            headers: FfiBytes::from(head(
                &self.method,
                &self.path,
                &self.headers,
                self.to.traceparent.as_deref(),
            )),
            body: FfiBytes::from_owner(self.body),
            ext: FfiBytes::empty(),
        };
        let (answered, answer) = tokio::sync::oneshot::channel();
        // The receiver may be gone when a cancelled handler's answer comes: then nobody waits for it.
        let callback = FfiCallback::new(move |answer| drop(answered.send(answer)));
        let host = self.to.host;
        (host.vtable.call())(host.ctx, call, callback);
        let Ok(answer) = answer.await else {
            let title = "The host is stopping and does not answer";
            return Err(
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", title).retry_after_s(1)
            );
        };
        if answer.code != code::OK {
            return Err(Problem::from_host(answer.value.as_slice()));
        }
        response(Bytes::from_owner(answer.value)).ok_or_else(|| {
            tracing::error!(of = &*self.to.name, "another plugin's answer cannot be read");
            Problem::internal("another plugin's answer cannot be read")
        })
    }
}

/// The caller's trace goes on in the other plugin.
fn head(method: &Method, path: &str, given: &HeaderMap, traceparent: Option<&str>) -> Vec<u8> {
    let mut block = Vec::with_capacity(256);
    headers::push(&mut block, headers::METHOD, method.as_str().as_bytes());
    headers::push(&mut block, headers::PATH, path.as_bytes());
    for (name, value) in given {
        if !NOT_PASSED_ON.contains(&name.as_str()) {
            headers::push(&mut block, name.as_str(), value.as_bytes());
        }
    }
    if let Some(traceparent) = traceparent {
        headers::push(&mut block, "traceparent", traceparent.as_bytes());
    }
    block
}

/// `u16 status, u32 header block length, block, body`.
fn response(answer: Bytes) -> Option<Response<Bytes>> {
    let (status, rest) = answer.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (block, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let mut response = Response::new(answer.slice_ref(body));
    *response.status_mut() = StatusCode::from_u16(u16::from_le_bytes(*status)).ok()?;
    for header in headers::iter(block) {
        let (name, value) = header.ok()?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        response.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(response)
}

impl IntoFuture for RouteCall {
    type Output = Result<Response<Bytes>, Problem>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_goes_along_and_what_is_the_hosts_to_say_does_not() {
        let mut given = HeaderMap::new();
        for name in ["x-by", "traceparent", "x-request-id", "content-length"] {
            given.insert(name, HeaderValue::from_static("mine"));
        }
        let head = head(&Method::PUT, "/a?b", &given, Some("00-trace"));
        let read: Vec<_> = headers::iter(&head).map(Result::unwrap).collect();
        let expected: [(&str, &[u8]); 4] =
            [(":method", b"PUT"), (":path", b"/a?b"), ("x-by", b"mine"), ("traceparent", b"00-trace")];
        assert_eq!(read, expected);
    }

    #[test]
    fn an_answer_is_status_headers_and_body_and_one_that_is_cut_short_is_none() {
        let mut block = Vec::new();
        headers::push(&mut block, "x-of", b"other");
        let mut answer = 404_u16.to_le_bytes().to_vec();
        answer.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        answer.extend(&block);
        for cut in 0..answer.len() {
            assert!(response(Bytes::copy_from_slice(&answer[..cut])).is_none(), "{cut}");
        }
        answer.extend(b"body");
        let read = response(Bytes::from(answer)).unwrap();
        assert_eq!((read.status().as_u16(), &read.body()[..]), (404, &b"body"[..]));
        assert_eq!(read.headers()["x-of"], "other");
    }
}
