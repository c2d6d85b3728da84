//! From a handler's start to its end, or to the moment at which nobody waits for it any longer.
//!
//! Invariant: whatever ends the wait, the handler's future is dropped with it, which cancels it.

use super::attempt::Delivered;
use super::ending::Ended;
use super::held::{Holding, Signal};
use super::note::local_deadline;
use crate::crash::Polling;
use crate::loader;
use bytes::Bytes;
use cardcage_protocol::{TaskEnvelope, header};
use tokio::time::Instant;

impl Delivered<'_> {
    /// Runs the handler.
    pub(super) async fn handle(&self, attempt: u32, deadline_unix_ms: u64, holding: &Holding) -> Ended {
        let envelope = self.envelope;
        let end = Instant::now() + self.unit.limits.timeout;
        // An earlier attempt of this very task may still hold its thread.
        let before = if attempt > 1 { self.polled() } else { Vec::new() };
        let mut running = self.unit.room.plugin.start(loader::Attempt {
            task_id: *envelope.id.as_bytes(),
            task: self.unit.index,
            attempt,
            deadline_unix_ms,
            soft_deadline_unix_ms: self.unit.limits.soft_timeout.map(local_deadline),
            enqueued_unix_ms: envelope.enqueued_at.unix_ms(),
            headers: trace_headers(envelope),
            body: envelope.body.clone(),
        });
        // Whichever comes first, dropping the handler's future cancels it.
        tokio::select! {
            biased;
            outcome = &mut running => return Ended::Handler(outcome),
            signal = holding.signalled() => if signal == Signal::Stopped { return Ended::Interrupted },
            () = tokio::time::sleep_until(end) => return match self.is_held_up(&before) {
                true => Ended::HeldUp,
                false => Ended::TimedOut,
            },
        }
        Box::pin(self.wind_down(running, holding, end)).await
    }

    /// The task was cancelled: tells the handler, and gives it a grace within its hard limit.
    async fn wind_down(&self, mut running: loader::TaskStart, holding: &Holding, end: Instant) -> Ended {
        running.cancel_softly();
        let grace_ends = Instant::now() + self.unit.shared.cancel_grace;
        tokio::select! {
            biased;
            outcome = &mut running => Ended::Handler(outcome),
            () = holding.stopped() => Ended::Cancelled,
            () = tokio::time::sleep_until(end.min(grace_ends)) => Ended::Cancelled,
        }
    }

    /// Whether a handler of this plugin that was given up still holds a thread: then others wait behind it in vain, and
    /// the child is about to be replaced. Rare, so it may read the whole board.
    fn is_held_up(&self, before: &[Polling]) -> bool {
        let held = self.polled();
        if held.is_empty() {
            return false;
        }
        let live = self.unit.shared.board.live();
        let given_up = |thread: &Polling| live.iter().all(|entry| entry.id != thread.id);
        held.iter().any(|thread| {
            (thread.id == *self.envelope.id.as_bytes() && before.contains(thread)) || given_up(thread)
        })
    }

    /// What threads are polling of this plugin's.
    fn polled(&self) -> Vec<Polling> {
        let (board, plugin) = (&self.unit.shared.board, self.unit.room.plugin.index);
        board.polling().into_iter().filter(|thread| thread.plugin == plugin).collect()
    }
}

/// The trace context as a header block.
fn trace_headers(envelope: &TaskEnvelope) -> Bytes {
    let named = [(header::TRACEPARENT, &envelope.traceparent), (header::TRACESTATE, &envelope.tracestate)];
    let mut block = Vec::new();
    for (name, value) in named {
        if let Some(value) = value {
            cardcage_abi::headers::push(&mut block, name, value.as_bytes());
        }
    }
    Bytes::from(block)
}
