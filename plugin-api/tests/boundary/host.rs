//! A host of the tests' own. Its tokens are numbers, not pointers: nothing here is unsafe, and what a plugin does with
//! a token after giving it back is noticed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use plugin_api::Definition;
use plugin_api::abi::abi_stable::prefix_type::PrefixTypeTrait;
use plugin_api::abi::{
    Answer, AskHead, CallHead, CallOut, CallToken, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, Host,
    HostCtx, HostRef, InitHead, InitReply, Instance, LogRecord, MetricRecord, Plugin, Reply, Running,
    SpanRecord, TaskHead, TaskNote, TaskReply, TaskToken, code, headers,
};
use serde_json::Value;

/// What a plugin did with one token.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) replies: Vec<Reply>,
    pub(crate) outcomes: Vec<TaskReply>,
    pub(crate) releases: usize,
    /// Pieces of the request's body that are to come; then its end, or where `breaks`, its break.
    pub(crate) pieces: VecDeque<Vec<u8>>,
    pub(crate) breaks: bool,
    /// How often `body_ready` still says "not yet".
    pub(crate) not_ready: usize,
    pub(crate) pushed: Vec<u8>,
    pub(crate) ended: Option<String>,
    pub(crate) progress: Vec<Value>,
}

#[derive(Default)]
struct State {
    held: HashMap<usize, Held>,
    polled: Vec<[u8; 16]>,
    polling: HashMap<ThreadId, [u8; 16]>,
}

/// What changes while a test waits for it.
struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

static STATE: LazyLock<Watched<State>> = LazyLock::new(Watched::new);
/// Apart, because the SDK's panic hook logs: an assertion may fail while the state is locked.
static LOGGED: LazyLock<Watched<Vec<String>>> = LazyLock::new(Watched::new);
static NEXT: AtomicUsize = AtomicUsize::new(1);

impl<T: Default> Watched<T> {
    fn new() -> Self {
        Self { value: Mutex::default(), changed: Condvar::new() }
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    /// Waits until it gives a value.
    fn wait<R>(&self, what: &str, mut wanted: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut value = self.value.lock().unwrap();
        loop {
            if let Some(wanted) = wanted(&mut value) {
                return wanted;
            }
            let (next, waited) = self.changed.wait_timeout(value, Duration::from_secs(30)).unwrap();
            value = next;
            if waited.timed_out() {
                drop(value);
                panic!("this never became so: {what}");
            }
        }
    }
}

fn held<T>(place: usize, what: impl FnOnce(&mut Held) -> T) -> T {
    STATE.change(|state| {
        let held = state.held.get_mut(&place).expect("a token that the host gave");
        assert_eq!(held.releases, 0, "a token is not used after it was given back");
        what(held)
    })
}

extern "C" fn complete(token: CallToken, reply: Reply) {
    held(token.0.addr(), |held| held.replies.push(reply));
}
extern "C" fn body_poll(token: CallToken, waker: FfiWaker, out: &mut FfiBytes) -> u32 {
    held(token.0.addr(), |held| match held.pieces.pop_front() {
        // An empty piece stands for "not yet".
        Some(piece) if piece.is_empty() => {
            std::thread::spawn(|| waker.wake());
            code::PENDING
        }
        Some(piece) => {
            *out = FfiBytes::from(piece);
            code::READY
        }
        None if held.breaks => code::BROKEN,
        None => code::END,
    })
}
extern "C" fn body_ready(token: CallToken, waker: FfiWaker) -> u32 {
    held(token.0.addr(), |held| {
        if held.not_ready == 0 {
            return code::READY;
        }
        held.not_ready -= 1;
        std::thread::spawn(|| waker.wake());
        code::PENDING
    })
}
extern "C" fn body_push(token: CallToken, piece: FfiBytes) -> u32 {
    held(token.0.addr(), |held| held.pushed.extend_from_slice(piece.as_slice()));
    code::READY
}
extern "C" fn body_end(token: CallToken, error: FfiBytes) {
    held(token.0.addr(), |held| held.ended = Some(error.to_text().into_owned()));
}
extern "C" fn call_release(token: CallToken) {
    held(token.0.addr(), |held| held.releases += 1);
}
extern "C" fn task_complete(token: TaskToken, reply: TaskReply) {
    held(token.0.addr(), |held| held.outcomes.push(reply));
}
extern "C" fn task_release(token: TaskToken) {
    held(token.0.addr(), |held| held.releases += 1);
}
extern "C" fn enqueue(_: HostCtx, _: EnqueueHead, callback: FfiCallback) {
    callback.answer(Answer::error(code::UNAVAILABLE, "no broker in this test"));
}
extern "C" fn call(_: HostCtx, _: CallOut, callback: FfiCallback) {
    callback.answer(Answer::error(code::REJECTED, "no other plugin in this test"));
}
#[allow(clippy::print_stderr, reason = "the SDK's panic hook sends failed assertions here")]
extern "C" fn log(_: HostCtx, record: LogRecord) {
    let body = record.body.to_text().into_owned();
    eprintln!("{} {body}", record.target.to_text());
    LOGGED.change(|logged| logged.push(body));
}
extern "C" fn span(_: HostCtx, _: SpanRecord) {}
extern "C" fn now_unix_ns(_: HostCtx) -> u64 {
    1_700_000_000_000_000_000
}
extern "C" fn config(_: HostCtx) -> FfiBytes {
    FfiBytes::from_static(b"{}")
}
extern "C" fn metric(_: HostCtx, _: MetricRecord) {}
extern "C" fn ask(_: HostCtx, _: AskHead, callback: FfiCallback) {
    callback.answer(Answer::error(code::REJECTED, "nothing can be asked here"));
}

extern "C" fn task_progress(_: HostCtx, note: TaskNote) {
    let place = usize::try_from(u128::from_be_bytes(note.task_id)).unwrap();
    held(place, |held| held.progress.push(serde_json::from_slice(note.value.as_slice()).unwrap()));
}

extern "C" fn polling(_: HostCtx, id: &[u8; 16]) {
    STATE.change(|state| {
        state.polling.insert(std::thread::current().id(), *id);
        state.polled.push(*id);
    });
}

static VTABLE: LazyLock<HostRef> = LazyLock::new(|| {
    let host = Host {
        complete,
        body_poll,
        body_ready,
        body_push,
        body_end,
        call_release,
        task_complete,
        task_release,
        enqueue,
        call,
        log,
        span,
        now_unix_ns,
        config,
        metric,
        polling,
        task_progress,
        ask,
    };
    host.leak_into_prefix()
});

/// Runs a plugin's `init`.
pub(crate) fn init(plugin: &Plugin, config: &Value) -> InitReply {
    let head = InitHead {
        config: FfiBytes::from(config.to_string()),
        log_filter: FfiBytes::from_static(b"info"),
        threads: 2,
        ext: FfiBytes::empty(),
    };
    (plugin.init)(*VTABLE, HostCtx(std::ptr::without_provenance(1)), head)
}

/// A started plugin.
pub(crate) struct Started {
    pub(crate) plugin: Plugin,
    pub(crate) instance: Instance,
}

impl Started {
    pub(crate) fn new<D: Definition>(config: &Value) -> Self {
        let plugin = plugin_api::glue::vtable::<D>();
        let reply = init(&plugin, config);
        assert_eq!(reply.answer.code, code::OK, "{}", reply.answer.value.to_text());
        Self { plugin, instance: reply.instance }
    }

    /// Starts a handler for `METHOD path`, whose body is `held.pieces` where it streams.
    pub(crate) fn call(&self, method: &str, path: &str, body: Body) -> Call<'_> {
        let mut block = Vec::new();
        headers::push(&mut block, headers::METHOD, method.as_bytes());
        headers::push(&mut block, headers::PATH, path.as_bytes());
        self.call_with(block, body)
    }

    pub(crate) fn call_with(&self, block: Vec<u8>, body: Body) -> Call<'_> {
        self.start(block, body, 0, 0)
    }

    /// A `GET` of the route in this place, lending this thread.
    pub(crate) fn call_lent(&self, route: u32, path: &str) -> Call<'_> {
        let mut block = Vec::new();
        headers::push(&mut block, headers::METHOD, b"GET");
        headers::push(&mut block, headers::PATH, path.as_bytes());
        self.start(block, none(), route, 1)
    }

    fn start(&self, block: Vec<u8>, body: Body, route: u32, in_place: u8) -> Call<'_> {
        let place = NEXT.fetch_add(1, Ordering::SeqCst);
        let (whole, streaming, held) = match body {
            Body::Whole(bytes) => (bytes.into(), 0, Held::default()),
            Body::Stream(held) => (FfiBytes::empty(), 1, held),
        };
        STATE.change(|state| state.held.insert(place, held));
        let head = CallHead {
            request_id: id(place),
            deadline_unix_ms: u64::MAX,
            headers: FfiBytes::from(block),
            body: whole,
            route,
            streaming,
            in_place,
            ext: FfiBytes::empty(),
        };
        let token = CallToken(std::ptr::without_provenance(place));
        let running = (self.plugin.call)(self.instance, head, token);
        Call { started: self, place, running }
    }

    /// Runs one attempt of the task at this place in the list to its end.
    pub(crate) fn attempt(&self, task: u32, body: &str) -> Held {
        self.start_attempt(task, body).end()
    }

    /// Starts one attempt.
    pub(crate) fn start_attempt(&self, task: u32, body: &str) -> Call<'_> {
        let place = NEXT.fetch_add(1, Ordering::SeqCst);
        STATE.change(|state| state.held.insert(place, Held::default()));
        let head = TaskHead {
            task_id: id(place),
            task,
            attempt: 1,
            deadline_unix_ms: u64::MAX,
            enqueued_unix_ms: 0,
            headers: FfiBytes::empty(),
            body: FfiBytes::from(body.to_owned()),
            in_place: 0,
            ext: FfiBytes::empty(),
        };
        let token = TaskToken(std::ptr::without_provenance(place));
        let running = (self.plugin.task)(self.instance, head, token);
        Call { started: self, place, running }
    }
}

/// A request's body.
pub(crate) enum Body {
    Whole(Vec<u8>),
    Stream(Held),
}

pub(crate) fn none() -> Body {
    Body::Whole(Vec::new())
}

/// The id of the request or task that has this token.
pub(crate) fn id(place: usize) -> [u8; 16] {
    u128::try_from(place).unwrap().to_be_bytes()
}

/// A handler at work. Forgotten, as a host does it, at its end.
pub(crate) struct Call<'a> {
    started: &'a Started,
    place: usize,
    running: Running,
}

impl Call<'_> {
    pub(crate) fn id(&self) -> [u8; 16] {
        id(self.place)
    }

    pub(crate) fn cancel(&self) {
        (self.started.plugin.cancel)(self.running);
    }

    pub(crate) fn cancel_softly(&self) {
        (self.started.plugin.cancel_softly)(self.running);
    }

    /// Whether it had ended when `call` returned.
    pub(crate) fn ended_in_place(&self) -> bool {
        self.running.0.is_null()
    }

    /// Waits until the plugin has given the token back, and says what it did with it.
    pub(crate) fn end(self) -> Held {
        let released = |state: &mut State| state.held.get(&self.place).is_some_and(|held| held.releases > 0);
        STATE.wait("the token is given back", |state| released(state).then_some(()));
        self.cancel();
        STATE.wait("it is gone", |state| state.held.remove(&self.place))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        (self.started.plugin.forget)(self.running);
    }
}

/// Waits until a log event holds this text.
pub(crate) fn wait_logged(text: &str) -> Value {
    let event = LOGGED.wait(text, |logged| logged.iter().find(|event| event.contains(text)).cloned());
    serde_json::from_str(&event).unwrap()
}

/// Waits until this was polled, and no thread says that it still is.
pub(crate) fn wait_polled_and_left(id: [u8; 16]) {
    STATE.wait("it was polled and left", |state| {
        let left = state.polling.values().all(|now| *now != id);
        (state.polled.contains(&id) && left).then_some(())
    });
}
