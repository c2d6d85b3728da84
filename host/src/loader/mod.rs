//! From a file on disk to a plugin that answers calls.
//!
//! The way of a library: [`inspect`] reads its manifest and its needs without running a line of it; [`Trust`] holds its bytes
//! against the lock of the plugin set and its signature; a private copy of the same bytes,
//! named by content hash is opened; the boundary's layout is checked; `describe` and `init` run. Anything wrong on
//! the way is a [`Refusal`]: one sentence that names file, fault and remedy.
//!
//! # Invariants
//! * One of the four rooms with `unsafe`: all of the host's side of the boundary stands in `open.rs`, `plugin.rs`,
//!   `plugin_host.rs`, `call_side.rs`, `task_side.rs` and `span.rs`; `machine.rs` asks glibc for its version.
//! * A library is never closed, and a path is never opened twice: the loader hands out copies named by hash.
//! * No plugin code runs before inspection has passed, and none runs on a thread that serves HTTP or NATS, but for
//!   one short poll of handlers that have earned it ([`Lending`]).
//!
//! # What it refuses
//! It does not watch files, restart anything or enforce deadlines: a plugin that hangs here is the supervisor's to end.

mod answer;
mod beside;
mod call_side;
mod conflict;
mod copy;
mod dependencies;
mod description;
mod enqueue_all;
mod exhausted;
pub mod inspect;
mod kept;
mod lending;
mod lock;
pub mod machine;
mod needs;
pub mod needs_abi;
mod neighbours;
mod open;
mod overrides;
mod plugin;
mod plugin_host;
mod plugins_lock;
mod previous;
mod refusal;
mod schedule;
mod served;
mod services;
mod set;
mod side_by_side;
mod span;
mod start;
mod step;
mod task_side;
mod trust;
mod unopened;

pub use answer::{AnswerBody, Answered, Attempt, BoxError, Outcome, RequestBody};
pub use beside::Beside;
pub use dependencies::Dependency;
pub use description::{Description, OpenApiPart, Placement, RouteDescription, TaskDescription};
pub use inspect::{Inspection, Manifest};
pub use lending::Lending;
pub use needs::{GlibcVersion, Needs};
pub use neighbours::{Need, refusal as needs_refusal, unmet};
pub use open::exit_now;
pub use overrides::task_faults;
pub use plugin::{Call, CallFuture, KeepRunning, Plugin, TaskStart};
pub use plugins_lock::{Locked, PluginsLock};
pub use previous::judge as judge_previous;
pub use refusal::{Code, Refusal, markdown as refusals_markdown};
pub use schedule::{ScheduleDescription, schedule_faults};
pub use served::{Judged, Served};
pub use services::{
    Asker, EnqueueAllRequest, EnqueueRequest, Identity, OutgoingCall, Question, Receipt, Receipts,
    ServiceFuture, ServiceResult, Services,
};
pub use set::{LoadOptions, PluginSet, Source, describe_all, load_all};
pub use step::{LoadStep, OnStep};
pub use trust::{Judgement, Trust};
pub use unopened::{Unopened, Vetted};
