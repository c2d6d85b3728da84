//! What `cardcage-testkit` needs to call handlers without a host: contexts around a host vtable of its own.
//!
//! Not for plugins: hidden from the documentation, and free to change with the test kit.

use crate::context::{HostHandle, InitError, PluginContext, RequestContext};
use crate::plugin::Plugin;
use crate::task::{AttemptInfo, TaskContext};
use axum::Router;
use cardcage_abi::{HostCtx, HostRef};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A host that lives in the test.
#[derive(Debug, Clone, Copy)]
pub struct Host(HostHandle);

impl Host {
    /// `ctx` comes back with each call of the vtable.
    pub fn new(vtable: HostRef, ctx: HostCtx) -> Self {
        Self(HostHandle { vtable, ctx })
    }

    /// What a plugin with these settings gets when it starts.
    pub fn plugin_context(self, config: &Value) -> PluginContext {
        PluginContext { host: self.0, config: Arc::from(config.to_string().into_bytes()) }
    }

    /// The extension that the extractors of a request read.
    pub fn request_context(self, request_id: [u8; 16], time_limit: Duration) -> RequestContext {
        RequestContext { request_id, deadline: self.0.now() + time_limit, host: self.0, traceparent: None }
    }

    /// One attempt of a task.
    pub fn task_context<S>(
        self,
        state: S,
        id: [u8; 16],
        attempt: u32,
        time_limit: Duration,
    ) -> TaskContext<S> {
        let now: SystemTime = self.0.now();
        let info = AttemptInfo {
            host: self.0,
            id,
            attempt,
            deadline: now + time_limit,
            soft_deadline: None,
            enqueued_at: now,
            traceparent: None,
            cancellation: tokio_util::sync::CancellationToken::new(),
        };
        TaskContext { state: Arc::new(state), info }
    }
}

/// Starts a plugin on the caller's runtime and returns its routes.
///
/// # Errors
/// What the plugin's `init` answered.
pub async fn start<S: Clone + Send + Sync + 'static>(
    plugin: Plugin<S>,
    ctx: PluginContext,
) -> Result<Router, InitError> {
    Ok(plugin.erase().start(ctx).await?.into_router())
}
