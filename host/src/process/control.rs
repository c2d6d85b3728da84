//! What supervisor and child say to each other: length-prefixed JSON over a Unix stream socket.
//!
//! A frame is a `u32` length (little endian) and that many bytes of JSON. The first frame's length
//! carries the child's file descriptors (SCM_RIGHTS): the board, then the HTTP listener if there is one.
//!
//! Invariants: both ends are the same executable, so that the messages need no versions. A frame is at
//! most [`MESSAGE_MAX`] bytes; a longer one, or one that does not parse, breaks the channel for good.
//!
//! What it refuses to do: it carries orders and reports, never calls, tasks or bodies.

use super::crew::Seat;
use super::status::{BlockedPlugin, QuarantinedPlugin};
use crate::loader::{self, Judged};
use bytes::{Buf, BytesMut};
use cardcage_protocol::presence::{PresentBody, PresentPath};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Most file descriptors that the first message carries.
const FDS_MAX: usize = 2;

/// The channel is broken. The host's own fault, or that of a plugin that meddled with its descriptors;
/// retrying on the same channel never helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed, or a write timed out.
    #[error("the control channel failed: {0}")]
    Io(#[from] std::io::Error),
    /// A message is over the limit.
    #[error("a control message of {0} bytes is over the limit of {MESSAGE_MAX}")]
    TooLong(usize),
    /// A message does not parse.
    #[error("a control message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other end closed in the middle of a message.
    #[error("the control channel ended in the middle of a message")]
    Cut,
    /// An earlier write failed half way.
    #[error("the control channel is broken by an earlier failure")]
    Broken,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes HTTP calls.
    Api,
    /// Runs calls and tasks.
    Worker,
}

impl Role {
    /// The word for it, as on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The supervisor's orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum ToChild {
    /// The first message, and only the first.
    Start(Start),
    /// An API's child accepts connections from now on. Before, they wait in the listener's backlog, or another child accepts them.
    Accept,
    /// Stop taking work, finish or hand back what is held, exit.
    Drain {
        /// How long that may take, in ms.
        grace_ms: u64,
    },
    /// The same, but another child is up: nobody who comes again finds a closed door.
    HandOver {
        /// How long that may take, in ms.
        grace_ms: u64,
    },
    /// Send the metrics text.
    Metrics {
        /// Comes back with the text.
        id: u64,
    },
}

/// All a child needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// What the host is for.
    pub role: Role,
    /// The instance's name.
    pub instance: String,
    /// Which process of which worker group it is, where there are groups.
    #[serde(default)]
    pub seat: Option<Seat>,
    /// The resolved settings.
    pub settings: serde_json::Value,
    /// The grace for a drain that the end of the channel orders, in ms.
    pub grace_ms: u64,
    /// Plugins that must not be loaded again.
    pub excluded: Vec<Excluded>,
    /// Plugins that it must not serve without, whatever the settings say: a child before it has them.
    #[serde(default)]
    pub needed: Vec<String>,
    /// What children before it had of the libraries: the same bytes are loaded again.
    #[serde(default)]
    pub served: Vec<Judged>,
}

/// A plugin that took an earlier child down while loading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// The plugin's name.
    pub plugin: String,
    /// One sentence.
    pub reason: String,
}

/// The child's reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Sent before each step of loading a plugin, and with `None` when the last step is over.
    Phase {
        /// What is entered; `None`: nothing is being loaded now.
        entered: Option<Phase>,
    },
    /// A library was judged fit, and is loaded next.
    Judged(Judged),
    /// A plugin was refused; the child goes on.
    Refused(Refusal),
    /// The child serves; that of an API as soon as it is told to accept.
    Ready(Ready),
    /// Something the child needs is missing; it serves what it can.
    Degraded {
        /// One short sentence each.
        reasons: Vec<String>,
    },
    /// Nothing is missing any more.
    Restored,
    /// Whether a worker takes work from the broker.
    Consuming {
        /// True while it does.
        active: bool,
    },
    /// Which of its plugins are quarantined.
    Quarantined {
        /// All of them.
        plugins: Vec<QuarantinedPlugin>,
    },
    /// Which of its plugins are blocked.
    Blocked {
        /// All of them.
        plugins: Vec<BlockedPlugin>,
    },
    /// An API's child accepts no more connections. Those that it has are answered to their end.
    Leaving,
    /// Answer to [`ToChild::Metrics`].
    MetricsText {
        /// The request's id.
        id: u64,
        /// Prometheus or OpenMetrics text.
        text: String,
    },
    /// The drain is over; the child exits next.
    Drained {
        /// How many calls and tasks were handed back or cut off.
        unfinished: u64,
    },
    /// The child cannot start; it exits next.
    Failed {
        /// The exit code that fits.
        exit_code: u8,
        /// One sentence: whose fault, what to do.
        message: String,
        /// True: start another child, without the plugins that did not start in this one, instead of exiting with the code.
        #[serde(default)]
        retry: bool,
    },
}

/// A step of loading one plugin, in which plugin code may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The plugin's name; the file's name while the plugin's is not known.
    pub plugin: String,
    /// Its version, once known.
    #[serde(default)]
    pub version: String,
    /// The library's path.
    #[serde(default)]
    pub file: String,
    /// Which step.
    #[serde(rename = "phase")]
    pub step: Step,
    /// In [`Step::Init`]: the number that the board has it by.
    #[serde(default)]
    pub index: Option<u32>,
    /// The kernel's id of the thread that takes the step.
    #[serde(default)]
    pub thread: u32,
}

/// The steps of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The library is opened; its constructors run.
    Open,
    /// It is asked what it declares.
    Describe,
    /// It builds its state.
    Init,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Describe => "describe",
            Self::Init => "init",
        })
    }
}

/// Why a plugin was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The plugin's name.
    pub plugin: String,
    /// The library's path.
    pub file: String,
    /// A stable code.
    pub code: String,
    /// One sentence: what is wrong, what to do.
    pub message: String,
    /// Whether the host may not serve without it.
    pub required: bool,
}

impl Refusal {
    /// What the loader says of a plugin.
    #[must_use]
    pub fn of(refusal: &loader::Refusal, required: bool) -> Self {
        Self {
            plugin: refusal.plugin.clone(),
            file: refusal.file.display().to_string(),
            code: refusal.code.as_str().to_owned(),
            message: refusal.to_string(),
            required,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "plugin `{}` ({}): {}", self.plugin, self.code, self.message)
    }
}

/// What a child serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The plugins it loaded.
    pub plugins: Vec<LoadedPlugin>,
    /// The addresses it listens on.
    #[serde(default)]
    pub bound: Vec<String>,
}

/// A plugin that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether its library is in the child: an API's child does without it where no route runs inline.
    pub is_loaded: bool,
    /// How many routes it declares.
    pub routes: usize,
    /// How many tasks it declares.
    pub tasks: usize,
    /// Their names.
    #[serde(default)]
    pub task_names: Vec<String>,
    /// Names of its routes that run on workers.
    #[serde(default)]
    pub called: Vec<String>,
    /// Where these are.
    #[serde(default)]
    pub paths: Vec<PresentPath>,
    /// How the bodies of its tasks are read.
    #[serde(default)]
    pub bodies: Vec<PresentBody>,
}

/// A message as bytes on the channel.
///
/// # Errors
/// When it is over the limit or cannot be JSON.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let prefix =
        u32::try_from(length).ok().filter(|_| length <= MESSAGE_MAX).ok_or(Error::TooLong(length))?;
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = prefix.to_le_bytes();
    }
    Ok(frame)
}

fn checked_length(prefix: [u8; 4]) -> Result<usize, Error> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MESSAGE_MAX { Err(Error::TooLong(length)) } else { Ok(length) }
}

/// Sends the four bytes of the first frame's length, with the descriptors. Never blocks on a new socket.
///
/// # Errors
/// When the kernel refuses, or there are too many descriptors.
pub fn send_prefix_with_fds(socket: impl AsFd, prefix: [u8; 4], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(std::io::Error::other("too many file descriptors for one message").into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&prefix)], &mut control, SendFlags::NOSIGNAL)
        .map_err(std::io::Error::from)?;
    if sent == prefix.len() { Ok(()) } else { Err(Error::Cut) }
}

/// Reads the first frame and its descriptors, blocking.
///
/// # Errors
/// When the channel is broken, or the first message is not of type `T`.
pub fn receive_first<T: DeserializeOwned>(socket: &mut UnixStream) -> Result<(T, Vec<OwnedFd>), Error> {
    let mut prefix = [0; 4];
    let mut fds = Vec::new();
    let mut have = 0;
    while let Some(rest) = prefix.get_mut(have..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&*socket, &mut [IoSliceMut::new(rest)], &mut control, flags)
        })
        .map_err(std::io::Error::from)?;
        if got.bytes == 0 {
            return Err(Error::Cut);
        }
        have += got.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
    }
    let mut body = vec![0; checked_length(prefix)?];
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fds))
}

/// Writes one message, blocking until the socket's write timeout.
///
/// # Errors
/// When writing fails: the channel may hold half a message then and must not be used again.
pub fn send_blocking(socket: &mut impl Write, message: &impl Serialize) -> Result<(), Error> {
    Ok(socket.write_all(&encode(message)?)?)
}

/// Frames out of bytes, whatever pieces they come in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// When it is over the limit or malformed.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = checked_length(*prefix)?;
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.buffer.advance(4 + length);
        Ok(Some(message))
    }

    /// The end of the channel.
    ///
    /// # Errors
    /// When it came in the middle of a message.
    pub fn end(&self) -> Result<(), Error> {
        if self.buffer.is_empty() { Ok(()) } else { Err(Error::Cut) }
    }
}

/// The supervisor's reading end.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads messages from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next message; `None` at the end of the channel. Cancel safe: nothing is lost when the future
    /// is dropped.
    ///
    /// # Errors
    /// When the channel is broken.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(message) = self.decoder.take()? {
                return Ok(Some(message));
            }
            if self.stream.read_buf(&mut self.decoder.buffer).await? == 0 {
                return self.decoder.end().map(|()| None);
            }
        }
    }
}
