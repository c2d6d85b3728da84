//! From a publish to what is stored: duplicates, expectations, bounds, schedules, and who hears of it.

use super::core::{Core, Message};
use super::schedule::Schedule;
use super::stream::{Refusal, Stored, Stream};
use super::time::{now_ns, rfc3339};
use super::{subject, wire};
use plugin_api::bytes::Bytes;
use serde_json::{Value, json};

pub(super) type Headers = Vec<(String, String)>;

pub(super) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Why a stream does not take the message as the schedule that it is to be.
fn bad_schedule(stream: &Stream, headers: &Headers) -> Option<Refusal> {
    let pattern = header(headers, "Nats-Schedule").filter(|_| stream.is("allow_msg_schedules"))?;
    let zone = header(headers, "Nats-Schedule-Time-Zone");
    let is_cron = match Schedule::read(pattern, None) {
        Some(schedule) => matches!(schedule, Schedule::Cron(_)),
        None => return Some(Refusal(400, 10189, "message schedules pattern is invalid".into())),
    };
    match zone {
        // An interval has none.
        Some(_) if !is_cron => Some(Refusal(400, 10189, "message schedules pattern is invalid".into())),
        Some(_) if Schedule::read(pattern, zone).is_none() => {
            Some(Refusal(400, 10223, "message schedules time zone is invalid".into()))
        }
        _ => None,
    }
}

/// What a publish is held against; `Some`: it was stored before.
pub(super) fn check(
    stream: &Stream,
    subject: &str,
    headers: &Headers,
    body: &Bytes,
) -> Result<Option<u64>, Refusal> {
    if let Some(seq) = header(headers, "Nats-Msg-Id").and_then(|id| stream.seen(id)) {
        return Ok(Some(seq));
    }
    if let Some(expected) = header(headers, "Nats-Expected-Last-Subject-Sequence") {
        let last = stream.last_of(subject).unwrap_or(0);
        if expected.parse() != Ok(last) {
            return Err(Refusal(400, 10071, format!("wrong last sequence: {last}")));
        }
    }
    if let Some(refusal) = bad_schedule(stream, headers) {
        return Err(refusal);
    }
    // What replaces a message of its subject needs no room.
    let replaces = stream.bound("max_msgs_per_subject") == Some(1) && stream.last_of(subject).is_some();
    stream.room(usize::from(!replaces), body.len())?;
    Ok(None)
}

impl Core {
    /// Whether a stream takes it, and stores it or says why not.
    pub(super) fn store_published(&mut self, message: &Message) -> bool {
        let stream = self.streams.iter().find(|(_, stream)| stream.takes(&message.subject));
        let Some(name) = stream.map(|(name, _)| name.clone()) else { return false };
        let headers = wire::headers(&message.head);
        let answer = match header(&headers, "Nats-Batch-Id").map(str::to_owned) {
            Some(batch) => self.batch(&name, &batch, &headers, message),
            None => self.store(&name, &message.subject, headers, message.body.clone()).map(Some),
        };
        match answer {
            Ok(Some(answer)) => self.answer(message.reply.as_deref(), &answer),
            // A message that does not end its batch is answered by nothing.
            Ok(None) => {
                if let Some(reply) = &message.reply {
                    self.deliver(&reply.clone(), &Message::new(reply, None, Bytes::new(), Bytes::new()));
                }
            }
            Err(refusal) => self.answer(message.reply.as_deref(), &refusal.json()),
        }
        true
    }

    pub(super) fn store(
        &mut self,
        name: &str,
        subject: &str,
        headers: Headers,
        body: Bytes,
    ) -> Result<Value, Refusal> {
        let stream =
            self.streams.get_mut(name).ok_or_else(|| Refusal(404, 10059, "stream not found".into()))?;
        if let Some(seq) = check(stream, subject, &headers, &body)? {
            return Ok(json!({ "stream": name, "seq": seq, "duplicate": true }));
        }
        let seq = stream.push(subject, headers.clone(), body.clone());
        self.republish(name, subject, seq, headers, body);
        self.serve_pulls(name);
        Ok(json!({ "stream": name, "seq": seq }))
    }

    fn republish(&mut self, name: &str, subject: &str, seq: u64, mut headers: Headers, body: Bytes) {
        let Some(stream) = self.streams.get(name) else { return };
        let text = |member: &str| stream.config.get("republish")?.get(member)?.as_str().map(str::to_owned);
        let (Some(src), Some(dest)) = (text("src"), text("dest")) else { return };
        if !subject::matches(&src, subject) {
            return;
        }
        headers.extend([
            ("Nats-Stream".to_owned(), name.to_owned()),
            ("Nats-Subject".to_owned(), subject.to_owned()),
            ("Nats-Sequence".to_owned(), seq.to_string()),
        ]);
        let to = subject::map(&src, &dest, subject);
        let message = Message::new(&to, None, wire::block("", &headers), body);
        self.deliver(&to, &message);
    }

    /// Publishes what schedules have brought due.
    pub(super) fn fire_schedules(&mut self) {
        let now = now_ns();
        let mut due = Vec::new();
        for (name, stream) in &mut self.streams {
            let mut spent = Vec::new();
            for (seq, message) in &mut stream.messages {
                let Some((at, schedule)) = message.fires.take_if(|(at, _)| *at <= now) else { continue };
                let next = schedule.next(at, now);
                message.fires = next.map(|next| (next, schedule));
                due.push((name.clone(), message.clone(), next));
                if next.is_none() {
                    spent.push(*seq);
                }
            }
            for seq in spent {
                stream.messages.remove(&seq);
            }
        }
        for (name, message, next) in due {
            let Some(target) = message.header("Nats-Schedule-Target").map(str::to_owned) else { continue };
            let Stored { subject, mut headers, body, .. } = message;
            let of_the_schedule = |name: &str| {
                name.starts_with("Nats-Schedule")
                    || name.starts_with("Nats-Expected")
                    || name == "Nats-Rollup"
            };
            headers.retain(|(name, _)| !of_the_schedule(name) && name != "Nats-Msg-Id");
            headers.push(("Nats-Scheduler".to_owned(), subject));
            headers.push(("Nats-Schedule-Next".to_owned(), next.map_or("purge".to_owned(), rfc3339)));
            // Nobody waits for an answer; a schedule stream refuses nothing.
            let _ = self.store(&name, &target, headers, body);
        }
    }
}
