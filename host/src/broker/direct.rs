//! Reading one stored message, by a direct get: a read that any replica answers.
//!
//! A replica may lag: where streams are replicated, a miss is confirmed at the leader before it counts.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use cardcage_protocol::{Timestamp, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::{Broker, Error};

/// JetStream: no message matches.
const NO_MESSAGE_FOUND: u32 = 10037;
/// Time for one read.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before asking lagging replicas again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A stored message.
pub(super) struct StoredMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) stored_at: Option<Timestamp>,
    pub(super) headers: Option<HeaderMap>,
    pub(super) payload: Bytes,
}

impl Broker {
    /// The last message on a subject.
    pub(super) async fn last_message(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, Error> {
        let get = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        self.get(stream, get, Bytes::new(), json!({ "last_by_subj": subject })).await
    }

    /// The first message whose subject matches a filter.
    pub(super) async fn first_message(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<Option<StoredMessage>, Error> {
        let body = json!({ "seq": 1, "next_by_subj": filter });
        let payload = Bytes::from(body.to_string());
        self.get(stream, format!("$JS.API.DIRECT.GET.{stream}"), payload, body).await
    }

    /// The message at this sequence.
    pub(super) async fn message_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, Error> {
        let body = json!({ "seq": sequence });
        let payload = Bytes::from(body.to_string());
        self.get(stream, format!("$JS.API.DIRECT.GET.{stream}"), payload, body).await
    }

    async fn get(
        &self,
        stream: &str,
        subject: String,
        payload: Bytes,
        at_leader: Value,
    ) -> Result<Option<StoredMessage>, Error> {
        let end = Instant::now() + READ_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.request(subject.clone(), None, payload.clone(), left).await?;
            match message.status.map(|status| status.as_u16()) {
                None => return read(stream, message).map(Some),
                Some(404) if self.options().replicas == 1 => return Ok(None),
                Some(404) => {}
                Some(code) => {
                    let description = message.description.unwrap_or_default();
                    return Err(Error::Refused { code: u32::from(code), description });
                }
            }
            if !self.leader_has(stream, &at_leader).await? {
                return Ok(None);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
            if Instant::now() >= end {
                return Err(Error::unavailable(format!("the replicas of {stream} lag behind their leader")));
            }
        }
    }

    async fn leader_has(&self, stream: &str, request: &Value) -> Result<bool, Error> {
        match self.api(&format!("STREAM.MSG.GET.{stream}"), request, API_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: NO_MESSAGE_FOUND | STREAM_NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn read(stream: &str, message: Message) -> Result<StoredMessage, Error> {
    let missing =
        |name: &'static str| Error::unreadable(format!("a message of {stream}"), format!("it has no {name}"));
    let headers = message.headers.unwrap_or_default();
    let value = |name: &'static str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let sequence = value(header::NATS_SEQUENCE).and_then(|text| text.parse().ok());
    let subject = value(header::NATS_SUBJECT).map(str::to_owned);
    Ok(StoredMessage {
        subject: subject.ok_or_else(|| missing(header::NATS_SUBJECT))?,
        sequence: sequence.ok_or_else(|| missing(header::NATS_SEQUENCE))?,
        stored_at: value(header::NATS_TIME_STAMP).and_then(|text| text.parse().ok()),
        headers: Some(headers),
        payload: message.payload,
    })
}
