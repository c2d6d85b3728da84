//! The documented envelope of the task `echo` of `hello`, as any bare client publishes it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_harness::{Error, Result};
use cardcage_protocol::{
    Name, Namespace, Priority, Subjects, TaskAddress, TaskEnvelope, TaskId, Timestamp, delayed, header,
};

/// The plugin that is measured.
pub(crate) const PLUGIN: &str = "hello";
/// Its task.
pub(crate) const TASK: &str = "echo";
/// Its version is the workspace's, as this package's is.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A promise of the publish later than this is none.
const ACCEPT_WITHIN: Duration = Duration::from_secs(30);

/// Writes envelopes of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Envelopes {
    pub(crate) subjects: Subjects,
    pub(crate) plugin: Name,
    pub(crate) task: Name,
    pub(crate) major: u32,
    version: Arc<str>,
}

impl Envelopes {
    pub(crate) fn new(namespace: &str) -> Result<Self> {
        let name = |text: &str| Name::new(text).map_err(Error::doing(format!("{text} is no name")));
        let namespace = Namespace::new(namespace).map_err(Error::doing("this is no namespace"))?;
        let major = VERSION.split('.').next().and_then(|major| major.parse().ok());
        Ok(Self {
            subjects: Subjects::new(namespace),
            plugin: name(PLUGIN)?,
            task: name(TASK)?,
            major: major.ok_or_else(|| Error::new(format!("{VERSION} has no major version")))?,
            version: Arc::from(VERSION),
        })
    }

    fn address(&self, id: TaskId) -> TaskAddress {
        TaskAddress {
            plugin: self.plugin.clone(),
            major: self.major,
            task: self.task.clone(),
            priority: Priority::Normal,
            id,
        }
    }

    /// Subject and headers of a new task that is due at `at`.
    pub(crate) fn write_delayed(&self, id: TaskId, body: &Bytes, at: Timestamp) -> (String, HeaderMap) {
        let address = self.address(id);
        let subject = self.subjects.schedule(&self.plugin, id);
        let mut headers = HeaderMap::new();
        for (name, value) in delayed::headers(at, &self.subjects.due(&address)) {
            headers.insert(name, value);
        }
        let envelope = TaskEnvelope::new(address, self.version.clone(), Timestamp::now(), body.clone());
        headers.insert(header::NATS_MSG_ID, envelope.message_id());
        envelope.for_each_header(|name, value| headers.insert(name, value));
        (subject, headers)
    }

    /// Subject and headers of a new task.
    pub(crate) fn write(&self, id: TaskId, body: &Bytes) -> (String, HeaderMap) {
        let address = self.address(id);
        let subject = self.subjects.task(&address);
        let now = Timestamp::now();
        let mut envelope = TaskEnvelope::new(address, self.version.clone(), now, body.clone());
        envelope.accept_by = Some(now.plus_ms(u64::try_from(ACCEPT_WITHIN.as_millis()).unwrap_or(u64::MAX)));
        let mut headers = HeaderMap::new();
        envelope.for_each_header(|name, value| headers.insert(name, value));
        (subject, headers)
    }
}

/// A body of 256 bytes that is JSON, so that it serves as a task's body too.
pub(crate) fn body() -> Bytes {
    Bytes::from(format!("\"{}\"", "x".repeat(254)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_envelope_is_the_documented_one() {
        let envelopes = Envelopes::new("floor").unwrap();
        let id = TaskId::generate();
        let (subject, headers) = envelopes.write(id, &body());
        let pairs: Vec<(String, String)> = headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.to_string())))
            .collect();
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let envelope = TaskEnvelope::decode(&envelopes.subjects, &subject, pairs, body()).unwrap();
        assert_eq!((envelope.id, envelope.attempt), (id, 1));
        assert!(envelope.accept_by.is_some());
        assert_eq!(body().len(), 256);
    }
}
