//! The soft time limit, and what a handler hears of why it should end.
//!
//! Invariant: nothing is ended here. A soft limit is the handler's moment to keep what it has, not a cancellation.

use crate::TaskContext;
use std::time::SystemTime;

/// Why a handler should end; see [`TaskContext::asked_to_stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody cancelled the task: it is not tried again.
    Cancelled,
    /// The soft time limit has passed: what the handler returns counts as ever.
    DeadlineNear,
}

impl<S> TaskContext<S> {
    /// When the handler should come to an end, by the clock of [`now`](Self::now), where the task declares a `soft_timeout` or
    /// the operator sets one.
    pub fn soft_deadline(&self) -> Option<SystemTime> {
        self.info.soft_deadline
    }

    /// Waits until the soft time limit, or for ever where there is none. Nothing is ended there: it is the handler's moment
    /// to keep what it has and to return, for example `Err(TaskError::retry("half done"))`, before `timeout` drops it.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # struct App;
    /// # async fn copy_all() {}
    /// # async fn export(ctx: TaskContext<App>) -> TaskResult<()> {
    /// tokio::select! {
    ///     () = copy_all() => Ok(()),
    ///     () = ctx.deadline_near() => Err(TaskError::retry("the rest comes in the next attempt")),
    /// }
    /// # }
    /// ```
    pub async fn deadline_near(&self) {
        let Some(at) = self.info.soft_deadline else { return std::future::pending().await };
        // Both are of the host's clock. Past already: at once.
        let left = at.duration_since(self.now()).unwrap_or_default();
        tokio::time::sleep(left).await;
    }

    /// Waits until the handler should end, and says why.
    pub async fn asked_to_stop(&self) -> StopReason {
        tokio::select! {
            biased;
            () = self.cancelled() => StopReason::Cancelled,
            () = self.deadline_near() => StopReason::DeadlineNear,
        }
    }
}
