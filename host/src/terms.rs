//! What a task's declaration asks of whoever enqueues it.
//!
//! Keys are read from the body, by the path that the task declares: so they are the same whichever way the task comes in.
//! A body without the field has no key, and is bound by nothing.

use crate::broker::key_hash;
use crate::loader::TaskDescription;
use cardcage_protocol::{Name, TaskEnvelope, limits};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The part of a declaration that matters when a task is accepted; small enough to be carried along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whether it has a queue for each priority.
    pub priorities: bool,
    /// How long it may wait from when it is due.
    pub expires: Option<Duration>,
    /// The body's field of which one value is queued or running at a time.
    pub unique_key: Option<Arc<str>>,
    /// The body's field of which one value is running at a time.
    pub serial_key: Option<Arc<str>>,
}

/// The keys of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// At most one task with it is queued or running.
    pub unique: Option<String>,
    /// At most one task with it is running.
    pub serial: Option<String>,
}

impl Terms {
    /// The terms of one task.
    #[must_use]
    pub fn of(task: &TaskDescription) -> Self {
        Self {
            priorities: task.priorities,
            expires: task.expires_ms.map(Duration::from_millis),
            unique_key: task.unique_key.as_deref().map(Arc::from),
            serial_key: task.serial_key.as_deref().map(Arc::from),
        }
    }

    /// The keys of a task with this body. Nothing is read where nothing is declared.
    #[must_use]
    pub fn keys(&self, body: &[u8]) -> Keys {
        if self.unique_key.is_none() && self.serial_key.is_none() {
            return Keys::default();
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let key = |path: &Option<Arc<str>>| path.as_deref().and_then(|path| key(&body, path));
        Keys { unique: key(&self.unique_key), serial: key(&self.serial_key) }
    }
}

/// The name of a unique key. The same value in another task, or another plugin, is another key.
#[must_use]
pub fn unique_hash(plugin: &Name, task: &Name, key: &str) -> String {
    key_hash(&["unique", plugin.as_str(), task.as_str(), key])
}

/// The name of a serial key; see [`unique_hash`].
#[must_use]
pub fn serial_hash(plugin: &Name, task: &Name, key: &str) -> String {
    key_hash(&["serial", plugin.as_str(), task.as_str(), key])
}

/// The name of a task's unique key, where it has one.
#[must_use]
pub fn unique_hash_of(envelope: &TaskEnvelope) -> Option<String> {
    envelope.unique_key.as_deref().map(|key| unique_hash(&envelope.plugin, &envelope.task, key))
}

/// The name of a task's serial key, where it has one.
#[must_use]
pub fn serial_hash_of(envelope: &TaskEnvelope) -> Option<String> {
    envelope.serial_key.as_deref().map(|key| serial_hash(&envelope.plugin, &envelope.task, key))
}

/// The text of the field at `path`, as a header can carry it.
fn key(body: &Value, path: &str) -> Option<String> {
    let field = path.split('.').try_fold(body, |value, name| value.get(name))?;
    let text = match field {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let plain = !text.is_empty()
        && text.len() <= limits::TASK_KEY_MAX_BYTES
        && text.trim().len() == text.len()
        && !text.chars().any(char::is_control);
    // Anything else is known by its hash.
    Some(if plain { text } else { format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(unique: &str) -> Terms {
        Terms { unique_key: Some(Arc::from(unique)), ..Terms::default() }
    }

    #[test]
    fn keys_are_read_from_the_body_whatever_their_type() {
        let body = br#"{ "order": { "id": "o-1", "n": 7, "none": null, "odd": "a\nb" } }"#;
        for (path, key) in [
            ("order.id", Some("o-1")),
            ("order.n", Some("7")),
            ("order.none", None),
            ("order.missing", None),
            ("missing.id", None),
        ] {
            assert_eq!(terms(path).keys(body).unique.as_deref(), key, "{path}");
        }
        let odd = terms("order.odd").keys(body).unique.unwrap();
        assert!(odd.starts_with("sha256:") && odd.len() < 100, "{odd}");
        assert_eq!(Terms::default().keys(b"rubbish"), Keys::default());
    }
}
