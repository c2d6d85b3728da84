//! What an operator can set about the broker, as it is meant.

use std::path::PathBuf;
use std::time::Duration;

use cardcage_protocol::Namespace;

use super::StoreBounds;

/// Where streams are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk: survives the broker.
    File,
    /// In memory: a restart of the broker loses every task.
    Memory,
}

impl Storage {
    /// As NATS writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

/// How to reach the broker and how its streams must be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Server address, or several separated by commas.
    pub url: String,
    /// This connection's name in the server's lists.
    pub client_name: String,
    /// Prefix of everything.
    pub namespace: Namespace,
    /// Copies of each stream, 1 to 5.
    pub replicas: u8,
    /// Where streams are stored.
    pub storage: Storage,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// Time one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Time the broker has to acknowledge a task's publish, all attempts together.
    pub publish_timeout: Duration,
    /// How long a record is kept.
    pub result_ttl: Duration,
    /// How long an idempotency key is kept.
    pub idempotency_ttl: Duration,
    /// How long a dead letter is kept.
    pub dead_max_age: Duration,
    /// How long an unrenewed delivery stays its holder's.
    pub lease: Duration,
    /// Tasks that may wait, per plugin.
    pub queue_max_messages: u64,
    /// Bytes of tasks that may wait, per plugin.
    pub queue_max_bytes: u64,
    /// Unacknowledged deliveries, per task, over all workers.
    pub ack_pending_max: u32,
    /// How much is kept beside the queues.
    pub stores: StoreBounds,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            client_name: "cardcage".to_owned(),
            namespace: Namespace::default(),
            replicas: 1,
            storage: Storage::File,
            credentials_file: None,
            connect_timeout: Duration::from_secs(2),
            publish_timeout: Duration::from_secs(2),
            result_ttl: Duration::from_secs(86_400),
            idempotency_ttl: Duration::from_secs(7 * 86_400),
            dead_max_age: Duration::from_secs(30 * 86_400),
            lease: Duration::from_secs(30),
            queue_max_messages: 1_000_000,
            queue_max_bytes: 1 << 30,
            ack_pending_max: 10_000,
            stores: StoreBounds::default(),
        }
    }
}

impl Options {
    /// The server address as it may be shown: without user and password, should somebody have put them in.
    #[must_use]
    pub fn address(&self) -> String {
        let shown = self.url.split(',').map(str::trim).map(|server| match server.rsplit_once('@') {
            Some((before, host)) => {
                let scheme = before.split_once("://").map(|(scheme, _)| scheme);
                scheme.map_or_else(|| host.to_owned(), |scheme| format!("{scheme}://{host}"))
            }
            None => server.to_owned(),
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_address_is_not_shown() {
        let url = "nats://user:p@ss@a:4222, b:4222,tls://token@c".to_owned();
        assert_eq!(Options { url, ..Options::default() }.address(), "nats://a:4222, b:4222, tls://c");
    }
}
