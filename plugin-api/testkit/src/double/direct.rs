//! Direct gets: reading stored messages without a consumer.

use super::core::{Core, Message};
use super::stream::Stored;
use super::time::rfc3339;
use super::wire;
use serde_json::Value;

/// Messages of one answer at most, whatever was asked for.
const BATCH_MAX: u64 = 10_000;

impl Core {
    /// `DIRECT.GET.<stream>[.<subject>]`.
    pub(super) fn direct_get(&mut self, tail: &str, request: &Value, reply: Option<&str>) {
        let (name, subject) = tail.split_once('.').map_or((tail, None), |(name, rest)| (name, Some(rest)));
        let (Some(stream), Some(reply)) = (self.streams.get(name), reply) else { return self.nobody(reply) };
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let number = |name: &str| request.get(name).and_then(Value::as_u64);
        let last_of =
            |subject: &str| stream.last_of(subject).and_then(|seq| Some((seq, stream.messages.get(&seq)?)));
        let batch = number("batch").map(|most| usize::try_from(most.min(BATCH_MAX)).unwrap_or(1));
        let mut answers = Vec::new();
        if let Some(subject) = subject.or_else(|| text("last_by_subj")) {
            answers.extend(last_of(subject).map(|(seq, message)| stored(reply, name, seq, message, None)));
        } else if let Some(filter) = text("next_by_subj") {
            let from = number("seq").unwrap_or(1);
            let all: Vec<(u64, &Stored)> = stream.matching(from, filter).collect();
            let most = number("max_bytes").and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let mut bytes = 0;
            for (place, (seq, message)) in all.iter().take(batch.unwrap_or(1)).enumerate() {
                bytes += message.body.len();
                if bytes > most && place > 0 {
                    break;
                }
                let left = batch.map(|_| all.len() - place - 1);
                answers.push(stored(reply, name, *seq, message, left));
            }
            if batch.is_some() && !answers.is_empty() {
                let left = (all.len() - answers.len()).to_string();
                let headers = [("Nats-Num-Pending".to_owned(), left)];
                answers.push(Message::status(reply, "204 EOB", &headers));
            }
        } else if let Some(seq) = number("seq") {
            answers.extend(stream.messages.get(&seq).map(|message| stored(reply, name, seq, message, None)));
        }
        if answers.is_empty() {
            answers.push(Message::status(reply, "404 Message Not Found", &[]));
        }
        for answer in answers {
            self.deliver(reply, &answer);
        }
    }
}

fn stored(to: &str, stream: &str, seq: u64, message: &Stored, left: Option<usize>) -> Message {
    let mut headers = message.headers.clone();
    headers.extend([
        ("Nats-Stream".to_owned(), stream.to_owned()),
        ("Nats-Subject".to_owned(), message.subject.clone()),
        ("Nats-Sequence".to_owned(), seq.to_string()),
        ("Nats-Time-Stamp".to_owned(), rfc3339(message.at_ns)),
    ]);
    headers.extend(left.map(|left| ("Nats-Num-Pending".to_owned(), left.to_string())));
    Message::new(to, None, wire::block("", &headers), message.body.clone())
}
