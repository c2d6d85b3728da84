//! The Cardcage SDK: everything that a plugin's author needs.
//!
//! A plugin is a library that registers routes (axum handlers with utoipa documentation) and tasks (durable work
//! with typed bodies). It depends on this crate only for the host; handlers may use tokio, reqwest, sqlx and so on
//! as usual, because each plugin has a tokio runtime of its own.
//! Beside it, `Cargo.toml` names `serde`: what `#[derive(Deserialize)]` writes looks for a crate of that name.
//!
//! ```no_run
//! use plugin_api::prelude::*;
//!
//! #[derive(Clone)]
//! struct App;
//!
//! impl App {
//!     async fn start(_ctx: PluginContext) -> Result<App, InitError> {
//!         Ok(App)
//!     }
//! }
//!
//! /// Answers with the text it got.
//! #[utoipa::path(post, path = "/shout", responses((status = 200, body = String)))]
//! async fn shout(body: String) -> String {
//!     body.to_uppercase()
//! }
//!
//! /// Records a greeting.
//! #[task(timeout = "30s")]
//! async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
//!     Ok(format!("Hello {name}"))
//! }
//!
//! plugin! {
//!     name = "greeter",
//!     build = Plugin::new(App::start).routes(routes!(shout)).task(greet).enqueue(Method::POST, "/greet", greet)
//! }
//! # fn main() {}
//! ```
//!
//! # Lifecycle
//! `describe` evaluates the `build` expression and reads routes and tasks off it; nothing is started. `init` gives
//! the plugin its settings and runs the function handed to [`Plugin::new`]. Then handlers run until `drain` and
//! `stop`. A library is never unloaded.
//!
//! # What it refuses
//! `panic = "abort"` is a compile error: the SDK turns a handler's panic into an answer, which needs unwinding.

#[cfg(all(panic = "abort", not(doc)))]
compile_error!(
    "Cardcage plugins need panic = \"unwind\": remove `panic = \"abort\"` from the profile in Cargo.toml"
);

mod ask;
mod context;
mod describe;
mod enqueue;
mod enqueue_all;
mod exhausted;
mod export;
pub mod glue;
mod once;
mod other_plugin;
mod outcome;
mod plugin;
mod problem;
mod progress;
mod schedule;
mod stopping;
mod task;
mod telemetry;
#[doc(hidden)]
pub mod testing;
mod wait;

pub use context::{InitError, PluginContext, RequestContext};
pub use enqueue::{Accepted, Enqueue, OtherTasks, Tasks};
pub use enqueue_all::{AcceptedAll, EnqueueAll};
pub use exhausted::Exhausted;
pub use other_plugin::{OtherPlugin, RouteCall};
pub use plugin::{Definition, ErasedPlugin, Plugin};
pub use problem::Problem;
pub use progress::Progress;
pub use schedule::{Missed, Overlap, Schedule};
pub use stopping::StopReason;
pub use task::{Failure, OnLost, Priority, Task, TaskContext, TaskError, TaskOptions, TaskResult, Upcast};
pub use wait::Ended;

pub use axum;
pub use bytes;
pub use cardcage_abi as abi;
pub use cardcage_plugin_macros::task;
pub use http;
pub use log;
pub use schemars;
pub use serde;
pub use serde_json;
pub use tokio;
pub use tokio_util::sync::CancellationToken;
pub use tracing;
pub use utoipa;
pub use utoipa_axum;
pub use uuid;

/// What plugins import.
pub mod prelude {
    pub use crate::plugin;
    pub use crate::{
        Accepted, AcceptedAll, Exhausted, InitError, Missed, Overlap, Plugin, PluginContext, Priority,
        Problem, RequestContext, Schedule, StopReason, Task, TaskContext, TaskError, TaskResult, Tasks, task,
    };
    pub use axum::extract::{Path, Query, State};
    pub use axum::response::{IntoResponse, Response};
    pub use axum::{self, Json};
    pub use bytes::Bytes;
    pub use http::{HeaderMap, Method, StatusCode};
    pub use schemars::{self, JsonSchema};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{self, Value, json};
    pub use std::time::Duration;
    pub use tracing::{self, debug, error, info, warn};
    pub use utoipa::{self, IntoParams, ToSchema};
    pub use utoipa_axum::routes;
    pub use uuid::Uuid;
}

/// The SDK's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The compiler that built the SDK, and so the plugin.
pub const RUSTC: &str = env!("CARDCAGE_RUSTC");
/// The target the SDK was built for, and so the plugin.
pub const TARGET: &str = env!("CARDCAGE_TARGET");
