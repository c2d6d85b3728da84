//! Calls on the worker's side: from a message to a handler and back.
//!
//! # Invariants
//! * The subscription's loop never waits: a call is refused at once where there is no free place (`busy`), so the
//!   client's buffer never overflows and nobody waits in silence.
//! * A call whose deadline has passed is dropped: nobody listens any more.
//! * Every call stands on the board while it runs, so that the supervisor can answer it if this process dies.
//! * Dropping a call's future cancels its handler: cancel, deadline and drain all end that way.

use super::bodies::{PiecesBody, Rest, split, with_length};
use crate::broker::{Broker, Incoming};
use crate::crash::{Board, Claim, Kind};
use crate::loader::{Answered, Call, Plugin, RequestBody};
use crate::stream::{self, Mux, Silence};
use bytes::Bytes;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, InstanceId, Name, ProblemCode, ReplyKind, Subjects, Text,
};
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// What serving calls needs.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// Calls at the same time, per plugin.
    pub concurrency: usize,
    /// The same for single plugins, by name.
    pub of_plugin: BTreeMap<String, usize>,
    /// Longest silence in a stream.
    pub silence: Silence,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct CallCounters {
    /// Handlers started.
    pub started: AtomicU64,
    /// Refused for want of a free place.
    pub busy: AtomicU64,
    /// Dropped because their deadline had passed.
    pub expired: AtomicU64,
    /// Cancelled by their callers.
    pub cancelled: AtomicU64,
}

/// Serves the calls of a worker's plugins.
#[derive(Debug)]
pub struct Calls {
    pub(super) broker: Broker,
    board: Board,
    subjects: Subjects,
    instance: InstanceId,
    mux: Arc<Mux>,
    pub(super) options: CallOptions,
    running: Mutex<HashMap<CallId, AbortHandle>>,
    /// Told of each call that ends.
    ended: Notify,
    /// Counts.
    pub counters: CallCounters,
}

impl Calls {
    /// Makes the server; [`super::places::Places`] bring it calls.
    #[must_use]
    pub fn new(
        broker: Broker,
        board: Board,
        instance: InstanceId,
        mux: Arc<Mux>,
        options: CallOptions,
    ) -> Arc<Self> {
        let subjects = broker.subjects().clone();
        let (running, ended, counters) = (Mutex::default(), Notify::new(), CallCounters::default());
        Arc::new(Self { broker, board, subjects, instance, mux, options, running, ended, counters })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, AbortHandle>> {
        // Nothing that holds the lock panics.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no call runs, for `grace` at most. Answers how many still do.
    pub async fn idle(&self, grace: Duration) -> usize {
        let all_ended = async {
            while self.in_flight() > 0 {
                self.ended.notified().await;
            }
        };
        let _ = tokio::time::timeout(grace, all_ended).await;
        self.in_flight()
    }

    /// How many calls run.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.running().len()
    }

    /// Cancels a call, where this worker has it.
    pub fn cancel(&self, call: CallId) {
        if let Some(handle) = self.running().remove(&call) {
            handle.abort();
            self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes one call off the wire. Never waits.
    pub fn accept(self: &Arc<Self>, plugin: &Arc<Plugin>, places: &Arc<Semaphore>, message: Incoming) {
        let Some(reply_to) = message.reply().map(str::to_owned) else {
            tracing::debug!("a call without a reply subject was ignored");
            return;
        };
        let request = match CallRequest::decode(message.payload()) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "a call that cannot be read was refused");
                return self.refuse(reply_to, ReplyKind::Refused(Text::from_static("malformed_request")));
            }
        };
        if request.deadline_unix_ms <= self.broker.now_unix_ms() {
            self.counters.expired.fetch_add(1, Ordering::Relaxed);
            return self.refuse(reply_to, ReplyKind::Expired);
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
            return self.refuse(reply_to, ReplyKind::Busy);
        };
        // An API of a newer minor may know more routes.
        let Some(route) = plugin.description.route_index(&request.route) else {
            let code = Text::from_static(ProblemCode::NoWorker.as_str());
            return self.refuse(reply_to, ReplyKind::Refused(code));
        };
        let claim = self.claim(plugin, &request, &self.answers_to(&request, &reply_to));
        let Some(claim) = claim else {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
            return self.refuse(reply_to, ReplyKind::Busy);
        };
        self.counters.started.fetch_add(1, Ordering::Relaxed);
        let (this, plugin, call_id) = (self.clone(), plugin.clone(), request.call_id);
        // Held over the spawn, so that the entry is there before the task can remove it.
        let mut running = self.running();
        let task = tokio::spawn(async move {
            let done = Done { calls: &this, call: call_id };
            this.run(&plugin, route, request, reply_to, place, claim).await;
            drop(done);
        });
        running.insert(call_id, task.abort_handle());
    }

    /// Where the final reply goes: the first reply to a streamed request says only "go ahead".
    fn answers_to(&self, request: &CallRequest, reply_to: &str) -> String {
        match request.body {
            CallBody::Whole(_) => reply_to.to_owned(),
            CallBody::Stream => self.callio(&request.caller_instance, request.call_id),
        }
    }

    fn callio(&self, instance: &str, call: CallId) -> String {
        // The name was checked when the request was decoded.
        InstanceId::new(instance).map(|peer| self.subjects.callio(&peer, call)).unwrap_or_default()
    }

    fn claim(&self, plugin: &Plugin, request: &CallRequest, subject: &str) -> Option<Claim> {
        let claim = self.board.claim(
            Kind::Call,
            request.request_id,
            subject,
            &plugin.identity.name,
            &request.route,
            1,
            request.deadline_unix_ms,
        );
        match claim {
            Ok(claim) => Some(claim),
            Err(error) => {
                tracing::warn!(%error, "a call could not be noted on the board");
                None
            }
        }
    }

    pub(super) fn refuse(self: &Arc<Self>, reply_to: String, kind: ReplyKind) {
        let this = self.clone();
        tokio::spawn(
            async move { this.send(&reply_to, &CallReply::bare(kind, this.instance.as_str())).await },
        );
    }

    async fn send(&self, subject: &str, reply: &CallReply) {
        let sent = match reply.encode() {
            Ok(bytes) => {
                self.broker.publish(subject.to_owned(), bytes).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            tracing::warn!(error, "a reply could not be sent");
        }
    }

    async fn run(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        route: u32,
        request: CallRequest,
        reply_to: String,
        place: OwnedSemaphorePermit,
        claim: Claim,
    ) {
        let answers_to = self.answers_to(&request, &reply_to);
        let left_ms = request.deadline_unix_ms.saturating_sub(self.broker.now_unix_ms());
        let peer = self.callio(&request.caller_instance, request.call_id);
        let (body, stream) = match request.body {
            CallBody::Whole(body) => (body, None),
            CallBody::Stream => {
                let inbox = self.mux.inbox(request.call_id);
                self.send(&reply_to, &CallReply::bare(ReplyKind::GoAhead, self.instance.as_str())).await;
                let pieces = stream::receive(self.broker.clone(), peer.clone(), inbox, self.options.silence);
                (Bytes::new(), Some(Box::pin(PiecesBody(pieces)) as RequestBody))
            }
        };
        let call = Call {
            route,
            request_id: request.request_id,
            deadline_unix_ms: request.deadline_unix_ms,
            headers: request.header_block,
            body,
            stream,
        };
        let Ok((answered, running)) =
            tokio::time::timeout(Duration::from_millis(left_ms), plugin.call(call)).await
        else {
            return self
                .send(&answers_to, &CallReply::bare(ReplyKind::Expired, self.instance.as_str()))
                .await;
        };
        match answered {
            Answered::Response { status, headers, body } => {
                let (whole, rest) = split(body);
                let headers = match &rest {
                    Some(Rest::Nothing) => with_length(headers, whole.len()),
                    _ => headers,
                };
                let reply = CallReply {
                    kind: ReplyKind::Done,
                    status: status.as_u16(),
                    worker_instance: Text::from(self.instance.as_str()),
                    header_block: headers,
                    body: if rest.is_some() { CallBody::Stream } else { CallBody::Whole(whole.clone()) },
                    ext: Bytes::new(),
                };
                match rest {
                    None => self.reply(&answers_to, &reply).await,
                    Some(rest) => self.stream(request.call_id, &answers_to, &peer, &reply, whole, rest).await,
                }
                drop(running);
            }
            Answered::Panicked(text) => {
                self.failed(plugin, &request.route, &answers_to, ProblemCode::HandlerPanicked, &text).await
            }
            Answered::Failed(text) => {
                self.failed(plugin, &request.route, &answers_to, ProblemCode::PluginError, &text).await
            }
        }
        // The place and the entry on the board are held until the reply is on its way.
        drop((place, claim));
    }

    async fn reply(&self, subject: &str, reply: &CallReply) {
        match reply.encode() {
            Ok(bytes) => {
                if let Err(error) = self.broker.publish(subject.to_owned(), bytes).await {
                    tracing::warn!(%error, "a reply could not be sent");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a reply exceeds what the wire carries");
                let refused = ReplyKind::Refused(Text::from_static(ProblemCode::ReplyTooLarge.as_str()));
                self.send(subject, &CallReply::bare(refused, self.instance.as_str())).await;
            }
        }
    }

    async fn stream(
        &self,
        call: CallId,
        head_to: &str,
        frames_to: &str,
        head: &CallReply,
        first: Bytes,
        rest: Rest,
    ) {
        // Open before the head goes out: the credit that answers it must find somebody.
        let credits = self.mux.credits(call);
        self.reply(head_to, head).await;
        let mut rest = rest;
        let rest = futures_util::stream::poll_fn(move |cx| match &mut rest {
            Rest::Pieces(pieces) => pieces.poll_recv(cx),
            Rest::Nothing => Poll::Ready(None),
        });
        let body = futures_util::stream::iter([Ok(first)]).chain(rest);
        if let Err(reason) = stream::send(&self.broker, frames_to, &credits, self.options.silence, body).await
        {
            tracing::warn!(reason, %call, "a streamed reply broke");
        }
    }

    async fn failed(&self, plugin: &Plugin, route: &str, subject: &str, code: ProblemCode, text: &str) {
        let (name, version) = (&*plugin.identity.name, &*plugin.identity.version);
        tracing::error!(
            plugin = name,
            version,
            route,
            error = text,
            code = code.as_str(),
            "a handler failed"
        );
        let kind = ReplyKind::Refused(Text::from_static(code.as_str()));
        self.send(subject, &CallReply::bare(kind, self.instance.as_str())).await;
    }
}

/// Takes a call off the list of running ones, however it ends.
struct Done<'a> {
    calls: &'a Calls,
    call: CallId,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.calls.running().remove(&self.call);
        self.calls.ended.notify_one();
    }
}

/// The subject of a plugin's calls.
#[must_use]
pub fn subject(subjects: &Subjects, plugin: &Plugin) -> Option<String> {
    let name = Name::new(&plugin.identity.name).ok()?;
    Some(subjects.calls_of_plugin(&name, plugin.identity.major))
}
