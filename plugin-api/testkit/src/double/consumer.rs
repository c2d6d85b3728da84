//! Pull consumers: who takes what from a stream, until when, and what comes again.

use super::core::{Core, Message};
use super::stream::Stream;
use super::time::{now_ns, parse_rfc3339, rfc3339};
use super::wire;
use plugin_api::bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};

/// A request for messages that stands.
struct Pull {
    reply: String,
    left: u64,
    ends_ns: u64,
}

pub(super) struct Consumer {
    pub(super) config: Map<String, Value>,
    /// The next sequence of the stream that was never delivered.
    position: u64,
    count: u64,
    last_delivered: u64,
    /// Deliveries that stand, by sequence: until when.
    pending: BTreeMap<u64, u64>,
    deliveries: BTreeMap<u64, u64>,
    again: VecDeque<u64>,
    pulls: VecDeque<Pull>,
}

impl Consumer {
    pub(super) fn new(config: Map<String, Value>) -> Self {
        Self {
            config,
            position: 1,
            count: 0,
            last_delivered: 0,
            pending: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            again: VecDeque::new(),
            pulls: VecDeque::new(),
        }
    }

    pub(super) fn filter(&self) -> &str {
        self.config.get("filter_subject").and_then(Value::as_str).filter(|f| !f.is_empty()).unwrap_or(">")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.config.get(name).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok())
    }

    fn pause_ends_ns(&self) -> Option<u64> {
        let until = self.config.get("pause_until").and_then(Value::as_str).and_then(parse_rfc3339);
        until.filter(|until| *until > now_ns())
    }

    fn waiting(&self, stream: &Stream) -> usize {
        self.again.len() + stream.matching(self.position, self.filter()).count()
    }

    pub(super) fn info(&self, stream_name: &str, stream: &Stream) -> Value {
        let mut info = json!({
            "stream_name": stream_name,
            "name": self.config.get("name"),
            "config": self.config,
            "delivered": { "consumer_seq": self.count, "stream_seq": self.last_delivered },
            "ack_floor": { "consumer_seq": 0, "stream_seq": 0 },
            "num_ack_pending": self.pending.len(),
            "num_redelivered": self.again.len(),
            "num_waiting": self.pulls.len(),
            "num_pending": self.waiting(stream),
            "ts": rfc3339(now_ns()),
        });
        if let (Some(info), Some(until)) = (info.as_object_mut(), self.pause_ends_ns()) {
            info.insert("paused".to_owned(), true.into());
            info.insert("pause_remaining".to_owned(), until.saturating_sub(now_ns()).into());
        }
        info
    }

    /// The next message to be delivered; `None` where there is none, or none may be.
    fn next(&mut self, stream: &Stream) -> Option<u64> {
        let most = self.number("max_ack_pending").filter(|most| *most > 0).unwrap_or(u64::MAX);
        if self.pause_ends_ns().is_some() || self.pending.len() as u64 >= most {
            return None;
        }
        while let Some(seq) = self.again.pop_front() {
            if stream.messages.contains_key(&seq) {
                return Some(seq);
            }
        }
        let seq = stream.matching(self.position, self.filter()).next().map(|(seq, _)| seq)?;
        self.position = seq + 1;
        Some(seq)
    }

    /// Takes the next message for the first pull: to whom it goes.
    fn take(&mut self, name: &str, stream_name: &str, stream: &Stream) -> Option<(String, u64, Message)> {
        self.pulls.front()?;
        let seq = self.next(stream)?;
        let stored = stream.messages.get(&seq)?;
        let pull = self.pulls.front_mut()?;
        pull.left = pull.left.saturating_sub(1);
        let reply = pull.reply.clone();
        if pull.left == 0 {
            self.pulls.pop_front();
        }
        self.count += 1;
        self.last_delivered = self.last_delivered.max(seq);
        let delivered = self.deliveries.entry(seq).and_modify(|n| *n += 1).or_insert(1);
        let ack_wait = self.config.get("ack_wait").and_then(Value::as_u64).unwrap_or(30_000_000_000);
        self.pending.insert(seq, now_ns().saturating_add(ack_wait));
        let (count, at_ns) = (self.count, stored.at_ns);
        let ack = format!("$JS.ACK.{stream_name}.{name}.{delivered}.{seq}.{count}.{at_ns}.");
        let ack = format!("{ack}{}", self.waiting(stream));
        let head = if stored.headers.is_empty() { Bytes::new() } else { wire::block("", &stored.headers) };
        Some((reply, seq, Message::new(&stored.subject, Some(&ack), head, stored.body.clone())))
    }

    /// Gives a delivery back.
    fn give_back(&mut self, seq: u64) {
        if self.pending.remove(&seq).is_some() {
            self.again.push_back(seq);
        }
    }

    fn expire(&mut self, now: u64) -> Vec<Message> {
        let over: Vec<u64> =
            self.pending.iter().filter(|(_, end)| **end <= now).map(|(seq, _)| *seq).collect();
        for seq in over {
            self.give_back(seq);
        }
        let (ended, standing) =
            std::mem::take(&mut self.pulls).into_iter().partition(|pull| pull.ends_ns <= now);
        self.pulls = standing;
        let ended: VecDeque<Pull> = ended;
        ended.iter().map(|pull| unfilled(pull, "408 Request Timeout")).collect()
    }
}

fn unfilled(pull: &Pull, status: &str) -> Message {
    let left = [("Nats-Pending-Messages", pull.left.to_string()), ("Nats-Pending-Bytes", "0".to_owned())];
    Message::status(&pull.reply, status, &left.map(|(name, value)| (name.to_owned(), value)))
}

impl Core {
    /// `CONSUMER.MSG.NEXT`.
    pub(super) fn pull(&mut self, stream: &str, consumer: &str, request: &Value, reply: Option<&str>) {
        let found = self.streams.get_mut(stream).and_then(|stream| stream.consumers.get_mut(consumer));
        let (Some(found), Some(reply)) = (found, reply) else { return self.nobody(reply) };
        let number = |name: &str| request.get(name).and_then(Value::as_u64);
        let no_wait = request.get("no_wait").and_then(Value::as_bool).unwrap_or_default();
        let ends_ns = now_ns().saturating_add(number("expires").unwrap_or(u64::MAX));
        found.pulls.push_back(Pull {
            reply: reply.to_owned(),
            left: number("batch").unwrap_or(1).max(1),
            ends_ns,
        });
        self.serve_pulls(stream);
        let found = self.streams.get_mut(stream).and_then(|stream| stream.consumers.get_mut(consumer));
        let Some(found) = found.filter(|_| no_wait) else { return };
        let place = found.pulls.iter().position(|pull| pull.reply == reply);
        if let Some(pull) = place.and_then(|place| found.pulls.remove(place)) {
            self.deliver(reply, &unfilled(&pull, "404 No Messages"));
        }
    }

    /// Delivers what is there to those who asked for it.
    pub(super) fn serve_pulls(&mut self, name: &str) {
        let names: Vec<String> = self
            .streams
            .get(name)
            .map(|stream| stream.consumers.keys().cloned().collect())
            .unwrap_or_default();
        for consumer_name in names {
            loop {
                let Some(stream) = self.streams.get_mut(name) else { return };
                let Some(mut consumer) = stream.consumers.remove(&consumer_name) else { break };
                let taken = consumer.take(&consumer_name, name, stream);
                stream.consumers.insert(consumer_name.clone(), consumer);
                let Some((to, seq, message)) = taken else { break };
                if self.deliver(&to, &message) > 0 {
                    continue;
                }
                // Whoever asked has gone, with all that was asked for.
                let stream = self.streams.get_mut(name);
                if let Some(consumer) = stream.and_then(|stream| stream.consumers.get_mut(&consumer_name)) {
                    consumer.pulls.retain(|pull| pull.reply != to);
                    if consumer.pending.remove(&seq).is_some() {
                        consumer.again.push_front(seq);
                        consumer.deliveries.entry(seq).and_modify(|n| *n -= 1);
                    }
                }
            }
        }
    }

    /// What a holder says of a delivery.
    pub(super) fn ack(&mut self, tail: &str, message: &Message) {
        let mut tokens = tail.split('.');
        let (Some(name), Some(consumer)) = (tokens.next(), tokens.next()) else { return };
        let Some(seq) = tokens.nth(1).and_then(|seq| seq.parse::<u64>().ok()) else { return };
        let Some(stream) = self.streams.get_mut(name) else { return };
        let is_queue = stream.is_queue();
        let Some(holder) = stream.consumers.get_mut(consumer) else { return };
        let word = String::from_utf8_lossy(&message.body);
        match word.split_ascii_whitespace().next().unwrap_or("+ACK") {
            "-NAK" => holder.give_back(seq),
            "+WPI" => {
                let ack_wait =
                    holder.config.get("ack_wait").and_then(Value::as_u64).unwrap_or(30_000_000_000);
                if let Some(end) = holder.pending.get_mut(&seq) {
                    *end = now_ns().saturating_add(ack_wait);
                }
            }
            // An acknowledgement is no fence: a former holder's late one is taken too.
            _ => {
                holder.pending.remove(&seq);
                holder.deliveries.remove(&seq);
                holder.again.retain(|other| *other != seq);
                if is_queue {
                    stream.messages.remove(&seq);
                }
            }
        }
        if let Some(reply) = &message.reply {
            self.deliver(&reply.clone(), &Message::new(reply, None, Bytes::new(), Bytes::new()));
        }
        self.serve_pulls(name);
    }

    /// Ends leases, pulls and messages whose time is over.
    pub(super) fn expire(&mut self) {
        let now = now_ns();
        let mut ended = Vec::new();
        for stream in self.streams.values_mut() {
            stream.messages.retain(|_, message| message.ends_ns.is_none_or(|end| end > now));
            for consumer in stream.consumers.values_mut() {
                ended.extend(consumer.expire(now));
            }
        }
        for message in ended {
            self.deliver(&message.subject.clone(), &message);
        }
    }
}
