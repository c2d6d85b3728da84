//! Bodies that are too large, or too slow, for one message: numbered frames under a credit window.
//!
//! ```text
//! sender                                   receiver
//!        ◀──────────────── Credit{window} ─        the receiver starts it: it is listening now
//!        ─ Data{0} ─ Data{1} ─ … ────────▶
//!        ◀───────────────── Credit{bytes} ─        as its consumer takes pieces
//!        ─ End{n} ───────────────────────▶         or Abort{reason}
//! ```
//!
//! # Invariants
//! * At most a window of bytes is under way, so a slow consumer holds up its sender and fills no memory.
//! * A missing frame, or silence longer than the limit, ends the body as broken; it never ends as complete.
//! * Request and reply may stream at the same time; neither knows of the other.
//! * A sender with nothing to send says so (an empty frame) well within the limit: silence means death.
//!
//! # What it refuses
//! No retransmission: a lost frame loses the body, and the caller learns it.

mod mux;
mod receive;
mod send;

pub use mux::{Credits, Inbox, Mux};
pub use receive::receive;
pub use send::send;

use bytes::Bytes;
use cardcage_protocol::limits;
use std::time::Duration;

/// Pieces of a body, ending with the channel's end, or broken with a reason for the log.
pub type Pieces = tokio::sync::mpsc::Receiver<Result<Bytes, String>>;

/// How long a stream may be silent before it counts as broken.
#[derive(Debug, Clone, Copy)]
pub struct Silence(pub Duration);

/// What a frame costs of the window: small ones are charged as this, so that the window bounds their number too.
const FRAME_COST_MIN: usize = 4 * 1024;

/// Frames that fit into a window.
const WINDOW_FRAMES: usize = limits::CREDIT_WINDOW_BYTES as usize / FRAME_COST_MIN;

fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes.max(FRAME_COST_MIN)).unwrap_or(u32::MAX)
}
