//! The numbers that stand for answers at the boundary. Append only; a number is never used again.

/// Done.
pub const OK: u32 = 0;
/// The other side panicked; the value says what.
pub const PANICKED: u32 = 1;
/// The other side refused or failed; the value says why.
pub const FAILED: u32 = 2;
/// The service cannot answer now (broker away, queue full): a retry may help. The value is a problem as JSON.
pub const UNAVAILABLE: u32 = 3;
/// The request was not understood, or asks for what the host does not know.
pub const REJECTED: u32 = 4;

/// Polling: nothing yet, the waker is kept.
pub const PENDING: u32 = 0;
/// Polling: ready; for a body, a chunk was written.
pub const READY: u32 = 1;
/// Polling: the body ended well.
pub const END: u32 = 2;
/// Polling: the other end is gone; the body is incomplete.
pub const BROKEN: u32 = 3;

/// Task outcome: the value is the result as JSON.
pub const TASK_SUCCEEDED: u32 = 0;
/// Task outcome: try again with the policy's backoff; the value is an error as JSON.
pub const TASK_RETRY: u32 = 1;
/// Task outcome: try again after `delay_ms`; the value is an error as JSON.
pub const TASK_RETRY_AFTER: u32 = 2;
/// Task outcome: failed for good; the value is an error as JSON.
pub const TASK_FAILED: u32 = 3;
/// Task outcome: no longer wanted; ends `cancelled`.
pub const TASK_DISCARDED: u32 = 4;
/// Task outcome: the handler panicked; the value is an error as JSON.
pub const TASK_PANICKED: u32 = 5;
/// Task outcome: the body is not what the handler takes; the value is an error as JSON.
pub const TASK_UNDECODABLE: u32 = 6;

/// Log levels, as `tracing` orders them: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
pub const LEVEL_ERROR: u8 = 1;
/// See [`LEVEL_ERROR`].
pub const LEVEL_TRACE: u8 = 5;
