//! A stream: its settings and its messages.

use super::consumer::Consumer;
use super::schedule::Schedule;
use super::subject;
use super::time::{now_ns, parse_duration, rfc3339};
use plugin_api::bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// As many subjects as one answer tells.
const SUBJECTS_MAX: usize = 100_000;

/// A stored message.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) at_ns: u64,
    /// When it vanishes.
    pub(super) ends_ns: Option<u64>,
    /// When its schedule fires next.
    pub(super) fires: Option<(u64, Schedule)>,
}

impl Stored {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub(super) struct Stream {
    pub(super) config: Map<String, Value>,
    pub(super) messages: BTreeMap<u64, Stored>,
    pub(super) last: u64,
    /// Message ids, with sequence and time.
    pub(super) ids: BTreeMap<String, (u64, u64)>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    created_ns: u64,
}

/// Why something is refused: HTTP-like code, JetStream's code, text.
pub(super) struct Refusal(pub(super) u32, pub(super) u32, pub(super) String);

impl Refusal {
    pub(super) fn json(&self) -> Value {
        let Self(code, err_code, description) = self;
        json!({ "error": { "code": code, "err_code": err_code, "description": description } })
    }
}

impl Stream {
    pub(super) fn new(config: Map<String, Value>) -> Self {
        Self {
            config,
            messages: BTreeMap::new(),
            last: 0,
            ids: BTreeMap::new(),
            consumers: BTreeMap::new(),
            created_ns: now_ns(),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.config.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A bound; `None` where there is none.
    pub(super) fn bound(&self, name: &str) -> Option<u64> {
        self.config.get(name).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.config.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(super) fn is_queue(&self) -> bool {
        self.text("retention") == "workqueue"
    }

    pub(super) fn takes(&self, subject: &str) -> bool {
        let subjects = self.config.get("subjects").and_then(Value::as_array);
        subjects
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|filter| subject::matches(filter, subject))
    }

    pub(super) fn last_of(&self, subject: &str) -> Option<u64> {
        self.messages.iter().rev().find(|(_, message)| message.subject == subject).map(|(seq, _)| *seq)
    }

    pub(super) fn matching(&self, from: u64, filter: &str) -> impl Iterator<Item = (u64, &Stored)> {
        let all = self.messages.range(from..).map(|(seq, message)| (*seq, message));
        all.filter(move |(_, message)| subject::matches(filter, &message.subject))
    }

    fn bytes(&self) -> u64 {
        let size = |message: &Stored| {
            let headers: usize =
                message.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
            u64::try_from(message.subject.len() + headers + message.body.len()).unwrap_or(u64::MAX)
        };
        self.messages.values().map(size).sum()
    }

    /// Whether so many more are refused.
    pub(super) fn room(&self, more: usize, bytes: usize) -> Result<(), Refusal> {
        if self.text("discard") != "new" {
            return Ok(());
        }
        let count = u64::try_from(self.messages.len() + more).unwrap_or(u64::MAX);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let full = |what: &str| Err(Refusal(503, 10077, format!("maximum {what} exceeded")));
        if self.bound("max_msgs").is_some_and(|max| count > max) {
            return full("messages");
        }
        if self.bound("max_bytes").is_some_and(|max| self.bytes().saturating_add(bytes) > max) {
            return full("bytes");
        }
        Ok(())
    }

    /// The sequence of a message id that was seen within the window.
    pub(super) fn seen(&self, id: &str) -> Option<u64> {
        let window = self.bound("duplicate_window").unwrap_or(120_000_000_000);
        self.ids.get(id).filter(|(_, at)| at.saturating_add(window) > now_ns()).map(|(seq, _)| *seq)
    }

    /// Stores what was looked at before; its sequence.
    pub(super) fn push(&mut self, subject: &str, headers: Vec<(String, String)>, body: Bytes) -> u64 {
        let at_ns = now_ns();
        let mut message =
            Stored { subject: subject.to_owned(), headers, body, at_ns, ends_ns: None, fires: None };
        if self.is("allow_msg_ttl") {
            let ttl = message.header("Nats-TTL").and_then(parse_duration);
            message.ends_ns = ttl.map(|ttl| at_ns.saturating_add(ttl));
        }
        let is_kept = self.is("allow_msg_ttl") && message.header("Nats-TTL") == Some("never");
        if let Some(age) = self.bound("max_age").filter(|_| !is_kept) {
            let end = at_ns.saturating_add(age);
            message.ends_ns = Some(message.ends_ns.map_or(end, |earlier| earlier.min(end)));
        }
        let schedule =
            message.header("Nats-Schedule").filter(|_| self.is("allow_msg_schedules")).map(str::to_owned);
        // What cannot be read was refused before it came here.
        let zone = message.header("Nats-Schedule-Time-Zone");
        let read = schedule.as_deref().and_then(|pattern| Schedule::read(pattern, zone));
        message.fires = read.and_then(|schedule| Some((schedule.first(at_ns)?, schedule)));
        let replaces = schedule.is_some() || message.header("Nats-Rollup") == Some("sub");
        if replaces {
            self.messages.retain(|_, other| other.subject != subject);
        }
        if let Some(id) = message.header("Nats-Msg-Id").map(str::to_owned) {
            self.ids.insert(id, (self.last + 1, at_ns));
        }
        self.last += 1;
        self.messages.insert(self.last, message);
        if let Some(most) = self.bound("max_msgs_per_subject") {
            let of: Vec<u64> =
                self.messages.iter().filter(|(_, m)| m.subject == subject).map(|(seq, _)| *seq).collect();
            let surplus = of.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
            for seq in of.into_iter().take(surplus) {
                self.messages.remove(&seq);
            }
        }
        while self.bound("max_msgs").is_some_and(|max| self.messages.len() as u64 > max)
            || self.bound("max_bytes").is_some_and(|max| self.bytes() > max)
        {
            self.messages.pop_first();
        }
        self.last
    }

    pub(super) fn info(&self) -> Value {
        let first = self.messages.keys().next().copied().unwrap_or(self.last + 1);
        json!({
            "config": self.config,
            "created": rfc3339(self.created_ns),
            "state": {
                "messages": self.messages.len(), "bytes": self.bytes(),
                "first_seq": first, "first_ts": stored_at(self.messages.values().next()),
                "last_seq": self.last, "last_ts": stored_at(self.messages.values().next_back()),
                "consumer_count": self.consumers.len(),
            },
            "ts": rfc3339(now_ns()),
        })
    }

    /// What is told to whoever asks with `request`; where that has a filter, subjects with their numbers of messages too.
    pub(super) fn answer(&self, request: &Value) -> Value {
        let mut info = self.info();
        let mut subjects: BTreeMap<&str, u64> = BTreeMap::new();
        if let Some(filter) = request.get("subjects_filter").and_then(Value::as_str) {
            for (_, message) in self.matching(1, filter) {
                *subjects.entry(&message.subject).or_default() += 1;
            }
        }
        let total = subjects.len();
        let offset = request.get("offset").and_then(Value::as_u64).filter(|_| total > 0).unwrap_or(0);
        let page =
            subjects.into_iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(SUBJECTS_MAX);
        let page: Map<String, Value> =
            page.map(|(subject, count)| (subject.to_owned(), count.into())).collect();
        if let Some(state) = info.get_mut("state").and_then(Value::as_object_mut).filter(|_| !page.is_empty())
        {
            state.insert("subjects".to_owned(), page.into());
        }
        if let Some(info) = info.as_object_mut() {
            info.insert("total".to_owned(), total.into());
            info.insert("offset".to_owned(), offset.into());
            info.insert("limit".to_owned(), if total > 0 { SUBJECTS_MAX } else { 0 }.into());
        }
        info
    }
}

/// When a message was stored, as NATS writes it: of none, the year 1.
fn stored_at(message: Option<&Stored>) -> String {
    message.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |message| rfc3339(message.at_ns))
}
