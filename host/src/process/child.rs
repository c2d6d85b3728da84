//! The child's end: how it learns what to do, and how it is made sure that it ends.
//!
//! Invariants:
//! - SIGTERM, SIGINT and SIGHUP are swallowed: orders come over the control channel alone.
//! - The end of the channel means that the supervisor is gone; it is an order to drain.
//! - Reading orders, the grace and the heartbeat have OS threads of their own, which no blocked
//!   runtime and no plugin can hold up.
//! - Plugins find `/dev/null` as their stdin, not the channel.

use super::control::{self, Start, ToChild, ToSupervisor, receive_first, send_blocking};
use super::watchdog;
use crate::crash::{Board, OpenError};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The first message is on its way before the child is started.
const START_WAIT: Duration = Duration::from_secs(10);
/// A supervisor that reads nothing for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The process cannot become a child.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Stdin is no control channel.
    #[error("`child` is a command that cardcage gives itself; use `cardcage api` or `cardcage worker`")]
    NotAChild,
    /// The channel broke before the start order came.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The first message was not the start order, or came without its descriptors.
    #[error("the first control message is not a whole start order: a fault of cardcage")]
    NoStart,
    /// The board cannot be mapped.
    #[error(transparent)]
    Board(#[from] OpenError),
    /// The machine refused a thread, a signal handler or a descriptor.
    #[error("the child cannot be set up: {0}")]
    Setup(#[from] std::io::Error),
}

/// What a child works with.
#[derive(Debug)]
pub struct Attached {
    /// The start order.
    pub start: Start,
    /// The HTTP listener of an API: bound, listening, perhaps with connections waiting.
    pub listener: Option<OwnedFd>,
    /// Where what is in flight is noted.
    pub board: Board,
    /// [`ToChild::Accept`], [`ToChild::Drain`], [`ToChild::HandOver`] and [`ToChild::Metrics`]. An order to drain may come twice.
    pub orders: mpsc::UnboundedReceiver<ToChild>,
    /// Where reports go.
    pub outbox: Outbox,
}

/// Makes this process a child. Call it first, inside a tokio runtime.
///
/// # Errors
/// When the process was not started by a supervisor, or the machine refuses what a child needs.
pub fn attach() -> Result<Attached, AttachError> {
    // First, so that Ctrl-C in the very start does not kill the child. The handlers stay for good.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    attach_to(take_stdin()?, watchdog::kill_this_process)
}

/// The same on any socket, with `overdue` called when the grace has passed.
pub(super) fn attach_to(socket: OwnedFd, overdue: watchdog::Overdue) -> Result<Attached, AttachError> {
    let mut socket = UnixStream::from(socket);
    socket.set_read_timeout(Some(START_WAIT))?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let (ToChild::Start(start), fds) = receive_first(&mut socket)? else { return Err(AttachError::NoStart) };
    let mut fds = fds.into_iter();
    let board = Board::attach(fds.next().ok_or(AttachError::NoStart)?)?;
    let listener = fds.next();
    let outbox = Outbox { socket: Arc::new(Mutex::new(Some(socket.try_clone()?))) };
    let (sender, orders) = mpsc::unbounded_channel();
    watchdog::start_heartbeat(board)?;
    watchdog::start_orders(socket, sender, Duration::from_millis(start.grace_ms), overdue)?;
    Ok(Attached { start, listener, board, orders, outbox })
}

/// Takes the channel from stdin and leaves `/dev/null` there.
fn take_stdin() -> Result<OwnedFd, AttachError> {
    use std::os::fd::AsFd;
    let stdin = std::io::stdin();
    let domain = rustix::net::sockopt::socket_domain(stdin.as_fd()).ok();
    if domain != Some(rustix::net::AddressFamily::UNIX) {
        return Err(AttachError::NotAChild);
    }
    // A copy that is closed on exec: no process that a plugin starts may hold the channel open.
    let channel = stdin.as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(null).map_err(std::io::Error::from)?;
    Ok(channel)
}

/// Sends reports to the supervisor, in order. Clones send over the same channel.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// `None` after a failed write, which may have left half a message behind.
    socket: Arc<Mutex<Option<UnixStream>>>,
}

impl Outbox {
    /// Sends one report. Blocks for as long as the supervisor reads nothing, 5 s at most; reports are
    /// few and small, and the supervisor reads at once.
    ///
    /// # Errors
    /// When the channel is broken: the supervisor is gone, and the order to drain is on its way.
    pub fn send(&self, report: &ToSupervisor) -> Result<(), control::Error> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let open = socket.as_mut().ok_or(control::Error::Broken)?;
        let sent = send_blocking(open, report);
        // A message that could not be encoded has left nothing on the channel.
        if matches!(sent, Err(control::Error::Io(_)))
            && let Some(broken) = socket.take()
        {
            // Both directions: the supervisor sees the end, and so does the thread that reads orders.
            let _ = broken.shutdown(std::net::Shutdown::Both);
        }
        sent
    }
}
