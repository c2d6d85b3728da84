//! Locks of the host's side of the boundary, which plugin threads take: they must not panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it, poisoned or not.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks panics; a poisoned one is still sound to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
