//! JetStream's administrative requests, those that hosts make.

use super::consumer::Consumer;
use super::core::{Core, Message};
use super::stream::{Refusal, Stream};
use super::subject;
use super::time::{now_ns, parse_rfc3339};
use serde_json::{Value, json};

type Answer = Result<Value, Refusal>;

fn no_stream() -> Refusal {
    Refusal(404, 10059, "stream not found".into())
}

fn no_consumer() -> Refusal {
    Refusal(404, 10014, "consumer not found".into())
}

impl Core {
    pub(super) fn api(&mut self, tail: &str, message: &Message) {
        let request: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let reply = message.reply.as_deref();
        let tokens: Vec<&str> = tail.split('.').collect();
        let answer = match tokens.as_slice() {
            ["DIRECT", "GET", ..] => {
                let rest = tail.strip_prefix("DIRECT.GET.").unwrap_or_default().to_owned();
                return self.direct_get(&rest, &request, reply);
            }
            ["CONSUMER", "MSG", "NEXT", stream, consumer] => {
                return self.pull(stream, consumer, &request, reply);
            }
            ["INFO"] => Ok(self.account()),
            ["STREAM", "CREATE", name] => self.create_stream(name, &request),
            ["STREAM", "INFO", name] => {
                self.streams.get(*name).map(|stream| stream.answer(&request)).ok_or_else(no_stream)
            }
            ["STREAM", "NAMES"] => Ok(self.stream_names(&request)),
            ["STREAM", "DELETE", name] => {
                self.streams.remove(*name).map(|_| json!({ "success": true })).ok_or_else(no_stream)
            }
            ["STREAM", "PURGE", name] => self.purge(name, &request),
            ["STREAM", "MSG", "DELETE", name] => self.delete_message(name, &request),
            ["CONSUMER", "CREATE", stream, name, ..] => self.create_consumer(stream, name, &request),
            ["CONSUMER", "INFO", stream, name] => self.consumer_info(stream, name),
            ["CONSUMER", "LIST", stream] => self.list_consumers(stream),
            ["CONSUMER", "PAUSE", stream, name] => self.pause(stream, name, &request),
            ["CONSUMER", "DELETE", stream, name] => {
                let stream = self.streams.get_mut(*stream).ok_or_else(no_stream);
                stream
                    .and_then(|stream| stream.consumers.remove(*name).ok_or_else(no_consumer))
                    .map(|_| json!({ "success": true }))
            }
            _ => Err(Refusal(400, 10003, format!("the broker double does not serve {tail}"))),
        };
        let answer = answer.unwrap_or_else(|refusal| refusal.json());
        self.answer(reply, &answer);
    }

    fn account(&self) -> Value {
        let consumers: usize = self.streams.values().map(|stream| stream.consumers.len()).sum();
        json!({
            "memory": 0, "storage": 0, "streams": self.streams.len(), "consumers": consumers,
            "limits": { "max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1 },
            "api": { "total": 0, "errors": 0 },
        })
    }

    fn create_stream(&mut self, name: &str, request: &Value) -> Answer {
        let config = request.as_object().cloned().unwrap_or_default();
        if let Some(there) = self.streams.get(name) {
            return if there.config == config {
                Ok(there.info())
            } else {
                Err(Refusal(400, 10058, "stream name already in use with a different configuration".into()))
            };
        }
        let stream = Stream::new(config);
        if stream.is("allow_msg_schedules") && stream.text("discard") == "new" {
            return Err(Refusal(400, 10052, "message schedules cannot be used with discard new".into()));
        }
        let overlaps =
            |other: &Stream| subjects(other).any(|a| subjects(&stream).any(|b| subject::overlaps(a, b)));
        if self.streams.values().any(overlaps) {
            return Err(Refusal(400, 10065, "subjects overlap with an existing stream".into()));
        }
        let info = stream.info();
        self.streams.insert(name.to_owned(), stream);
        Ok(info)
    }

    fn stream_names(&self, request: &Value) -> Value {
        let filter = request.get("subject").and_then(Value::as_str).unwrap_or(">");
        let found =
            self.streams.iter().filter(|(_, stream)| subjects(stream).any(|s| subject::overlaps(s, filter)));
        let names: Vec<&String> = found.map(|(name, _)| name).collect();
        let offset = request.get("offset").and_then(Value::as_u64).unwrap_or(0);
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        json!({ "total": names.len(), "offset": offset, "limit": 1024, "streams": names.get(skip..).unwrap_or_default() })
    }

    fn purge(&mut self, name: &str, request: &Value) -> Answer {
        let stream = self.streams.get_mut(name).ok_or_else(no_stream)?;
        let filter = request.get("filter").and_then(Value::as_str).unwrap_or(">");
        let before = stream.messages.len();
        stream.messages.retain(|_, message| !subject::matches(filter, &message.subject));
        Ok(json!({ "success": true, "purged": before - stream.messages.len() }))
    }

    fn delete_message(&mut self, name: &str, request: &Value) -> Answer {
        let stream = self.streams.get_mut(name).ok_or_else(no_stream)?;
        let seq = request.get("seq").and_then(Value::as_u64).unwrap_or_default();
        match stream.messages.remove(&seq) {
            Some(_) => Ok(json!({ "success": true })),
            None => Err(Refusal(400, 10043, format!("no message found with sequence {seq}"))),
        }
    }

    fn create_consumer(&mut self, stream_name: &str, name: &str, request: &Value) -> Answer {
        let stream = self.streams.get_mut(stream_name).ok_or_else(no_stream)?;
        let config = request.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let action = request.get("action").and_then(Value::as_str).unwrap_or_default();
        let consumer = Consumer::new(config);
        if let Some(there) = stream.consumers.get_mut(name) {
            if there.config != consumer.config {
                if action == "create" {
                    return Err(Refusal(400, 10148, "consumer already exists".into()));
                }
                // A pause outlives an update.
                let pause = there.config.get("pause_until").cloned();
                there.config = consumer.config;
                there.config.extend(pause.map(|until| ("pause_until".to_owned(), until)));
            }
        } else {
            let taken = |other: &Consumer| subject::overlaps(other.filter(), consumer.filter());
            if stream.is_queue() && stream.consumers.values().any(taken) {
                let text = "filtered consumer not unique on workqueue stream";
                return Err(Refusal(400, 10100, text.into()));
            }
            stream.consumers.insert(name.to_owned(), consumer);
        }
        self.consumer_info(stream_name, name)
    }

    fn consumer_info(&self, stream_name: &str, name: &str) -> Answer {
        let stream = self.streams.get(stream_name).ok_or_else(no_stream)?;
        let consumer = stream.consumers.get(name).ok_or_else(no_consumer)?;
        Ok(consumer.info(stream_name, stream))
    }

    fn list_consumers(&self, stream_name: &str) -> Answer {
        let stream = self.streams.get(stream_name).ok_or_else(no_stream)?;
        let all: Vec<Value> = stream.consumers.values().map(|one| one.info(stream_name, stream)).collect();
        Ok(json!({ "total": all.len(), "offset": 0, "limit": all.len(), "consumers": all }))
    }

    fn pause(&mut self, stream_name: &str, name: &str, request: &Value) -> Answer {
        let stream = self.streams.get_mut(stream_name).ok_or_else(no_stream)?;
        let consumer = stream.consumers.get_mut(name).ok_or_else(no_consumer)?;
        let until = request.get("pause_until").cloned().unwrap_or_default();
        let left = until.as_str().and_then(parse_rfc3339).unwrap_or(0).saturating_sub(now_ns());
        consumer.config.insert("pause_until".to_owned(), until.clone());
        Ok(json!({ "paused": left > 0, "pause_until": until, "pause_remaining": left }))
    }
}

fn subjects(stream: &Stream) -> impl Iterator<Item = &str> {
    stream.config.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
