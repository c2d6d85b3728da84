//! The child's OS threads: reading orders, the end of the grace, the heartbeat.
//!
//! They share nothing with the runtime but an unbounded queue (orders are few: to accept, to drain, and metrics
//! requests that the supervisor limits), so that they go on when every runtime thread is blocked.

use super::control::{Decoder, ToChild};
use crate::crash::Board;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// After the grace, so that a child that is just done may still say so. The supervisor waits longer.
const MARGIN: Duration = Duration::from_millis(500);
/// How long the last words may take: stderr can be a full pipe.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What happens when the grace, which is given, has passed.
pub(super) type Overdue = fn(Duration);

/// Starts the thread that says "alive" on the board.
pub(super) fn start_heartbeat(board: Board) -> std::io::Result<()> {
    let beat = move || {
        loop {
            board.beat();
            std::thread::sleep(HEARTBEAT);
        }
    };
    board.beat();
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).map(drop)
}

/// Starts the thread that reads orders and enforces the grace.
pub(super) fn start_orders(
    socket: UnixStream,
    queue: mpsc::UnboundedSender<ToChild>,
    grace: Duration,
    overdue: Overdue,
) -> std::io::Result<()> {
    let mut orders = Orders { socket, queue, grace, until: None, decoder: Decoder::default() };
    let run = move || {
        let grace = orders.run();
        overdue(grace);
    };
    std::thread::Builder::new().name("orders".to_owned()).spawn(run).map(drop)
}

struct Orders {
    socket: UnixStream,
    queue: mpsc::UnboundedSender<ToChild>,
    /// For a drain that the end of the channel orders.
    grace: Duration,
    /// The end of the grace, and the grace itself. A second drain does not move it.
    until: Option<(Instant, Duration)>,
    decoder: Decoder,
}

impl Orders {
    /// Reads until the grace has passed.
    fn run(&mut self) -> Duration {
        let mut buffer = [0; 4096];
        loop {
            let left = self.until.map(|(end, grace)| (end.saturating_duration_since(Instant::now()), grace));
            if let Some((Duration::ZERO, grace)) = left {
                return grace;
            }
            let read = self.socket.set_read_timeout(left.map(|(left, _)| left));
            match read.and_then(|()| self.socket.read(&mut buffer)) {
                Ok(0) => return self.orphaned(),
                Ok(count) => {
                    self.decoder.push(buffer.get(..count).unwrap_or_default());
                    if !self.take_messages() {
                        return self.orphaned();
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    _ => return self.orphaned(),
                },
            }
        }
    }

    /// False when the channel is broken.
    fn take_messages(&mut self) -> bool {
        loop {
            match self.decoder.take() {
                Ok(Some(order @ (ToChild::Drain { grace_ms } | ToChild::HandOver { grace_ms }))) => {
                    self.drain(Duration::from_millis(grace_ms), order);
                }
                Ok(Some(order)) => self.pass_on(order),
                Ok(None) => return true,
                Err(error) => {
                    tracing::error!(%error, "the control channel is broken");
                    return false;
                }
            }
        }
    }

    /// The supervisor is gone: drain, and wait for the end of the grace.
    fn orphaned(&mut self) -> Duration {
        if self.until.is_none() {
            tracing::warn!("the supervisor is gone; draining");
        }
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        self.drain(self.grace, ToChild::Drain { grace_ms });
        let (end, grace) = self.until.unwrap_or((Instant::now(), self.grace));
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        grace
    }

    fn drain(&mut self, grace: Duration, order: ToChild) {
        // A grace so long that it cannot be added to a clock is as good as a year.
        let end = Instant::now().checked_add(grace.saturating_add(MARGIN));
        let end = end.unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 86_400));
        self.until.get_or_insert((end, grace));
        self.pass_on(order);
    }

    fn pass_on(&self, order: ToChild) {
        // Nobody listens any more: the child is about to exit, or hangs and is killed at the end.
        let _ = self.queue.send(order);
    }
}

/// Ends the process as nothing in it can prevent.
pub(super) fn kill_this_process(grace: Duration) {
    let (said, heard) = std::sync::mpsc::channel::<()>();
    // On a thread of its own: another thread may hold stderr's lock for ever.
    let words = std::thread::Builder::new().spawn(move || {
        let _ = writeln!(
            std::io::stderr(),
            "cardcage: the drain did not end within its grace of {} ms; killing this child",
            grace.as_millis()
        );
        let _ = said.send(());
    });
    if words.is_ok() {
        let _ = heard.recv_timeout(LAST_WORDS);
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // SIGKILL leaves no way to get here.
    std::process::abort();
}
