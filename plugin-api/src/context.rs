//! What handlers and `init` are told, and the host services that they can reach.

use cardcage_abi::{HostCtx, HostRef};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a plugin cannot start. The text goes to the operator: say what is wrong and what to do.
#[derive(Debug)]
pub struct InitError(String);

impl InitError {
    /// An error with a text for the operator.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

// No `Error`: the conversion below from every error would overlap with the one of `From` to itself.
impl std::fmt::Display for InitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for InitError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        Self(text)
    }
}

/// The host, as one plugin sees it. Cheap to clone.
#[derive(Clone, Copy)]
pub(crate) struct HostHandle {
    pub(crate) vtable: HostRef,
    pub(crate) ctx: HostCtx,
}

impl HostHandle {
    /// Broker time, which deadlines are in too.
    pub(crate) fn now(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos((self.vtable.now_unix_ns())(self.ctx))
    }
}

impl std::fmt::Debug for HostHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostHandle")
    }
}

/// What a plugin gets when it starts.
#[derive(Debug, Clone)]
pub struct PluginContext {
    pub(crate) host: HostHandle,
    pub(crate) config: Arc<[u8]>,
}

impl PluginContext {
    /// The plugin's settings: the table `plugins.<name>.config`, with references to secrets resolved.
    ///
    /// # Errors
    /// Names the key that is missing, unknown or of another type.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, InitError> {
        let unfit = |at: &str, fault: &serde_json::Error| {
            InitError::new(format!("its settings do not fit{at}: {fault}"))
        };
        // Lines and columns would be those of a text that nobody has written.
        let settings: serde_json::Value =
            serde_json::from_slice(&self.config).map_err(|fault| unfit("", &fault))?;
        serde_path_to_error::deserialize(settings).map_err(|error| {
            let path = error.path().to_string();
            let at = if path == "." { String::new() } else { format!(" at `{path}`") };
            unfit(&at, error.inner())
        })
    }

    /// A handle for enqueueing tasks outside of a request, such as from a background job.
    pub fn tasks(&self) -> crate::Tasks {
        crate::Tasks { host: self.host, context_id: [0; 16], traceparent: None, attempt: None }
    }
}

/// What a route's handler can know of its request. An axum extractor.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The request's id, as in the logs.
    pub request_id: [u8; 16],
    /// When the caller stops waiting.
    pub deadline: SystemTime,
    pub(crate) host: HostHandle,
    pub(crate) traceparent: Option<Arc<str>>,
}

impl RequestContext {
    /// The host's clock: broker time, the same for all hosts. What signatures and deadlines are compared with.
    pub fn now(&self) -> SystemTime {
        self.host.now()
    }

    /// How long the caller still waits.
    pub fn time_left(&self) -> Duration {
        self.deadline.duration_since(self.now()).unwrap_or_default()
    }
}

/// A handler was called outside of a host.
#[derive(Debug)]
pub struct NoHost;

impl axum::response::IntoResponse for NoHost {
    fn into_response(self) -> axum::response::Response {
        crate::Problem::internal("the handler was called without a host").into_response()
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for RequestContext {
    type Rejection = NoHost;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, NoHost> {
        parts.extensions.get::<RequestContext>().cloned().ok_or(NoHost)
    }
}
