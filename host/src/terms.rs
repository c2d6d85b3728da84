//! What a task's declaration asks of whoever enqueues it.

use crate::loader::TaskDescription;
use std::time::Duration;

/// The part of a declaration that matters when a task is accepted; small enough to be carried along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long it may wait from when it is due.
    pub expires: Option<Duration>,
}

impl Terms {
    /// The terms of one task.
    #[must_use]
    pub fn of(task: &TaskDescription) -> Self {
        Self { expires: task.expires_ms.map(Duration::from_millis) }
    }
}
