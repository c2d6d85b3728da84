//! Sorts what arrives on an instance's `callio` subject by call.

use bytes::Bytes;
use cardcage_protocol::{CallId, Frame};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc};

/// Control messages beside a window's frames: end, abort, a final reply.
const EXTRA: usize = 8;

struct Entry {
    frames: mpsc::Sender<Bytes>,
    credits: Arc<Semaphore>,
}

/// The calls of this process that have a stream open.
#[derive(Default)]
pub struct Mux {
    lines: Mutex<HashMap<CallId, Entry>>,
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("open", &self.lock().len()).finish()
    }
}

/// A call's end of the mux; dropping it closes it.
#[derive(Debug)]
pub struct Line {
    mux: Arc<Mux>,
    call: CallId,
    /// Frames and replies, undecoded, in the order in which they arrived.
    pub frames: mpsc::Receiver<Bytes>,
    /// Bytes that the other side allows to be sent.
    pub credits: Arc<Semaphore>,
}

impl Mux {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, Entry>> {
        // Nothing that holds the lock panics.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to listen for a call.
    #[must_use]
    pub fn open(self: &Arc<Self>, call: CallId) -> Line {
        let (sender, frames) = mpsc::channel(super::WINDOW_FRAMES + EXTRA);
        let credits = Arc::new(Semaphore::new(0));
        self.lock().insert(call, Entry { frames: sender, credits: credits.clone() });
        Line { mux: self.clone(), call, frames, credits }
    }

    /// Listens anew for a call whose request body has ended or is no longer read: now for the reply's credits.
    #[must_use]
    pub fn open_replacing(self: &Arc<Self>, call: CallId) -> Line {
        self.open(call)
    }

    /// Hands a message to its call. What nobody listens for is dropped; so is what exceeds the window, and the
    /// receiver sees the gap.
    pub fn deliver(&self, call: CallId, message: Bytes) {
        let lines = self.lock();
        let Some(entry) = lines.get(&call) else { return };
        if let Ok(Frame::Credit { bytes }) = Frame::decode(message.clone()) {
            let granted = usize::try_from(bytes).unwrap_or(0);
            // A peer that grants without measure gains nothing: the sum stays bounded.
            if entry.credits.available_permits().saturating_add(granted) < Semaphore::MAX_PERMITS / 2 {
                entry.credits.add_permits(granted);
            }
            return;
        }
        if entry.frames.try_send(message).is_err() {
            tracing::debug!(%call, "a stream's frame was dropped: its reader is behind or gone");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.mux.lock().remove(&self.call);
        self.credits.close();
    }
}
