//! A task that another task's handler enqueued: kept in the parent's record until it is published.
//!
//! It is a part of the parent's completion, so it stands or falls with that write. Its id derives from the parent's id and
//! its place, so whoever redoes the publish arrives at the same task.
//!
//! Invariant: what [`StagedTask::size`] says of all of a record's children together is bounded
//! ([`limits::CHILDREN_MAX_BYTES`]), so that the record fits one message.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::address::Priority;
use crate::limits;
use crate::name::Name;
use crate::timestamp::Timestamp;

/// A task that is published when its parent's completion is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedTask {
    /// Where it belongs.
    pub plugin: Name,
    /// The plugin's full version.
    pub version: String,
    /// The first number of the version.
    pub major: u32,
    /// The task's name.
    pub task: Name,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "is_normal")]
    pub priority: Priority,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How long it may wait from when it is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The author's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The plugin that enqueued it and whose key that is, where it is another one's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Name>,
    /// The body's field of which one value is queued or running at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// The body's field of which one value is running at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The author's JSON, unread.
    pub body: Box<RawValue>,
}

impl StagedTask {
    /// How much of [`limits::CHILDREN_MAX_BYTES`] it takes; more than there is where it cannot be written at all.
    #[must_use]
    pub fn size(&self) -> usize {
        // And the comma after it.
        serde_json::to_vec(self).map_or(limits::CHILDREN_MAX_BYTES + 1, |json| json.len() + 1)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}
