//! Sorts what arrives on an instance's `callio` subject by call.
//!
//! A call has two halves here, opened and closed on their own: what arrives (the other side's frames, and a final
//! reply), and the credits for what is sent. So a request and its reply can stream at the same time.

use bytes::Bytes;
use cardcage_protocol::{CallId, Frame};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc};

/// Control messages beside a window's frames: end, abort, a final reply.
const EXTRA: usize = 8;

/// The calls of this process that have a stream open.
#[derive(Default)]
pub struct Mux {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    inboxes: HashMap<CallId, mpsc::Sender<Bytes>>,
    credits: HashMap<CallId, Arc<Semaphore>>,
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.lock();
        f.debug_struct("Mux")
            .field("inboxes", &open.inboxes.len())
            .field("credits", &open.credits.len())
            .finish()
    }
}

/// What arrives for a call. Dropping it closes this half.
#[derive(Debug)]
pub struct Inbox {
    mux: Arc<Mux>,
    call: CallId,
    messages: mpsc::Receiver<Bytes>,
}

impl Inbox {
    /// The next frame or reply, undecoded, in the order of arrival. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.messages.recv().await
    }
}

/// Bytes that the other side allows to be sent for a call. Dropping it closes this half.
#[derive(Debug)]
pub struct Credits {
    mux: Arc<Mux>,
    call: CallId,
    pub(super) bytes: Arc<Semaphore>,
}

impl Mux {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // Nothing that holds the lock panics.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to listen for what the other side of a call sends.
    #[must_use]
    pub fn inbox(self: &Arc<Self>, call: CallId) -> Inbox {
        let (sender, messages) = mpsc::channel(super::WINDOW_FRAMES + EXTRA);
        self.lock().inboxes.insert(call, sender);
        Inbox { mux: self.clone(), call, messages }
    }

    /// Starts to listen for what the other side of a call allows to be sent.
    #[must_use]
    pub fn credits(self: &Arc<Self>, call: CallId) -> Credits {
        let bytes = Arc::new(Semaphore::new(0));
        self.lock().credits.insert(call, bytes.clone());
        Credits { mux: self.clone(), call, bytes }
    }

    /// Hands a message to its call. What nobody listens for is dropped; so is what exceeds the window, and the
    /// receiver sees the gap.
    pub fn deliver(&self, call: CallId, message: Bytes) {
        let open = self.lock();
        if let Ok(Frame::Credit { bytes }) = Frame::decode(message.clone()) {
            let Some(credits) = open.credits.get(&call) else { return };
            let granted = usize::try_from(bytes).unwrap_or(0);
            // A peer that grants without measure gains nothing: the sum stays bounded.
            if credits.available_permits().saturating_add(granted) < Semaphore::MAX_PERMITS / 2 {
                credits.add_permits(granted);
            }
            return;
        }
        let Some(inbox) = open.inboxes.get(&call) else { return };
        if inbox.try_send(message).is_err() {
            tracing::debug!(%call, "a stream's frame was dropped: its reader is behind or gone");
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.mux.lock().inboxes.remove(&self.call);
    }
}

impl Drop for Credits {
    fn drop(&mut self) {
        self.mux.lock().credits.remove(&self.call);
    }
}
