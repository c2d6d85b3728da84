//! Following a task until it has ended: by waiting, or event by event.
//!
//! # Invariants
//! * What says that a task has ended is its record, read after its storing was announced; never a live event.
//! * Whoever follows listens before it reads, so nothing is stored unnoticed in between.
//! * A connection that was lost may have lost an announcement: then the follower is told, and asks again.
//!
//! # What it refuses
//! It promises no live event: starts of first attempts and progress are looked for once a second, and may be skipped.

use crate::broker::{Broker, Error, Link, Subscription};
use crate::lookup;
use bytes::Bytes;
use cardcage_protocol::{Problem, ProblemCode, TaskId};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// How often a follower looks for what is not announced.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause before a replica that lags is read again.
const READ_AGAIN: Duration = Duration::from_millis(50);
/// A stream is never silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is gone.
const TAKES_WITHIN: Duration = Duration::from_secs(30);
/// A stream ends after so long; its client comes again.
const STREAM_MAX: Duration = Duration::from_secs(3600);

/// Follows one task.
#[derive(Debug)]
pub struct Follower {
    broker: Broker,
    id: TaskId,
    /// Records of the task, as they are stored.
    stored: Subscription,
    link: watch::Receiver<Link>,
    generation: u64,
    /// The task as it was last seen.
    view: Value,
}

impl Follower {
    /// Begins to follow; `None` where there is no such task.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub async fn begin(broker: &Broker, id: TaskId) -> Result<Option<Self>, Error> {
        let link = broker.watch();
        let generation = link.borrow().generation;
        let stored = broker.subscribe(broker.subjects().done(id)).await?;
        let Some(view) = lookup::show(broker, id).await? else { return Ok(None) };
        Ok(Some(Self { broker: broker.clone(), id, stored, link, generation, view }))
    }

    /// The task as it is when it has ended, or when `wait` is over.
    ///
    /// # Errors
    /// The broker was lost meanwhile.
    pub async fn wait_end(mut self, wait: Duration) -> Result<Value, Error> {
        let end = Instant::now() + wait;
        while !lookup::has_ended(&self.view) {
            tokio::select! {
                biased;
                error = lost(&mut self.link, self.generation) => return Err(error),
                is_final = next_stored(&mut self.stored) => self.read(is_final).await?,
                () = tokio::time::sleep_until(end) => {
                    self.read(false).await?;
                    break;
                }
            }
        }
        Ok(self.view)
    }

    /// Writes server-sent events until the task has ended, the broker is lost, `leave` comes or the reader is gone.
    pub async fn write_events(mut self, out: mpsc::Sender<Result<Bytes, String>>, leave: impl Future) {
        let last = tokio::select! {
            biased;
            () = out.closed() => return,
            _ = leave => Problem::new(ProblemCode::ShuttingDown),
            outcome = self.events(&out) => match outcome {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, task = %self.id, "the following of a task ended early");
                    Problem::new(error.problem_code())
                }
            },
        };
        let problem = serde_json::from_slice(&last.to_json()).unwrap_or_default();
        let _ = send(&out, event("problem", &problem)).await;
    }

    /// Ends with `Ok` when the last event was written, or nobody takes any more.
    async fn events(&mut self, out: &mpsc::Sender<Result<Bytes, String>>) -> Result<(), Error> {
        let mut live = self.broker.subscribe(self.broker.subjects().task_event(self.id)).await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (end, mut written_at) = (Instant::now() + STREAM_MAX, Instant::now());
        let mut told = Told::default();
        let mut text = Bytes::from_static(b"retry: 1000\n\n");
        loop {
            let news = told.news(&self.view);
            if !news.is_empty() {
                text = Bytes::from([text.as_ref(), news.as_bytes()].concat());
            }
            if !text.is_empty() {
                written_at = Instant::now();
                if !send(out, std::mem::take(&mut text)).await {
                    return Ok(());
                }
            }
            if lookup::has_ended(&self.view) || Instant::now() >= end {
                return Ok(());
            }
            tokio::select! {
                biased;
                error = lost(&mut self.link, self.generation) => return Err(error),
                is_final = next_stored(&mut self.stored) => self.read(is_final).await?,
                Some(message) = live.next() => {
                    if let Ok(progress) = serde_json::from_slice(&message.payload())
                        && let Some(view) = self.view.as_object_mut()
                    {
                        view.insert("progress".into(), progress);
                    }
                }
                _ = look.tick() => {
                    self.read(false).await?;
                    if written_at.elapsed() >= HEARTBEAT {
                        text = Bytes::from_static(b": still here\n\n");
                    }
                }
            }
        }
    }

    /// Reads the task; where its end was announced, until it is seen.
    async fn read(&mut self, until_ended: bool) -> Result<(), Error> {
        let end = Instant::now() + LOOK_EVERY;
        loop {
            // A record whose time is over is what was last seen.
            let Some(view) = lookup::show(&self.broker, self.id).await? else { return Ok(()) };
            self.view = view;
            if !until_ended || lookup::has_ended(&self.view) || Instant::now() >= end {
                return Ok(());
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }
}

/// What a stream's reader knows already.
#[derive(Default)]
struct Told {
    state: Value,
    /// When the last progress was reported. Times of one length: their texts are in their order.
    progress_at: String,
}

impl Told {
    /// The events that tell the rest.
    fn news(&mut self, view: &Value) -> String {
        let mut text = String::new();
        // Events may come after an answer that is newer.
        if let Some(progress) = view.get("progress")
            && let Some(at) = progress.get("at").and_then(Value::as_str)
            && at > self.progress_at.as_str()
        {
            text.push_str(&event_text("progress", progress));
            self.progress_at = at.to_owned();
        }
        let of = |name: &str| view.get(name).cloned().unwrap_or_default();
        let state = json!([of("state"), of("attempt"), of("next_at"), of("cancel_requested_at")]);
        if state != self.state {
            let name = if lookup::has_ended(view) { "end" } else { "state" };
            text.push_str(&event_text(name, view));
        }
        self.state = state;
        text
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(event_text(name, data))
}

/// JSON text has no line ends, so one `data` line holds it.
fn event_text(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// Whether it was taken.
async fn send(out: &mpsc::Sender<Result<Bytes, String>>, text: Bytes) -> bool {
    matches!(tokio::time::timeout(TAKES_WITHIN, out.send(Ok(text))).await, Ok(Ok(())))
}

/// The next stored record; says whether it is a final one.
async fn next_stored(stored: &mut Subscription) -> bool {
    match stored.next().await {
        Some(message) => {
            serde_json::from_slice::<Value>(&message.payload()).is_ok_and(|view| lookup::has_ended(&view))
        }
        // Closed for good: the link says so too.
        None => std::future::pending().await,
    }
}

/// Waits until the connection is, or was, lost.
async fn lost(link: &mut watch::Receiver<Link>, generation: u64) -> Error {
    let _ = link.wait_for(|link| !link.connected || link.generation != generation).await;
    Error::Unavailable { reason: "the connection was lost while a task was followed".into(), in_doubt: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_the_end_by_its_own_name() {
        let mut told = Told::default();
        let running =
            json!({ "state": "running", "attempt": 1, "progress": { "at": "2026-01-01T00:00:00.500Z" } });
        let text = told.news(&running);
        assert!(
            text.starts_with(
                "event: progress\ndata: {\"at\":\"2026-01-01T00:00:00.500Z\"}\n\nevent: state\ndata: {"
            ),
            "{text}"
        );
        assert_eq!(told.news(&running), "");
        let older = json!({ "at": "2026-01-01T00:00:00.400Z" });
        assert_eq!(told.news(&json!({ "state": "running", "attempt": 1, "progress": older })), "");
        let text = told.news(&json!({ "state": "succeeded", "attempt": 1, "result": "a\nb" }));
        assert!(text.starts_with("event: end\n") && text.trim_end().lines().count() == 2, "{text}");
    }
}
