//! What travels between cardcage's processes: envelope, calls, subjects, records, task states and limits.
//!
//! Everything here is a value or a function of values, so that hosts, tools and tests agree on the bytes without a
//! broker at hand. Hosts of neighbouring versions share one broker: what one version wrote, the next one reads, and
//! golden files hold it to that.
//!
//! Refuses: I/O, threads, async and unsafe code.

#![forbid(unsafe_code)]

pub mod address;
pub mod cadence;
pub mod call;
pub mod child;
pub mod crash_history;
pub mod cron;
pub mod delayed;
pub mod envelope;
pub mod exhausted;
pub mod frame;
pub mod header;
pub mod id;
pub mod limits;
pub mod live_limits;
pub mod name;
pub mod presence;
pub mod problem;
pub mod rate;
pub mod record;
pub mod retry;
pub mod schedule;
pub mod state;
pub mod subject;
pub mod timestamp;
mod wire;

pub use address::{Priority, SubjectError, TaskAddress};
pub use cadence::{Cadence, CadenceError};
pub use call::{CallBody, CallReply, CallRequest, ReplyKind};
pub use child::StagedTask;
pub use crash_history::{Crash, CrashHistory, QuarantinePolicy};
pub use envelope::{EnvelopeError, TaskEnvelope};
pub use frame::Frame;
pub use id::{CallId, IdError, InstanceId, TaskId};
pub use live_limits::{LiveLimits, PausedBy};
pub use name::{Name, NameError, Namespace, RESERVED_SEGMENTS};
pub use problem::{Problem, ProblemCode};
pub use rate::{Rate, RateError};
pub use record::{Attempt, Cause, FollowUp, Omitted, Parking, TaskError, TaskRecord};
pub use retry::{Backoff, RetryError, RetryPolicy};
pub use schedule::{LastFiring, Missed, Overlap, ScheduleDefinition, ScheduleRecord};
pub use state::{Event, State};
pub use subject::Subjects;
pub use timestamp::{Timestamp, TimestampError};
pub use wire::{Text, WireError};
