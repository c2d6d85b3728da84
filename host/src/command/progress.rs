//! How far long work has come, on a terminal: one line that is written over.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The line is renewed no more often than this.
const EVERY: Duration = Duration::from_millis(200);

/// A line on stderr, where that is a terminal; elsewhere nothing.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    shown_at: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// `what` is a participle, such as `replayed`.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, shown_at: None, terminal: std::io::stderr().is_terminal() }
    }

    /// So many are done.
    pub(super) fn at(&mut self, done: u64) {
        if self.terminal && self.shown_at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.shown_at = Some(Instant::now());
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\u{1b}[K{} {done} of {}", self.what, self.total);
            let _ = err.flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\u{1b}[K");
            let _ = err.flush();
        }
    }
}
