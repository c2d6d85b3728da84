//! Every bound of the protocol, in one place, with its unit in its name.
//!
//! Hosts, plugins and other languages rely on the same numbers: a message that one side may send must be one that the
//! other side accepts. Operators' own, tighter limits live in the configuration.
//!
//! Invariant: the largest message that these bounds allow fits NATS' default `max_payload` of 1 MiB.

/// Longest name of a plugin, task, route or namespace.
pub const NAME_MAX_BYTES: usize = 64;

/// Largest body that travels inside a call or a reply; larger ones go as frames.
pub const INLINE_BODY_MAX_BYTES: usize = 512 * 1024;
/// Largest payload of one data frame.
pub const FRAME_DATA_MAX_BYTES: usize = 64 * 1024;
/// Bytes of data frames that a sender may have under way before the receiver grants more.
pub const CREDIT_WINDOW_BYTES: u32 = 1024 * 1024;
/// Silence on a stream after which it counts as broken.
pub const STREAM_SILENCE_MAX_MS: u64 = 5_000;
/// Longest reason text of an aborted stream.
pub const ABORT_REASON_MAX_BYTES: usize = 512;

/// Largest encoded header block of a call or reply.
pub const HEADER_BLOCK_MAX_BYTES: usize = 128 * 1024;
/// Largest extension field of a call or reply.
pub const EXT_MAX_BYTES: usize = 64 * 1024;
/// Longest `traceparent` value. The format of today has 55 characters; later versions may be longer.
pub const TRACEPARENT_MAX_BYTES: usize = 256;
/// Longest problem code in a refusal.
pub const CODE_MAX_BYTES: usize = 64;

/// Largest body of a task.
pub const TASK_BODY_MAX_BYTES: usize = 512 * 1024;
/// Largest sum of names and values of an envelope's headers.
pub const ENVELOPE_HEADERS_MAX_BYTES: usize = 8 * 1024;
/// Longest plugin version in an envelope.
pub const VERSION_MAX_BYTES: usize = 64;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;
/// Longest unique or serial key.
pub const TASK_KEY_MAX_BYTES: usize = 255;
/// Longest `tracestate` value; the W3C asks for at least 512.
pub const TRACESTATE_MAX_BYTES: usize = 512;
/// Longest schema hash.
pub const SCHEMA_MAX_BYTES: usize = 128;

/// Longest text of a task's last error, as JSON; longer ones are cut at a character boundary.
pub const LAST_ERROR_MAX_BYTES: usize = 64 * 1024;
/// Largest JSON of its details; larger details are left out.
pub const LAST_ERROR_DETAILS_MAX_BYTES: usize = 64 * 1024;
/// The same of the errors before the last.
pub const ERROR_MAX_BYTES: usize = 4096;
/// The same of the details of the errors before the last.
pub const ERROR_DETAILS_MAX_BYTES: usize = 4096;
/// Largest result of a task.
pub const RESULT_MAX_BYTES: usize = 512 * 1024;
/// Longest message of a report of progress.
pub const PROGRESS_MAX_BYTES: usize = 1024;
/// Largest JSON of what a task records of one thing that it did once.
pub const ONCE_VALUE_MAX_BYTES: usize = 64 * 1024;
/// Things that one task may record so.
pub const ONCE_KEYS_MAX: u64 = 64;
/// Attempts whose history a record keeps. The oldest go first; they are counted.
pub const RECORD_ATTEMPTS_MAX: usize = 32;

/// Most bytes of the history in a dead letter, where it stands in a header.
pub const DEAD_HISTORY_MAX_BYTES: usize = 48 * 1024;
/// What the broker takes of a message's headers, all together.
pub const BROKER_HEADERS_MAX_BYTES: usize = 64 * 1024 - 1;

/// Most tasks that one attempt stages.
pub const CHILDREN_MAX: usize = 1000;
/// Most bytes of the tasks that one attempt stages, as they stand in its record.
pub const CHILDREN_MAX_BYTES: usize = 192 * 1024;

/// Most tasks that are enqueued together; it is also what the broker takes in one batch.
pub const BATCH_TASKS_MAX: usize = 1000;
/// Most bytes of their bodies. The broker holds them in memory until the batch is complete.
pub const BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most attempts that a retry policy may ask for.
pub const ATTEMPTS_MAX: u32 = 1000;
/// Longest delay of a retry: 7 days.
pub const RETRY_DELAY_MAX_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// NATS' default `max_payload`.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

const _: () =
    assert!(INLINE_BODY_MAX_BYTES + HEADER_BLOCK_MAX_BYTES + EXT_MAX_BYTES + 4096 < MESSAGE_MAX_BYTES);
const _: () = assert!(TASK_BODY_MAX_BYTES + ENVELOPE_HEADERS_MAX_BYTES < MESSAGE_MAX_BYTES);
/// The largest history of attempts, without the last one's error.
const HISTORY_MAX_BYTES: usize = RECORD_ATTEMPTS_MAX * (ERROR_MAX_BYTES + ERROR_DETAILS_MAX_BYTES + 512);
const LAST_MAX_BYTES: usize = LAST_ERROR_MAX_BYTES + LAST_ERROR_DETAILS_MAX_BYTES;
// The record of a success, which has no error,
const _: () = assert!(RESULT_MAX_BYTES + CHILDREN_MAX_BYTES + 4096 + HISTORY_MAX_BYTES < MESSAGE_MAX_BYTES);
// that of a failure, which may have the task that is run then,
const _: () = assert!(
    TASK_BODY_MAX_BYTES + LAST_MAX_BYTES + ERROR_MAX_BYTES + 8192 + HISTORY_MAX_BYTES < MESSAGE_MAX_BYTES
);
// and the headers of its dead letter, where reason, code and names have 4 KiB.
const _: () = assert!(ENVELOPE_HEADERS_MAX_BYTES + DEAD_HISTORY_MAX_BYTES + 4096 < BROKER_HEADERS_MAX_BYTES);
