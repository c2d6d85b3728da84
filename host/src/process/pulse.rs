//! Whether a child that serves is alive, as far as its readiness goes.
//!
//! A child that is stopped, or starved, still stands in the broker's lists and behind open sockets: only its heart says
//! that it does nothing.
//!
//! What it refuses: it ends no child. One that goes on after a stop is as good as before.

use super::lease::ALIVE;
use super::status::Status;
use crate::crash::Board;

/// Shows whether the child's heart has beaten lately.
pub(super) fn feel(board: &Board, status: &Status, pid: Option<u32>) {
    let responding = board.heartbeat_age().is_some_and(|age| age <= ALIVE);
    if status.snapshot().responding == responding {
        return;
    }
    match responding {
        true => tracing::warn!(pid, "the child shows signs of life again"),
        false => tracing::error!(pid, "the child shows no sign of life; it is not ready"),
    }
    status.update(|now| now.responding = responding);
}
