//! Waiting for conditions. A test waits until something is so, or fails by saying what never became so.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long a condition is left alone between two looks. Short, because tests wait for many of them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A point in time after which waiting is a failure.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// A deadline `length` from now.
    pub fn after(length: Duration) -> Self {
        Self { at: Instant::now() + length, length }
    }

    /// A deadline `seconds` from now.
    pub fn seconds(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// Whether it is past.
    pub fn is_past(&self) -> bool {
        Instant::now() >= self.at
    }

    /// What is left of it; zero when it is past.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Its whole length, for messages.
    pub fn length(&self) -> Duration {
        self.length
    }
}

/// Looks until `condition` gives a value, and returns it.
///
/// # Errors
/// Past the deadline: `what` was expected and did not come. `what` reads as a state, such as "the task succeeded".
/// The condition is looked at once more after the deadline, so a slow look alone never fails.
pub async fn eventually<T, F>(deadline: Deadline, what: &str, mut condition: F) -> Result<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    loop {
        let last_look = deadline.is_past();
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if last_look {
            return Err(Error::new(format!("within {:?} this never became so: {what}", deadline.length())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Like [`eventually`], for destructors, which cannot await. Says whether the condition became so.
pub(crate) fn eventually_blocking(deadline: Deadline, mut condition: impl FnMut() -> bool) -> bool {
    loop {
        let last_look = deadline.is_past();
        if condition() {
            return true;
        }
        if last_look {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
