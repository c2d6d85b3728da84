//! Waiting for a condition. A test waits until something is so, or fails by saying what never became so.

use crate::{Error, Result};
use std::time::{Duration, Instant};

/// How long a condition is left alone between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value, for at most so long by the machine's clock.
///
/// # Errors
/// `what` never became so. The condition is looked at once more after the time, so a slow look alone never fails.
pub async fn eventually<T>(
    at_most: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + at_most;
    loop {
        let last = Instant::now() >= end;
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if last {
            return Err(Error::new(format!("within {at_most:?} this never became so: {what}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
