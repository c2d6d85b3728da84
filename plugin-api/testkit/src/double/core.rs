//! Connections and subscriptions: who gets a message, and what else is done with it.

use super::batch::Batch;
use super::stream::Stream;
use super::{subject, wire};
use plugin_api::bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::sync::mpsc::UnboundedSender;

/// A message as it crosses the wire.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) reply: Option<String>,
    /// The header block; empty: none.
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Message {
    pub(super) fn new(subject: &str, reply: Option<&str>, head: Bytes, body: Bytes) -> Self {
        Self { subject: subject.to_owned(), reply: reply.map(str::to_owned), head, body }
    }

    /// A status without a body.
    pub(super) fn status(to: &str, status: &str, headers: &[(String, String)]) -> Self {
        Self::new(to, None, wire::block(status, headers), Bytes::new())
    }
}

struct Subscription {
    connection: u64,
    subject: String,
    queue: Option<String>,
    sid: String,
    /// Messages until it ends by itself.
    left: Option<u64>,
    got: u64,
}

/// Everything that the double knows.
#[derive(Default)]
pub(super) struct Core {
    next: u64,
    connections: BTreeMap<u64, UnboundedSender<Vec<u8>>>,
    subscriptions: Vec<Subscription>,
    pub(super) streams: BTreeMap<String, Stream>,
    /// Batches that are not complete, by their stream and id.
    pub(super) batches: BTreeMap<(String, String), Batch>,
    turn: usize,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn connect(&mut self, out: UnboundedSender<Vec<u8>>) -> u64 {
        self.next += 1;
        self.connections.insert(self.next, out);
        self.next
    }

    pub(super) fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
        self.subscriptions.retain(|subscription| subscription.connection != id);
    }

    pub(super) fn send(&self, id: u64, bytes: Vec<u8>) {
        if let Some(out) = self.connections.get(&id) {
            // A connection that has just ended takes nothing any more.
            let _ = out.send(bytes);
        }
    }

    pub(super) fn subscribe(&mut self, id: u64, subject: &str, queue: Option<&str>, sid: &str) {
        self.subscriptions.push(Subscription {
            connection: id,
            subject: subject.to_owned(),
            queue: queue.map(str::to_owned),
            sid: sid.to_owned(),
            left: None,
            got: 0,
        });
    }

    pub(super) fn unsubscribe(&mut self, id: u64, sid: &str, max: Option<u64>) {
        self.subscriptions.retain_mut(|one| {
            if one.connection != id || one.sid != sid {
                return true;
            }
            one.left = max.map(|max| max.saturating_sub(one.got));
            one.left.is_some_and(|left| left > 0)
        });
    }

    /// Gives a message to whoever listens on `to`; how many that were. Of a queue group it is one.
    pub(super) fn deliver(&mut self, to: &str, message: &Message) -> usize {
        self.turn = self.turn.wrapping_add(1);
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut chosen = Vec::new();
        for (place, one) in self.subscriptions.iter().enumerate() {
            if subject::matches(&one.subject, to) {
                match &one.queue {
                    None => chosen.push(place),
                    Some(queue) => groups.entry(queue).or_default().push(place),
                }
            }
        }
        for members in groups.values() {
            chosen.extend(members.get(self.turn % members.len().max(1)));
        }
        for place in &chosen {
            let Some(one) = self.subscriptions.get_mut(*place) else { continue };
            one.got += 1;
            one.left = one.left.map(|left| left.saturating_sub(1));
            let (connection, bytes) = (one.connection, wire::encode(message, &one.sid));
            self.send(connection, bytes);
        }
        self.subscriptions.retain(|one| one.left != Some(0));
        chosen.len()
    }

    pub(super) fn answer(&mut self, reply: Option<&str>, body: &Value) {
        if let Some(reply) = reply {
            let message = Message::new(reply, None, Bytes::new(), Bytes::from(body.to_string()));
            self.deliver(reply, &message);
        }
    }

    pub(super) fn nobody(&mut self, reply: Option<&str>) {
        if let Some(reply) = reply {
            self.deliver(reply, &Message::status(reply, "503", &[]));
        }
    }

    /// A message from a client.
    pub(super) fn publish(&mut self, message: &Message) {
        if let Some(tail) = message.subject.strip_prefix("$JS.API.") {
            return self.api(tail, message);
        }
        if let Some(tail) = message.subject.strip_prefix("$JS.ACK.") {
            return self.ack(tail, message);
        }
        let heard = self.deliver(&message.subject.clone(), message);
        let taken = self.store_published(message);
        if heard == 0 && !taken {
            self.nobody(message.reply.as_deref());
        }
    }

    /// What is due.
    pub(super) fn tick(&mut self) {
        self.fire_schedules();
        self.forget_batches();
        self.expire();
        let names: Vec<String> = self.streams.keys().cloned().collect();
        for name in names {
            self.serve_pulls(&name);
        }
    }
}
