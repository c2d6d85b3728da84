//! Header names, each exactly once.
//!
//! NATS headers are case-sensitive; these are the spellings. The list is part of the documented envelope: other
//! languages enqueue with it. A header may be added; none is renamed or given another meaning.

/// Version of the envelope itself; today `1`. A higher version is refused.
pub const ENVELOPE_VERSION: &str = "Cardcage-Envelope-Version";
/// The task's id, a UUIDv7; the same as the subject's last token.
pub const TASK_ID: &str = "Cardcage-Task-Id";
/// The plugin's name.
pub const PLUGIN: &str = "Cardcage-Plugin";
/// The plugin's full version at the time of enqueueing.
pub const VERSION: &str = "Cardcage-Version";
/// The task's name.
pub const TASK: &str = "Cardcage-Task";
/// The attempt that this message is for, counted from 1.
pub const ATTEMPT: &str = "Cardcage-Attempt";
/// RFC 3339 time: a worker drops the task when the broker stored it later than this, for it was never promised.
pub const ACCEPT_BY: &str = "Cardcage-Accept-By";
/// RFC 3339 time after which the task is no longer started and ends `expired`.
pub const EXPIRES_AT: &str = "Cardcage-Expires-At";
/// The caller's idempotency key.
pub const IDEMPOTENCY_KEY: &str = "Cardcage-Idempotency-Key";
/// The task's unique key: the host holds it until the task's outcome is recorded. Only a host can claim one.
pub const UNIQUE_KEY: &str = "Cardcage-Unique-Key";
/// The task's serial key: one task with it is running at a time.
pub const SERIAL_KEY: &str = "Cardcage-Serial-Key";
/// The first task of the tree that this task belongs to.
pub const ROOT_ID: &str = "Cardcage-Root-Id";
/// The task that enqueued this one.
pub const PARENT_ID: &str = "Cardcage-Parent-Id";
/// Hash of the JSON Schema that the body was checked against.
pub const SCHEMA: &str = "Cardcage-Schema";
/// RFC 3339 time of enqueueing, by the broker's clock as well as the host knows it.
pub const ENQUEUED_AT: &str = "Cardcage-Enqueued-At";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context, vendors' part.
pub const TRACESTATE: &str = "tracestate";

/// On a dead letter: why the task ended `failed`, in one line.
pub const DEAD_REASON: &str = "Cardcage-Dead-Reason";
/// On a dead letter: the subject of the original message.
pub const ORIGINAL_SUBJECT: &str = "Cardcage-Original-Subject";

/// What the headers begin with that only dead letters have.
pub const DEAD_PREFIX: &str = "Cardcage-Dead-";
/// On a dead letter: the stable code of the error that ended the task.
pub const DEAD_CODE: &str = "Cardcage-Dead-Code";
/// On a dead letter: the history of attempts as JSON.
pub const DEAD_ATTEMPTS: &str = "Cardcage-Dead-Attempts";
/// On a dead letter: how many of the oldest attempts the history leaves out.
pub const DEAD_ATTEMPTS_OMITTED: &str = "Cardcage-Dead-Attempts-Omitted";

/// What the headers begin with that only parked tasks have; beside them stands [`ORIGINAL_SUBJECT`].
pub const PARKED_PREFIX: &str = "Cardcage-Parked-";
/// On a parked task: hashes of the schemas that could not read it, with blanks between them.
pub const PARKED_SCHEMAS: &str = "Cardcage-Parked-Schemas";
/// On a parked task: what could not be read, in one line.
pub const PARKED_REASON: &str = "Cardcage-Parked-Reason";
/// On a parked task: the sequence in its queue of the message that was parked.
pub const PARKED_MESSAGE: &str = "Cardcage-Parked-Message";
/// On a message whose task may have been run or cancelled since it was written (it was parked and has come back, it was kept
/// until its time): a worker reads the task's record before it starts it.
pub const UNPARKED: &str = "Cardcage-Unparked";
/// On a message that waits for its time, and until it is queued: when it is due (RFC 3339). JetStream fires it a little
/// earlier ([`crate::delayed`]).
pub const DUE_AT: &str = "Cardcage-Due-At";

/// NATS: identity of a publish; a second one within the window is reported as a duplicate.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";
/// NATS: which batch a message belongs to; one that is not complete is not stored.
pub const NATS_BATCH_ID: &str = "Nats-Batch-Id";
/// NATS: a message's place in its batch, counted from 1.
pub const NATS_BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
/// NATS: on a batch's last message, `1`: the batch is complete.
pub const NATS_BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// NATS: compare-and-set on the last sequence of the subject; 0 means "there is none".
pub const NATS_EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// NATS: how long this message is kept, where that is less than its stream keeps messages.
pub const NATS_TTL: &str = "Nats-TTL";
/// A time to live that outlasts the stream's own.
pub const NATS_TTL_NEVER: &str = "never";
/// NATS: when a message schedule fires.
pub const NATS_SCHEDULE: &str = "Nats-Schedule";
/// NATS: the subject that a message schedule fires into.
pub const NATS_SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
/// NATS: on a fired message, the subject of its schedule.
pub const NATS_SCHEDULER: &str = "Nats-Scheduler";
/// NATS: whose clocks a cron schedule means.
pub const NATS_SCHEDULE_TIME_ZONE: &str = "Nats-Schedule-Time-Zone";
/// NATS: on a fired message, when its schedule fires next.
pub const NATS_SCHEDULE_NEXT: &str = "Nats-Schedule-Next";
/// NATS: `sub` removes what the subject held before.
pub const NATS_ROLLUP: &str = "Nats-Rollup";
/// NATS: on a direct get, the message's stream sequence.
pub const NATS_SEQUENCE: &str = "Nats-Sequence";
/// NATS: on a direct get, the message's subject.
pub const NATS_SUBJECT: &str = "Nats-Subject";
/// NATS: on the end of a pull request, how many messages of it were not delivered.
pub const NATS_PENDING_MESSAGES: &str = "Nats-Pending-Messages";
/// NATS: on a direct get of a batch, how many messages match beyond this one.
pub const NATS_NUM_PENDING: &str = "Nats-Num-Pending";
/// NATS: on a direct get, when the message was stored.
pub const NATS_TIME_STAMP: &str = "Nats-Time-Stamp";
/// What NATS' own headers begin with; they do not outlive the hop that they were written for.
pub const NATS_PREFIX: &str = "Nats-";
