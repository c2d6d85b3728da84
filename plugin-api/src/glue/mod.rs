//! The plugin's side of the boundary: the vtable's functions, generic over the author's definition.
//!
//! # Invariants
//! * Every `extern "C"` function catches unwinding; nothing of the author's unwinds into the host.
//! * The author's code runs on the plugin's own runtime: handlers are spawned there, and the spawned task itself
//!   answers through the host's vtable. The exceptions are `describe` and `init`, which the host calls from threads it
//!   can spare, and one poll on a thread that the host lends, for handlers whose polls are known to be short
//!   (`lane.rs`).
//! * A token is released exactly once, by the last holder of its guard.

mod body;
mod call;
mod guarded;
mod instance;
mod lane;
mod run;
mod start;

pub(crate) use guarded::{Guarded, Work, current};
pub use instance::Started;

use crate::plugin::Definition;
use cardcage_abi::{
    Answer, CallHead, CallToken, FfiCallback, HostCtx, HostRef, InitHead, InitReply, Instance, Plugin,
    Running, TaskHead, TaskToken, code,
};
use instance::PluginInstance;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// The vtable of a library whose author's definition is `D`.
pub fn vtable<D: Definition>() -> Plugin {
    Plugin {
        describe: describe::<D>,
        init: init::<D>,
        call,
        task,
        cancel,
        forget,
        drain,
        stop,
        health,
        cancel_softly,
        pulse,
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".into())
}

extern "C" fn describe<D: Definition>() -> Answer {
    let described = catch_unwind(|| D::build().describe(D::NAME, D::VERSION).to_string());
    match described {
        Ok(json) => Answer::ok(json),
        Err(payload) => Answer::error(code::PANICKED, panic_text(&*payload)),
    }
}

extern "C" fn init<D: Definition>(host: HostRef, ctx: HostCtx, head: InitHead) -> InitReply {
    let started = catch_unwind(AssertUnwindSafe(|| PluginInstance::start::<D>(host, ctx, &head)));
    let answer = match started {
        Ok(Ok(instance)) => {
            let instance: &'static PluginInstance = Box::leak(Box::new(instance));
            let instance = Instance(std::ptr::from_ref(instance).cast());
            return InitReply { answer: Answer::ok(String::new()), instance };
        }
        Ok(Err(error)) => Answer::error(code::FAILED, error.into_text()),
        Err(payload) => Answer::error(code::PANICKED, panic_text(&*payload)),
    };
    InitReply { answer, instance: Instance(std::ptr::null()) }
}

fn instance(instance: Instance) -> &'static PluginInstance {
    // SAFETY: the host hands back what `init` leaked, and never calls without a successful `init`.
    // OWNERSHIP: leaked, so it lives as long as the process. THREADS: `PluginInstance` is `Sync`.
    unsafe { &*instance.0.cast::<PluginInstance>() }
}

/// A handler that goes on after its first poll, as the host may reach it.
struct Handler {
    abort: AbortHandle,
    /// How a task's handler is told that it was cancelled; calls are only dropped.
    cancellation: Option<CancellationToken>,
}

fn running(handle: Option<Handler>) -> Running {
    Running(handle.map_or(std::ptr::null_mut(), |handle| Box::into_raw(Box::new(handle)).cast()))
}

extern "C" fn call(this: Instance, head: CallHead, token: CallToken) -> Running {
    let started = catch_unwind(AssertUnwindSafe(|| call::start(instance(this), head, token))).ok().flatten();
    running(started.map(|abort| Handler { abort, cancellation: None }))
}

extern "C" fn task(this: Instance, head: TaskHead, token: TaskToken) -> Running {
    running(catch_unwind(AssertUnwindSafe(|| run::start(instance(this), head, token))).ok().flatten())
}

extern "C" fn cancel(handle: Running) {
    if handle.0.is_null() {
        return;
    }
    // SAFETY: a non-null `Running` is the boxed `Handler` of `running`, not yet given to `forget`.
    // OWNERSHIP: borrowed. THREADS: `Handler` is `Sync`.
    let handle = unsafe { &*handle.0.cast::<Handler>() };
    let _ = catch_unwind(AssertUnwindSafe(|| handle.abort.abort()));
}

extern "C" fn cancel_softly(handle: Running) {
    if handle.0.is_null() {
        return;
    }
    // SAFETY: as in `cancel`. OWNERSHIP: borrowed. THREADS: `Handler` is `Sync`.
    let handle = unsafe { &*handle.0.cast::<Handler>() };
    // Wakers of the author's making may run here.
    let _ = catch_unwind(AssertUnwindSafe(|| handle.cancellation.as_ref().map(CancellationToken::cancel)));
}

extern "C" fn forget(handle: Running) {
    if handle.0.is_null() {
        return;
    }
    // SAFETY: as in `cancel`; the host calls `forget` once and uses the handle no more.
    // OWNERSHIP: taken here. THREADS: `Handler` is `Send`.
    let handle = unsafe { Box::from_raw(handle.0.cast::<Handler>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(handle)));
}

extern "C" fn drain(this: Instance) {
    let _ = catch_unwind(AssertUnwindSafe(|| instance(this).drain()));
}

extern "C" fn stop(this: Instance, within_ms: u64) {
    let _ =
        catch_unwind(AssertUnwindSafe(|| instance(this).stop(std::time::Duration::from_millis(within_ms))));
}

extern "C" fn health(this: Instance) -> Answer {
    let alive = catch_unwind(AssertUnwindSafe(|| instance(this).is_running())).unwrap_or(false);
    Answer::ok(format!("{{\"ok\":{alive}}}"))
}

extern "C" fn pulse(this: Instance, callback: FfiCallback) {
    let answer = async move { callback.answer(Answer::ok(String::new())) };
    let _ = catch_unwind(AssertUnwindSafe(|| instance(this).handle().spawn(answer)));
}
