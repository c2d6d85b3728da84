//! A loaded plugin, and what can be asked of it. A room with `unsafe` only where a context is leaked.

use super::answer::{Answered, Attempt, Outcome, RequestBody};
use super::call_side::CallSide;
use super::description::Description;
use super::inspect::Manifest;
use super::lending::{Lending, Loan};
use super::neighbours::Neighbours;
use super::plugin_host::{PluginHost, vtable};
use super::refusal::{Code, Refusal};
use super::services::{Identity, Services};
use super::set::Source;
use super::span;
use super::task_side::TaskSide;
use crate::crash::{Board, Claim, Kind};
use abi_stable::prefix_type::PrefixTypeTrait;
use bytes::Bytes;
use cardcage_abi::{
    CallHead, FfiBytes, FfiCallback, HostCtx, HostRef, InitHead, Instance, PluginRef, RootRef, Running,
    TaskHead, code, headers,
};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// A library that was opened and described, but not started.
pub(super) struct Opened {
    pub(super) manifest: Manifest,
    pub(super) file: PathBuf,
    pub(super) description: Arc<Description>,
    vtable: PluginRef,
}

impl Opened {
    /// Runs `describe`, and lays the operator's limits over the tasks'.
    pub(super) fn describe(
        root: RootRef,
        manifest: Manifest,
        file: &Path,
        source: &Source,
    ) -> Result<Self, Refusal> {
        let vtable = root.plugin();
        let (_, mut description) = Self::declared(vtable, &manifest, file)?;
        description.lay_over_all(source);
        Ok(Self { manifest, file: file.to_owned(), description: Arc::new(description), vtable })
    }

    /// Runs `describe`: what the library says, as it wrote it and as it was understood.
    pub(super) fn declared(
        vtable: PluginRef,
        manifest: &Manifest,
        file: &Path,
    ) -> Result<(String, Description), Refusal> {
        let refuse =
            |code, fault: String, remedy: &str| Refusal::new(file, code, fault, remedy).of(&manifest.name);
        let answer = (vtable.describe())();
        if answer.code != code::OK {
            let fault = format!("panicked while it described itself ({})", answer.value.to_text());
            return Err(refuse(Code::DescribeFailed, fault, "mend the plugin's `build` expression"));
        }
        let bad = |fault| refuse(Code::BadDescription, fault, "mend the plugin");
        let description = Description::parse(answer.value.as_slice()).map_err(bad)?;
        if description.name != manifest.name || description.version != manifest.version {
            let fault = format!(
                "describes itself as {} {}, but its manifest says {} {}",
                description.name, description.version, manifest.name, manifest.version
            );
            return Err(refuse(Code::NameMismatch, fault, "build it again from one source"));
        }
        Ok((answer.value.to_text().into_owned(), description))
    }

    /// Runs `init`. Blocks until the plugin has started or failed.
    pub(super) fn init(self, start: &InitOptions<'_>) -> Result<Plugin, Refusal> {
        let identity = Identity {
            name: Arc::from(self.manifest.name.as_str()),
            version: Arc::from(self.manifest.version.as_str()),
            major: self.manifest.major().unwrap_or(0),
        };
        let config = Bytes::from(serde_json::to_vec(start.config).unwrap_or_default());
        let host: &'static PluginHost = Box::leak(Box::new(PluginHost {
            identity: identity.clone(),
            description: self.description.clone(),
            neighbours: start.neighbours.clone(),
            index: start.index,
            config: config.clone(),
            services: start.services.clone(),
            runtime: start.runtime.clone(),
            board: start.board,
        }));
        let head = InitHead {
            config: FfiBytes::from_owner(config),
            log_filter: FfiBytes::from(start.log_filter.to_owned()),
            threads: start.threads,
            ext: FfiBytes::empty(),
        };
        static VTABLE: OnceLock<HostRef> = OnceLock::new();
        let host_vtable = *VTABLE.get_or_init(|| vtable().leak_into_prefix());
        // Before its code goes on: a crash report tells by the address whose code it was.
        if let (Some(board), Some(mapped)) = (start.board, span::around(self.vtable.describe() as usize)) {
            board.note_library(start.index, &mapped);
        }
        let reply = (self.vtable.init())(host_vtable, HostCtx(std::ptr::from_ref(host).cast()), head);
        let text = reply.answer.value.to_text();
        let refuse = |fault: String, remedy: &str| {
            Refusal::new(&self.file, Code::InitFailed, fault, remedy).of(&self.manifest.name)
        };
        match reply.answer.code {
            code::OK if !reply.instance.0.is_null() => {}
            code::PANICKED => {
                return Err(refuse(format!("panicked in its init ({text})"), "mend the plugin"));
            }
            _ => {
                let name = &self.manifest.name;
                let remedy =
                    format!("mend its settings under `plugins.{name}.config`, or what it needs to start");
                return Err(refuse(format!("could not start ({text})"), &remedy));
            }
        }
        let Self { file, description, vtable, .. } = self;
        let (instance, lending, board) = (reply.instance, start.lending.clone(), start.board);
        lending.introduce(start.index, &identity.name, &identity.version, board);
        Ok(Plugin { identity, file, description, index: start.index, vtable, instance, lending, board })
    }
}

/// What `init` needs besides the library.
pub(super) struct InitOptions<'a> {
    pub(super) index: u32,
    pub(super) config: &'a serde_json::Value,
    pub(super) log_filter: &'a str,
    pub(super) threads: u32,
    pub(super) services: Arc<dyn Services>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) board: Option<Board>,
    pub(super) lending: Arc<Lending>,
    pub(super) neighbours: Arc<Neighbours>,
}

/// A started plugin. Dropping it stops nothing: a library stays until the process ends.
pub struct Plugin {
    /// Name, version and major.
    pub identity: Identity,
    /// The library it came from.
    pub file: PathBuf,
    /// What it declares.
    pub description: Arc<Description>,
    /// Its number in this process, from 1, as the board has it.
    pub index: u32,
    vtable: PluginRef,
    instance: Instance,
    lending: Arc<Lending>,
    board: Option<Board>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("identity", &self.identity)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A request for one of a plugin's routes.
pub struct Call {
    /// The route's place in the description.
    pub route: u32,
    /// 16 random bytes.
    pub request_id: [u8; 16],
    /// Milliseconds since the Unix epoch.
    pub deadline_unix_ms: u64,
    /// Header block with `:method` and `:path`.
    pub headers: Bytes,
    /// The whole body, where it does not stream.
    pub body: Bytes,
    /// A body that streams.
    pub stream: Option<RequestBody>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("body_bytes", &self.body.len())
            .field("streams", &self.stream.is_some())
            .finish()
    }
}

impl Plugin {
    /// Starts a route's handler: on the plugin's runtime, or with one poll on this thread where it is short and this
    /// thread can be spared. Dropping the future before its end cancels the handler.
    pub fn call(&self, call: Call) -> CallFuture {
        let (reply, answered) = oneshot::channel();
        let streaming = u8::from(call.stream.is_some());
        let token = CallSide::new(reply, call.stream).into_token();
        let loan = self.lending.lend(self.index);
        let head = CallHead {
            request_id: call.request_id,
            deadline_unix_ms: call.deadline_unix_ms,
            headers: FfiBytes::from_owner(call.headers),
            body: FfiBytes::from_owner(call.body),
            route: call.route,
            streaming,
            in_place: u8::from(loan.is_some()),
            ext: FfiBytes::empty(),
        };
        let running = (self.vtable.call())(self.instance, head, token);
        self.ended(loan, running);
        CallFuture { answered, running: Some(Handle { vtable: self.vtable, running }) }
    }

    /// Notes that a route's handler runs for a caller of this process, until the claim is dropped. `None` where there is no
    /// room: nothing hangs on it but what is said should the handler crash the process.
    #[must_use]
    pub fn note_inline(&self, route: &str, request_id: [u8; 16], deadline_unix_ms: u64) -> Option<Claim> {
        let name = &*self.identity.name;
        self.board?.claim(Kind::Inline, request_id, "", name, route, 1, deadline_unix_ms).ok()
    }

    /// Starts an attempt of a task, where [`call`](Self::call) starts a route's. Dropping the future before its end cancels the handler.
    pub fn start(&self, attempt: Attempt) -> TaskStart {
        let (outcome, ended) = oneshot::channel();
        let loan = self.lending.lend(self.index);
        let ext = attempt.soft_deadline_unix_ms.map_or_else(FfiBytes::empty, |soft_ms| {
            let mut ext = Vec::new();
            headers::push(&mut ext, headers::SOFT_DEADLINE_MS, soft_ms.to_string().as_bytes());
            FfiBytes::from_owner(Bytes::from(ext))
        });
        let head = TaskHead {
            task_id: attempt.task_id,
            task: attempt.task,
            attempt: attempt.attempt,
            deadline_unix_ms: attempt.deadline_unix_ms,
            enqueued_unix_ms: attempt.enqueued_unix_ms,
            headers: FfiBytes::from_owner(attempt.headers),
            body: FfiBytes::from_owner(attempt.body),
            in_place: u8::from(loan.is_some()),
            ext,
        };
        let running = (self.vtable.task())(self.instance, head, TaskSide::token(outcome));
        self.ended(loan, running);
        TaskStart { ended, handle: Handle { vtable: self.vtable, running } }
    }

    fn ended(&self, loan: Option<Loan<'_>>, running: Running) {
        if loan.is_some() && running.0.is_null() {
            self.lending.count_ended_in_place();
        }
    }

    /// Asks the plugin's runtime for a sign of life, which comes as soon as one of its threads has a moment; an error says
    /// that the runtime was stopped.
    #[must_use]
    pub fn pulse(&self) -> oneshot::Receiver<()> {
        let (beat, beaten) = oneshot::channel();
        // Nobody may listen any more.
        (self.vtable.pulse())(
            self.instance,
            FfiCallback::new(move |_| {
                let _ = beat.send(());
            }),
        );
        beaten
    }

    /// Tells the plugin that the host is about to stop.
    pub fn drain(&self) {
        (self.vtable.drain())(self.instance);
    }

    /// Stops the plugin's runtime. Blocks for `within` at most.
    pub fn stop(&self, within: Duration) {
        (self.vtable.stop())(self.instance, u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
    }

    /// The plugin's own word on its health, as JSON.
    #[must_use]
    pub fn health(&self) -> String {
        (self.vtable.health())(self.instance).value.to_text().into_owned()
    }
}

/// The plugin's handle of a running handler: cancelled where it is dropped before the end was seen.
struct Handle {
    vtable: PluginRef,
    running: Running,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handle").field(&self.running.0).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // After the end this is a no-op on the plugin's side.
        (self.vtable.cancel())(self.running);
        (self.vtable.forget())(self.running);
    }
}

/// A handler at work.
#[derive(Debug)]
pub struct CallFuture {
    answered: oneshot::Receiver<Answered>,
    running: Option<Handle>,
}

/// Keeps the handler of a streaming reply alive; dropping it cancels the handler.
#[derive(Debug)]
pub struct KeepRunning(#[allow(dead_code, reason = "held for its Drop")] Option<Handle>);

impl Future for CallFuture {
    type Output = (Answered, KeepRunning);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = std::task::ready!(Pin::new(&mut self.answered).poll(cx));
        let answered =
            answered.unwrap_or_else(|_| Answered::Failed("the handler ended without an answer".into()));
        Poll::Ready((answered, KeepRunning(self.running.take())))
    }
}

/// An attempt at work.
#[derive(Debug)]
pub struct TaskStart {
    ended: oneshot::Receiver<Outcome>,
    handle: Handle,
}

impl TaskStart {
    /// Tells the handler that its task was cancelled; how it ends is its own affair. To drop it, drop this.
    pub fn cancel_softly(&self) {
        (self.handle.vtable.cancel_softly())(self.handle.running);
    }
}

impl Future for TaskStart {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let ended = std::task::ready!(Pin::new(&mut self.ended).poll(cx));
        Poll::Ready(ended.unwrap_or(Outcome::Dropped))
    }
}
