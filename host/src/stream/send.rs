//! The sending end of a stream.

use super::{Credits, Silence, cost};
use crate::broker::Broker;
use bytes::Bytes;
use cardcage_protocol::{Frame, limits};
use futures_util::{Stream, StreamExt};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Sends a body to `subject`, piece by piece as it yields them, within what `credits` allow.
///
/// # Errors
/// A reason for the log: the body failed, the other side is silent, or the broker is away. Where possible the other
/// side has been told.
pub async fn send(
    broker: &Broker,
    subject: &str,
    credits: &Credits,
    silence: Silence,
    body: impl Stream<Item = Result<Bytes, String>>,
) -> Result<(), String> {
    let mut body = std::pin::pin!(body);
    let mut out = Sender { broker, subject, credits, silence, seq: 0 };
    let keep_alive = (silence.0 / 3).max(Duration::from_millis(10));
    loop {
        let piece = tokio::select! {
            piece = body.next() => piece,
            () = sleep(keep_alive) => {
                out.data(Bytes::new()).await?;
                continue;
            }
        };
        match piece {
            Some(Ok(mut bytes)) => {
                while !bytes.is_empty() {
                    let part = bytes.split_to(bytes.len().min(limits::FRAME_DATA_MAX_BYTES));
                    out.data(part).await?;
                }
            }
            Some(Err(reason)) => {
                out.publish(&Frame::abort(&reason)).await?;
                return Err(reason);
            }
            None => return out.publish(&Frame::End { seq: out.seq }).await,
        }
    }
}

struct Sender<'a> {
    broker: &'a Broker,
    subject: &'a str,
    credits: &'a Credits,
    silence: Silence,
    seq: u32,
}

impl Sender<'_> {
    async fn data(&mut self, bytes: Bytes) -> Result<(), String> {
        let allowed = timeout(self.silence.0, self.credits.bytes.acquire_many(cost(bytes.len()))).await;
        match allowed {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err("the stream was closed".into()),
            Err(_) => {
                let reason = "the receiver took nothing for too long";
                self.publish(&Frame::abort(reason)).await?;
                return Err(reason.into());
            }
        }
        let frame = Frame::Data { seq: self.seq, bytes };
        self.seq = self.seq.wrapping_add(1);
        self.publish(&frame).await
    }

    async fn publish(&self, frame: &Frame) -> Result<(), String> {
        let bytes = frame.encode().map_err(|error| error.to_string())?;
        self.broker.publish(self.subject.to_owned(), bytes).await.map_err(|error| error.to_string())
    }
}
