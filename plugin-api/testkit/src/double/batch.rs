//! Batches: messages that are kept back until the last one completes them, and then stored together, or not at all.
//!
//! A batch is one stream's: what belongs to another is another batch, whatever its id.

use super::core::{Core, Message};
use super::store::{Headers, check, header};
use super::stream::Refusal;
use super::time::now_ns;
use super::wire;
use plugin_api::bytes::Bytes;
use serde_json::{Value, json};

/// As many messages as one batch may have.
const MESSAGES_MAX: usize = 1_000;
/// As many batches as may be under way in a stream.
const UNDER_WAY_MAX: usize = 50;
/// A batch of which nothing comes for so long is forgotten.
const SILENCE_NS: u64 = 10_000_000_000;

/// Messages of a batch that is not complete.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<Message>,
    last_ns: u64,
}

impl Core {
    /// `None`: the batch goes on.
    pub(super) fn batch(
        &mut self,
        name: &str,
        batch: &str,
        headers: &Headers,
        message: &Message,
    ) -> Result<Option<Value>, Refusal> {
        let key = (name.to_owned(), batch.to_owned());
        let stream = self.streams.get(name).ok_or_else(|| Refusal(404, 10059, "stream not found".into()))?;
        if !stream.is("allow_atomic") {
            return Err(Refusal(400, 10174, "atomic publish is disabled".into()));
        }
        let number: Option<usize> = header(headers, "Nats-Batch-Sequence").and_then(|n| n.parse().ok());
        if number == Some(1) {
            let under_way = self.batches.keys().filter(|(stream, _)| stream == name).count();
            if under_way >= UNDER_WAY_MAX {
                return Err(Refusal(429, 10210, "atomic publish too many inflight".into()));
            }
        }
        let waiting = self.batches.entry(key.clone()).or_default();
        waiting.messages.push(message.clone());
        waiting.last_ns = now_ns();
        if number != Some(waiting.messages.len()) {
            self.batches.remove(&key);
            return Err(Refusal(400, 10176, "atomic publish batch is incomplete".into()));
        }
        if waiting.messages.len() > MESSAGES_MAX {
            self.batches.remove(&key);
            return Err(Refusal(400, 10199, format!("atomic publish batch is too large: {MESSAGES_MAX}")));
        }
        if header(headers, "Nats-Batch-Commit") != Some("1") {
            return Ok(None);
        }
        let messages = self.batches.remove(&key).unwrap_or_default().messages;
        self.complete(name, batch, messages).map(Some)
    }

    fn complete(&mut self, name: &str, batch: &str, messages: Vec<Message>) -> Result<Value, Refusal> {
        let stream = self.streams.get(name).ok_or_else(|| Refusal(404, 10059, "stream not found".into()))?;
        let all: Vec<(String, Headers, Bytes)> =
            messages.into_iter().map(|one| (one.subject, wire::headers(&one.head), one.body)).collect();
        for (subject, headers, body) in &all {
            if check(stream, subject, headers, body)?.is_some() {
                return Err(Refusal(400, 10201, "batch publish contains duplicate message id".into()));
            }
        }
        stream.room(all.len(), all.iter().map(|(_, _, body)| body.len()).sum())?;
        let (count, mut last) = (all.len(), json!(null));
        for (subject, mut headers, body) in all {
            headers.retain(|(name, _)| !name.starts_with("Nats-Batch-"));
            last = self.store(name, &subject, headers, body)?;
        }
        Ok(json!({ "stream": name, "seq": last.get("seq"), "batch": batch, "count": count }))
    }

    /// Forgets batches of which nothing more came.
    pub(super) fn forget_batches(&mut self) {
        let now = now_ns();
        self.batches.retain(|_, batch| batch.last_ns.saturating_add(SILENCE_NS) > now);
    }
}
