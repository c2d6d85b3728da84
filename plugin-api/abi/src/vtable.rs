//! The two vtables and the root module.
//!
//! THREADS: every function may be called from any thread, several at a time.
//! OWNERSHIP: arguments by value belong to the called side from then on.
//! No function blocks, but `describe`, `init` and `stop`, which the host calls from threads it can spare, and `call` and
//! `task` where the host lends its thread and a handler breaks the habit for which it was polled there.
//! No panic crosses: the SDK catches at every entry, and the host's functions do not panic.

use crate::head::{
    AskHead, CallHead, CallOut, CallToken, EnqueueHead, HostCtx, InitHead, InitReply, Instance, LogRecord,
    MetricRecord, Reply, Running, SpanRecord, TaskHead, TaskNote, TaskReply, TaskToken,
};
use crate::{Answer, FfiBytes, FfiCallback, FfiWaker};
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleError, RootModuleResult};
use abi_stable::prefix_type::{PrefixRef, PrefixTypeTrait};
use abi_stable::std_types::RErr;
use abi_stable::StableAbi;

/// What the host does for a plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostRef, prefix_fields = HostPrefix)))]
#[sabi(missing_field(panic))]
pub struct Host {
    /// Answers a call. Only the first answer counts.
    pub complete: extern "C" fn(CallToken, Reply),
    /// Next piece of a streaming request body: `PENDING`, `READY` (a piece was written), `END` or `BROKEN`.
    pub body_poll: extern "C" fn(CallToken, FfiWaker, &mut FfiBytes) -> u32,
    /// Whether a streaming reply takes another piece: `PENDING`, `READY` or `BROKEN` (the caller has gone).
    pub body_ready: extern "C" fn(CallToken, FfiWaker) -> u32,
    /// The next piece of a streaming reply, after `body_ready` said so: `READY` or `BROKEN`.
    pub body_push: extern "C" fn(CallToken, FfiBytes) -> u32,
    /// Ends a streaming reply; with a text, as broken.
    pub body_end: extern "C" fn(CallToken, FfiBytes),
    /// Gives the token back. A call released without an answer is answered 500 by the host.
    pub call_release: extern "C" fn(CallToken),
    /// Ends an attempt. Only the first outcome counts.
    pub task_complete: extern "C" fn(TaskToken, TaskReply),
    /// Gives the token back. An attempt released without an outcome counts as panicked.
    pub task_release: extern "C" fn(TaskToken),
    /// Publishes a task; answers once JetStream has acknowledged it (value: `{"id", "duplicate"}`), or says why not.
    pub enqueue: extern "C" fn(HostCtx, EnqueueHead, FfiCallback),
    /// Calls another plugin's route; the value is `u16 status, u32 header block length, block, body`.
    pub call: extern "C" fn(HostCtx, CallOut, FfiCallback),
    /// Writes a log event.
    pub log: extern "C" fn(HostCtx, LogRecord),
    /// Records a closed span.
    pub span: extern "C" fn(HostCtx, SpanRecord),
    /// Broker time: nanoseconds since the Unix epoch.
    pub now_unix_ns: extern "C" fn(HostCtx) -> u64,
    /// The plugin's settings as JSON.
    pub config: extern "C" fn(HostCtx) -> FfiBytes,
    /// Records a measurement.
    pub metric: extern "C" fn(HostCtx, MetricRecord),
    /// Says what this thread polls from now on (a request or task id), or nothing (zeros); a new thread says that it
    /// polls nothing. For crash reports.
    pub polling: extern "C" fn(HostCtx, &[u8; 16]),
    /// Says how far a task's handler is: JSON `{"fraction"?, "done"?, "total"?, "message"}`. Ignored after the attempt's end.
    pub task_progress: extern "C" fn(HostCtx, TaskNote),
    /// Answers what a handler asks, as JSON: to `once_look` and `once_keep` `{"found", "value"?}`, to `wait` the task as
    /// it is when it has ended, else null. A question that the host does not know is answered `REJECTED`.
    #[sabi(last_prefix_field)]
    pub ask: extern "C" fn(HostCtx, AskHead, FfiCallback),
}

/// What a plugin does for the host.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef, prefix_fields = PluginPrefix)))]
#[sabi(missing_field(panic))]
pub struct Plugin {
    /// Routes, tasks, schemas and OpenAPI as JSON; needs no settings and starts nothing.
    pub describe: extern "C" fn() -> Answer,
    /// Starts the plugin's runtime and its state. May take until the host's load deadline.
    pub init: extern "C" fn(HostRef, HostCtx, InitHead) -> InitReply,
    /// Starts a route's handler. A handler that ended before this returns is answered with a null `Running`.
    pub call: extern "C" fn(Instance, CallHead, CallToken) -> Running,
    /// Starts one attempt of a task.
    pub task: extern "C" fn(Instance, TaskHead, TaskToken) -> Running,
    /// The caller has gone or the time is up: drops the handler at its next await.
    pub cancel: extern "C" fn(Running),
    /// Gives a running handle back, after its end or not.
    pub forget: extern "C" fn(Running),
    /// The host is about to stop: ends what the plugin does in the background.
    pub drain: extern "C" fn(Instance),
    /// Stops the runtime, waiting at most so many milliseconds.
    pub stop: extern "C" fn(Instance, u64),
    /// The plugin's own word on its health, JSON `{"ok", "detail"?}`.
    pub health: extern "C" fn(Instance) -> Answer,
    /// The task was cancelled: tells the handler, which goes on and decides itself how it ends. Of no use after the end.
    pub cancel_softly: extern "C" fn(Running),
    /// Answers `OK` from a thread of the plugin's runtime as soon as one has a moment, so that the host notices where none
    /// has; drops the callback where the runtime was stopped.
    #[sabi(last_prefix_field)]
    pub pulse: extern "C" fn(Instance, FfiCallback),
}

/// What a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef, prefix_fields = RootPrefix)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// The plugin's vtable.
    pub plugin: PluginRef,
    /// The host vtable's layout this library was built against; never called. Makes the layout check cover both ways.
    #[sabi(last_prefix_field)]
    pub host_layout: extern "C" fn(HostRef),
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "cardcage";
    const NAME: &'static str = "cardcage";
    const VERSION_STRINGS: abi_stable::sabi_types::VersionStrings = abi_stable::package_version_strings!();
}

extern "C" fn host_layout(_: HostRef) {}

/// Builds a library's header around the function that makes its root module; for [`export_root!`](crate::export_root).
///
/// # Safety
/// `constructor` must be made by [`export_root!`](crate::export_root).
#[doc(hidden)]
pub const unsafe fn header(constructor: extern "C" fn() -> RootModuleResult) -> LibHeader {
    // SAFETY: the constructor answers with `construct`, whose module is a `RootRef`.
    // OWNERSHIP: statics. THREADS: const.
    unsafe { LibHeader::from_constructor::<RootRef>(constructor, CheckTypeLayout::Yes) }
}

/// Leaks the vtables of one library; for [`export_root!`](crate::export_root).
#[doc(hidden)]
pub fn construct(plugin: fn() -> Plugin) -> RootModuleResult {
    std::panic::catch_unwind(|| {
        let root = Root { plugin: plugin().leak_into_prefix(), host_layout }.leak_into_prefix();
        // SAFETY: erasing the field type of a prefix reference; `header` names the same type for reading it back.
        // OWNERSHIP: leaked. THREADS: `Sync` data.
        let erased: PrefixRef<_> =
            unsafe { abi_stable::prefix_type::PrefixRefTrait::to_prefix_ref(root).cast() };
        RootModuleResult::ROk(erased)
    })
    .unwrap_or(RErr(RootModuleError::Unwound))
}

/// Exports a library's root module under the name that the host looks for.
#[macro_export]
macro_rules! export_root {
    ($plugin:expr) => {
        #[doc(hidden)]
        #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
        pub static CARDCAGE_LIBRARY_HEADER: $crate::abi_stable::library::LibHeader = {
            extern "C" fn construct() -> $crate::abi_stable::library::RootModuleResult {
                $crate::construct($plugin)
            }
            // SAFETY: made by this macro. OWNERSHIP: static. THREADS: const.
            unsafe { $crate::header(construct) }
        };
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn export_name_is_the_one_abi_stable_looks_for() {
        let source = include_str!("vtable.rs");
        let name = abi_stable::library::ROOT_MODULE_LOADER_NAME;
        assert!(source.contains(&format!("export_name = \"{name}\"")), "abi_stable looks for {name}");
    }
}
