//! Several tasks in one write: all of them are stored, or none.
//!
//! The broker keeps a batch back until its last message completes it, and forgets one that stays incomplete for ten
//! seconds: so a host that dies on the way has stored nothing.
//!
//! # Invariants
//! * The messages of a batch are only ever published together: one that was stored before says that all were.
//! * A try whose answer was lost is made again with the same message ids, and under another batch id: nobody can tell
//!   what of the first one is still on its way.
//!
//! Refuses: a batch over two streams, so all of its tasks are immediate, or all delayed.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{TaskEnvelope, TaskId, Timestamp, header};
use tokio::time::Instant;

use super::publish::{PASSING, REPEAT_AFTER, give_up, read, set};
use super::task_queue::{envelope_headers, message_id};
use super::{Broker, Error, Stored};
use crate::failpoint::{Point, reach};

/// JetStream: one of the batch's message ids was stored before.
const CONTAINS_DUPLICATE: u32 = 10201;
/// JetStream: the batch was forgotten (the broker restarted, or was slow), or as many are under way as may be.
const FORGOTTEN: [u32; 2] = [10176, 10210];
/// After so many messages the broker's word is awaited: what it refuses need not be sent, and it is not flooded.
const ASK_EVERY: usize = 100;

/// One message of a batch.
struct Part {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Broker {
    /// Publishes tasks into their plugin's queue, or those with a time to wait for it: all, or none. They are of one plugin,
    /// and all have a time, or none has. For `round` see [`Broker::publish_task_in_round`].
    ///
    /// # Errors
    /// As [`Broker::publish_task`], and [`Error::ScheduleFull`]; nothing is stored, or in doubt everything.
    pub async fn publish_tasks(
        &self,
        tasks: &[(TaskEnvelope, Option<Timestamp>)],
        round: u32,
        wait: Duration,
    ) -> Result<Stored, Error> {
        // All before the first is sent: what is wrong with the last one must not cost the others.
        let parts =
            tasks.iter().map(|(task, at)| self.part(task, *at, round)).collect::<Result<Vec<_>, _>>()?;
        let end = Instant::now() + wait;
        let _on_their_way = match tasks.iter().any(|(_, at)| at.is_some()) {
            true => {
                let bytes = parts.iter().map(|part| part.body.len() as u64).sum();
                Some(self.find_schedule_room_for(parts.len() as u64, bytes).await?)
            }
            false => None,
        };
        let mut in_doubt = false;
        let mut last = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(give_up(last, in_doubt));
            }
            // Half of the time for the first try, so that there is one for a lost answer.
            let wait = if in_doubt { left } else { left.min(wait / 2) };
            let error = match self.try_batch(&parts, wait).await {
                Ok(stored) => return Ok(stored),
                Err(Failed { error: Error::Refused { code: CONTAINS_DUPLICATE, .. }, .. }) => {
                    return Ok(Stored { sequence: 0, duplicate: true });
                }
                Err(Failed { error, is_complete }) => {
                    let unanswered =
                        matches!(error, Error::Timeout { .. } | Error::Unavailable { in_doubt: true, .. });
                    in_doubt |= is_complete && unanswered;
                    error
                }
            };
            match &error {
                Error::Unavailable { in_doubt: false, .. } if !in_doubt => return Err(error),
                Error::Unavailable { in_doubt: false, .. } => {
                    let _ = self.wait_connected(end.saturating_duration_since(Instant::now())).await;
                }
                Error::Timeout { .. } => {}
                Error::Unavailable { .. } | Error::NoResponders { .. } => {
                    tokio::time::sleep(REPEAT_AFTER).await
                }
                Error::Refused { code, .. } if PASSING.contains(code) || FORGOTTEN.contains(code) => {
                    tokio::time::sleep(REPEAT_AFTER).await
                }
                _ => return Err(error),
            }
            last = Some(error);
        }
    }

    fn part(&self, task: &TaskEnvelope, at: Option<Timestamp>, round: u32) -> Result<Part, Error> {
        let id = message_id(task, round);
        let (subject, headers) = match at {
            Some(at) => self.schedule_message(task, &id, at)?,
            None => (self.subjects().task(&task.address()), envelope_headers(task, &id)?),
        };
        Ok(Part { subject, headers, body: task.body.clone() })
    }

    async fn try_batch(&self, parts: &[Part], wait: Duration) -> Result<Stored, Failed> {
        let end = Instant::now() + wait;
        let batch = TaskId::generate().to_string();
        let incomplete = |error| Failed { error, is_complete: false };
        for (number, part) in (1..).zip(parts) {
            let is_last = number == parts.len();
            let mut headers = part.headers.clone();
            set(&mut headers, header::NATS_BATCH_ID, &batch).map_err(incomplete)?;
            set(&mut headers, header::NATS_BATCH_SEQUENCE, &number.to_string()).map_err(incomplete)?;
            if !is_last && number % ASK_EVERY != 1 {
                let sent = self.send(part.subject.clone(), None, Some(headers), part.body.clone()).await;
                sent.map_err(incomplete)?;
                continue;
            }
            if is_last {
                set(&mut headers, header::NATS_BATCH_COMMIT, "1").map_err(incomplete)?;
            }
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.request(part.subject.clone(), Some(headers), part.body.clone(), left).await;
            let payload = answer.map_err(|error| Failed { error, is_complete: is_last })?.payload;
            // A message that does not end a batch is answered by nothing, or by what is wrong.
            if is_last || !payload.is_empty() {
                let stored = read(&part.subject, &payload).map_err(incomplete)?;
                if is_last {
                    return Ok(stored);
                }
            }
            reach(Point::InBatch);
        }
        // There was nothing to store.
        Ok(Stored { sequence: 0, duplicate: false })
    }
}

/// What came of a try.
struct Failed {
    error: Error,
    /// Whether the message that completes the batch was sent, whose answer is missing.
    is_complete: bool,
}
