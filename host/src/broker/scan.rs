//! Looking through a stream without a consumer: pages of stored messages, and counts of what matches.
//!
//! Operators' commands read this way. A consumer would be state that somebody has to remove, and a work queue would
//! refuse a second one.
//!
//! Invariants: nothing is changed, and every look is bounded in messages and in bytes; whoever asks is told where the
//! bound cut it off.

use std::ops::ControlFlow;

use bytes::Bytes;
use cardcage_protocol::{Timestamp, header};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::api::{API_TIMEOUT, STREAM_NOT_FOUND};
use super::direct::{READ_TIMEOUT, StoredMessage, read};
use super::{Broker, Error};

/// Messages of one page.
const PAGE_MAX: usize = 512;
/// Bytes of one page: what is under way to one subscription at once.
const PAGE_MAX_BYTES: usize = 8 << 20;
/// Messages that one look backwards reads at most.
const LOOK_MAX: usize = 20_000;
/// Bytes that one look backwards reads at most.
const LOOK_MAX_BYTES: usize = 64 << 20;
/// The shortest step back, in sequences; a stream with many gaps is crossed in longer ones.
const STEP_MIN: u64 = PAGE_MAX as u64;
/// Messages that one step back may find.
const STEP_FINDS_MAX: u64 = 4 * STEP_MIN;

/// Consecutive messages.
pub(super) struct Page {
    pub(super) messages: Vec<StoredMessage>,
    /// How many match beyond the last one.
    pub(super) left: u64,
}

/// How much matches, and since when the oldest of it waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub count: u64,
    /// When the oldest one was stored.
    pub oldest: Option<Timestamp>,
}

/// Whether a look saw all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Messages that were read.
    pub looked_at: usize,
    /// It ended because there was nothing more, and not at a bound or a limit.
    pub complete: bool,
}

impl Broker {
    /// The messages from sequence `from` on that match `filter`, oldest first, at most `most` (and [`PAGE_MAX`]).
    /// A stream that does not exist is empty.
    pub(super) async fn page(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        most: usize,
    ) -> Result<Page, Error> {
        let inbox = self.new_inbox();
        let mut answers = timeout(READ_TIMEOUT, self.client().subscribe(inbox.clone()))
            .await
            .map_err(|_| Error::unavailable("the connection does not take data"))?
            .map_err(|error| Error::unavailable(error.to_string()))?;
        let question = json!({
            "seq": from.max(1), "next_by_subj": filter, "batch": most.clamp(1, PAGE_MAX), "max_bytes": PAGE_MAX_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        self.send(subject, Some(inbox), None, Bytes::from(question.to_string())).await?;
        let mut page = Page { messages: Vec::new(), left: 0 };
        loop {
            let answer = timeout(READ_TIMEOUT, answers.next()).await.map_err(|_| Error::Timeout {
                after_ms: u64::try_from(READ_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            })?;
            let Some(message) = answer else { return Err(Error::unavailable("the connection was closed")) };
            let left = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_NUM_PENDING));
            if let Some(left) = left.and_then(|left| left.as_str().parse().ok()) {
                page.left = left;
            }
            match message.status.map(|status| status.as_u16()) {
                None => page.messages.push(read(stream, message)?),
                // The end of the batch; nothing matches; no such stream.
                Some(204 | 404 | 503) => return Ok(page),
                Some(code) => {
                    let description = message.description.unwrap_or_default();
                    return Err(Error::Refused { code: u32::from(code), description });
                }
            }
        }
    }

    /// Counts what matches, in one request.
    pub(super) async fn amount(&self, stream: &str, filter: &str, from: u64) -> Result<Amount, Error> {
        let page = self.page(stream, filter, from, 1).await?;
        let Some(first) = page.messages.first() else { return Ok(Amount::default()) };
        Ok(Amount { count: page.left.saturating_add(1), oldest: first.stored_at })
    }

    /// The first and last sequence of a stream; `None` when there is no such stream.
    pub(super) async fn bounds(&self, stream: &str) -> Result<Option<(u64, u64)>, Error> {
        let answer = match self.api(&format!("STREAM.INFO.{stream}"), &json!(null), API_TIMEOUT).await {
            Err(Error::Refused { code: STREAM_NOT_FOUND, .. }) => return Ok(None),
            other => other?,
        };
        let number =
            |name: &str| answer.get("state").and_then(|state| state.get(name)).and_then(Value::as_u64);
        Ok(Some((number("first_seq").unwrap_or(0), number("last_seq").unwrap_or(0))))
    }

    /// Shows the messages of a stream to `take`, newest first, until it breaks off or a bound is reached.
    pub(super) async fn newest(
        &self,
        stream: &str,
        mut take: impl FnMut(StoredMessage) -> ControlFlow<()>,
    ) -> Result<Extent, Error> {
        let mut extent = Extent { looked_at: 0, complete: true };
        let Some((first, last)) = self.bounds(stream).await? else { return Ok(extent) };
        let (mut upper, mut bytes, mut step) = (last, 0_usize, STEP_MIN);
        while upper >= first && upper > 0 {
            let lower = upper.saturating_sub(step - 1).max(first);
            // What is above has been seen; what came since is not counted out, and only makes the step shorter.
            let seen = u64::try_from(extent.looked_at).unwrap_or(u64::MAX);
            let finds = self.amount(stream, ">", lower).await?.count.saturating_sub(seen);
            if finds > STEP_FINDS_MAX && step > STEP_MIN {
                step = (step / 4).max(STEP_MIN);
                continue;
            }
            let mut found = Vec::new();
            let mut from = lower;
            while from <= upper {
                let page = self.page(stream, ">", from, PAGE_MAX).await?;
                let Some(end) = page.messages.last().map(|message| message.sequence) else { break };
                found.extend(page.messages.into_iter().filter(|message| message.sequence <= upper));
                from = end.saturating_add(1);
            }
            if finds < STEP_MIN / 4 {
                step = step.saturating_mul(16);
            }
            for message in found.into_iter().rev() {
                if extent.looked_at >= LOOK_MAX || bytes >= LOOK_MAX_BYTES {
                    return Ok(Extent { complete: false, ..extent });
                }
                extent.looked_at += 1;
                bytes += message.payload.len();
                if take(message).is_break() {
                    return Ok(Extent { complete: false, ..extent });
                }
            }
            upper = lower.saturating_sub(1);
        }
        Ok(extent)
    }
}
