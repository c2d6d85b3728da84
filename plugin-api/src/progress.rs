//! What a handler says of its progress.

use crate::TaskContext;
use cardcage_abi::{FfiBytes, TaskNote};
use serde_json::json;

/// How far a handler is: a fraction from 0 to 1, or how much of how much.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// From 0 to 1.
    Fraction(f64),
    /// So much is done, of so much.
    Count(u64, u64),
}

impl From<f64> for Progress {
    fn from(fraction: f64) -> Self {
        Self::Fraction(fraction)
    }
}

impl From<(u64, u64)> for Progress {
    fn from((done, total): (u64, u64)) -> Self {
        Self::Count(done, total)
    }
}

impl<S> TaskContext<S> {
    /// Says how far the handler is: `ctx.progress(0.4, "reading")` or `ctx.progress((3, 10), "reading")`.
    ///
    /// Callers see it in `GET /tasks/{id}` and its events. It is nothing to rely on: the host passes on at most five a
    /// second, stores none, and forgets it with the attempt. It costs little and never waits.
    pub fn progress(&self, progress: impl Into<Progress>, message: impl AsRef<str>) {
        let message = message.as_ref();
        let value = match progress.into() {
            Progress::Fraction(fraction) => json!({ "fraction": fraction, "message": message }),
            Progress::Count(done, total) => {
                // Precise enough for a bar.
                #[allow(clippy::cast_precision_loss, reason = "it is shown to people")]
                let fraction = if total == 0 { 0.0 } else { done as f64 / total as f64 };
                json!({ "done": done, "total": total, "fraction": fraction, "message": message })
            }
        };
        let host = self.info.host;
        let note = TaskNote {
            task_id: self.info.id,
            attempt: self.info.attempt,
            value: FfiBytes::from(value.to_string()),
            ext: FfiBytes::empty(),
        };
        (host.vtable.task_progress())(host.ctx, note);
    }
}
