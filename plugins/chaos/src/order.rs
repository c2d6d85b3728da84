//! What to do wrong: the body of a request, and which of it a call and a task have in common.

use crate::seen::Run;
use plugin_api::prelude::*;
use std::time::Instant;

/// The most that is ever allocated for one request, in MiB.
const MEBIBYTES_MAX: u32 = 256;

/// How to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Answers.
    Ok,
    /// A call: problem 500. A task: asks for a retry.
    Fail,
    /// A call: problem 422. A task: fails for good.
    FailForGood,
    /// A call: problem 409. A task: discards itself.
    Discard,
    /// A call: 503 with `Retry-After: ceil(ms / 1000)`. A task: asks for a retry after `ms`.
    RetryAfter,
    /// A task: fails until attempt number `times`. A call: until the `times`th such call of this process.
    FailUntil,
    /// Panics.
    Panic,
    /// Panics in a destructor, after `ms`: when the handler ends, or when it is cancelled before.
    PanicInDrop,
    /// Waits `ms` without holding a thread.
    Sleep,
    /// A task: waits until it is cancelled, then answers.
    AwaitCancel,
    /// A task: waits until it is cancelled, then asks for a retry.
    FailWhenCancelled,
    /// A task: enqueues one of the same kind that only answers, to run in `ms`, then answers.
    Enqueue,
    /// A task: waits until its soft time limit, then asks for a retry.
    UntilNear,
    /// A task: tells its progress `times` times (at least 1), `ms` apart, then answers.
    Progress,
    /// Waits `ms` holding its thread.
    Block,
    /// Computes for `ms`, holding its thread.
    Spin,
    /// Calls `abort`.
    Abort,
    /// Calls `abort` after `ms` on a thread of its own, while the handler waits.
    AbortAside,
    /// Writes where there is no memory.
    Segfault,
    /// Writes where there is no memory, after `ms`, on a thread of its own, while the handler waits.
    SegfaultAside,
    /// Reads of a file that was cut off after it was mapped.
    ReadBeyondEnd,
    /// Calls itself until its stack is used up.
    OverflowStack,
    /// Calls itself until its stack is used up, after `ms`, on a thread of its own, while the handler waits.
    OverflowStackAside,
    /// Fills `times` MiB of memory (at least 1), and holds them for `ms`.
    Hoard,
    /// Calls `exit(0)`.
    Exit,
    /// Calls `exit(0)` after `ms` on a thread of its own, while the handler waits.
    ExitAside,
    /// Answers with `times` MiB (at least 1).
    HugeReply,
    /// Fails with a text of `times` MiB (at least 1); a task with `ms` asks for a retry with it.
    BigError,
    /// A call: answers with bytes and a header that are not UTF-8. A task: fails with a text that is none.
    NonUtf8,
    /// A call: answers with `times` pieces (at least 1), `ms` apart.
    SlowStream,
    /// A call: answers with a piece, then breaks the stream after `ms`.
    BrokenStream,
    /// Spawns, waits for a timer and sends bytes over a socket; answers what it saw.
    Spawn,
}

/// The body of a request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) mode: Mode,
    /// Milliseconds.
    #[serde(default)]
    pub(crate) ms: u64,
    /// See the mode. For the ways in which a task fails or dies: how many attempts do, the others answer; 0: all.
    #[serde(default)]
    pub(crate) times: u32,
    /// A task: answered with the result, so that its sender knows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// A task: first enqueues so many of the task `chaos`, which answer, for `ms` later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) children: u32,
    /// The children are published at once, and not with the task's success.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) now: bool,
    /// The children are enqueued all in one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) together: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Order {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_millis(self.ms)
    }

    /// What its children do: answer.
    pub(crate) fn child() -> Self {
        Self { mode: Mode::Ok, ms: 0, times: 0, note: None, children: 0, now: false, together: false }
    }

    /// `times`, where at least one is meant.
    pub(crate) fn count(&self) -> u32 {
        self.times.max(1)
    }

    /// A text of `times` MiB.
    pub(crate) fn text(&self) -> String {
        let mebibytes = usize::try_from(self.count().min(MEBIBYTES_MAX)).unwrap_or(1);
        "x".repeat(mebibytes << 20)
    }

    /// A text that is none.
    pub(crate) fn no_text() -> String {
        // SAFETY: a string must be UTF-8, and this one is not, on purpose: a plugin in another language need not keep that
        // promise, and tests see that the host survives it. Nothing but the JSON writer reads it, which copies its bytes.
        // OWNERSHIP: the caller's. THREADS: any.
        unsafe { String::from_utf8_unchecked(b"caf\xe9 \xff\xfe is closed".to_vec()) }
    }

    /// Whether a task's attempt still misbehaves.
    pub(crate) fn holds_for(&self, attempt: u32) -> bool {
        self.times == 0 || attempt <= self.times
    }

    /// Does what needs no answer of its own; a mode that is about the answer returns at once.
    pub(crate) async fn carry_out(&self) {
        match self.mode {
            Mode::Panic => panic_now("panicked as told"),
            Mode::PanicInDrop => {
                let _bomb = Bomb;
                tokio::time::sleep(self.time()).await;
            }
            Mode::Sleep => tokio::time::sleep(self.time()).await,
            Mode::Block => std::thread::sleep(self.time()),
            Mode::Spin => spin(self.time()),
            Mode::Abort => std::process::abort(),
            Mode::AbortAside => aside(self.time(), || std::process::abort()).await,
            Mode::Segfault => segfault(),
            Mode::SegfaultAside => aside(self.time(), segfault).await,
            Mode::ReadBeyondEnd => read_beyond_end().unwrap_or_default(),
            Mode::OverflowStack => use_up_stack(),
            Mode::OverflowStackAside => aside(self.time(), use_up_stack).await,
            Mode::Hoard => {
                let hoard = self.text();
                tokio::time::sleep(self.time()).await;
                drop(std::hint::black_box(hoard));
            }
            Mode::Exit => std::process::exit(0),
            Mode::ExitAside => aside(self.time(), || std::process::exit(0)).await,
            _ => {}
        }
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_now("panicked in a destructor as told");
    }
}

#[allow(clippy::panic, reason = "that is what it was asked for")]
pub(crate) fn panic_now(text: &'static str) {
    panic!("{text}");
}

async fn aside(time: Duration, end: fn()) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        end();
    });
    std::future::pending::<()>().await;
}

fn use_up_stack() {
    let _ = overflow_stack(1);
}

#[expect(unconditional_recursion, reason = "that is what it was asked for")]
fn overflow_stack(depth: u64) -> u64 {
    let filler = std::hint::black_box([depth; 64]);
    overflow_stack(depth + 1) + filler.iter().sum::<u64>()
}

fn spin(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn segfault() {
    let nowhere = std::ptr::without_provenance_mut::<u8>(8);
    // SAFETY: none, on purpose: the first page is never mapped, so that the kernel ends the process with SIGSEGV.
    // Tests ask for it, to see that the host survives it. OWNERSHIP: nobody's. THREADS: any.
    unsafe { nowhere.write_volatile(1) };
}

/// Returns only where there can be no such file.
fn read_beyond_end() -> std::io::Result<()> {
    let name = format!("cardcage-chaos-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.set_len(4_096)?;
    // SAFETY: whoever maps a file promises that nobody cuts it off, and this one is cut off on purpose: the kernel answers
    // the read below with SIGBUS, and tests see that the host survives it. OWNERSHIP: the mapping's. THREADS: any.
    let mapped = unsafe { memmap2::Mmap::map(&file) }?;
    file.set_len(0)?;
    // SAFETY: as above. OWNERSHIP and THREADS: the same.
    std::hint::black_box(unsafe { mapped.as_ptr().read_volatile() });
    Ok(())
}

/// What [`Mode::Spawn`] saw.
#[derive(Debug, PartialEq, Serialize, JsonSchema, ToSchema)]
pub(crate) struct Spawned {
    /// A spawned task ran and was joined.
    pub(crate) spawned: bool,
    /// A timer fired, not before its time.
    pub(crate) timer: bool,
    /// What came back over a loopback connection.
    pub(crate) echo: String,
    /// The thread's name.
    pub(crate) thread: String,
}

/// Uses what only a tokio runtime with its drivers offers.
pub(crate) async fn use_runtime() -> std::io::Result<Spawned> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await
    });
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"ping").await?;
    let mut echo = String::new();
    stream.read_to_string(&mut echo).await?;
    let spawned = server.await.is_ok_and(|served| served.is_ok());
    let (started, time) = (Instant::now(), Duration::from_millis(5));
    tokio::time::sleep(time).await;
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    Ok(Spawned { spawned, timer: started.elapsed() >= time, echo, thread })
}

/// A stream of `times` pieces, `ms` apart, which counts as running until its last piece or until it is dropped.
pub(crate) fn slow_stream(order: &Order, run: Run) -> axum::body::Body {
    let (time, count) = (order.time(), order.count());
    let pieces = futures_util::stream::unfold((0, run), move |(sent, run)| async move {
        if sent == count {
            run.finish();
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(time).await;
        }
        let piece = Bytes::from(format!("piece {sent}\n"));
        Some((Ok::<_, std::convert::Infallible>(piece), (sent + 1, run)))
    });
    axum::body::Body::from_stream(pieces)
}

/// A stream that breaks after its first piece.
pub(crate) fn broken_stream(order: &Order) -> axum::body::Body {
    let time = order.time();
    let pieces = futures_util::stream::unfold(0, move |sent| async move {
        match sent {
            0 => Some((Ok(Bytes::from_static(b"piece 0\n")), 1)),
            1 => {
                tokio::time::sleep(time).await;
                Some((Err(std::io::Error::other("broken as told")), 2))
            }
            _ => None,
        }
    });
    axum::body::Body::from_stream(pieces)
}
