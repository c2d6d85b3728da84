//! The sending end of a stream.

use super::{Silence, cost};
use crate::broker::Broker;
use bytes::Bytes;
use cardcage_protocol::{Frame, limits};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Sends a body to `subject`, piece by piece as `next` yields them, within what `credits` allow.
///
/// # Errors
/// A reason for the log: the body failed, the other side is silent, or the broker is away. Where possible the other
/// side has been told.
pub async fn send<F, Fut>(
    broker: &Broker,
    subject: &str,
    credits: &Arc<Semaphore>,
    silence: Silence,
    mut next: F,
) -> Result<(), String>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<Result<Bytes, String>>>,
{
    let mut out = Sender { broker, subject, credits, silence, seq: 0 };
    let keep_alive = silence.0 / 3;
    loop {
        let piece = {
            let mut pending = std::pin::pin!(next());
            loop {
                tokio::select! {
                    piece = &mut pending => break piece,
                    () = sleep(keep_alive.max(Duration::from_millis(10))) => out.data(Bytes::new()).await?,
                }
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
    credits: &'a Arc<Semaphore>,
    silence: Silence,
    seq: u32,
}

impl Sender<'_> {
    async fn data(&mut self, bytes: Bytes) -> Result<(), String> {
        let allowed = timeout(self.silence.0, self.credits.acquire_many(cost(bytes.len()))).await;
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
