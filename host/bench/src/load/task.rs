//! Callers that publish tasks and wait for their outcomes. They share one connection to the broker, as the callers in
//! one program do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream;
use bytes::Bytes;
use cardcage_harness::{Error, Result};
use cardcage_protocol::TaskId;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Caller;
use crate::envelope::{self, Envelopes};
use crate::floor::{self, Wire};
use crate::streams::{PLAIN_OUTCOME, PLAIN_TASK};

/// Where tasks are published and outcomes seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskTarget {
    pub(crate) nats_url: String,
    /// Whose tasks, unless they are plain.
    pub(crate) namespace: String,
    pub(crate) wire: Wire,
}

/// What is final in a record, and what is right.
const FINAL: [&str; 4] = ["succeeded", "failed", "cancelled", "expired"];
const STATE: &str = r#""state":""#;

impl TaskTarget {
    pub(super) async fn callers(&self, count: usize) -> Result<Vec<TaskCaller>> {
        let client = floor::connect(&self.nats_url).await?;
        let envelopes = Envelopes::new(&self.namespace)?;
        let outcomes = match self.wire {
            Wire::Same => format!("{}.done.*", self.namespace),
            Wire::Plain => PLAIN_OUTCOME.to_owned(),
        };
        let subscriber = client.subscribe(outcomes).await.map_err(Error::doing("cannot subscribe"))?;
        client.flush().await.map_err(Error::doing("cannot reach nats-server"))?;
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(tell(subscriber, Arc::clone(&waiting), self.wire));
        let caller = TaskCaller {
            jetstream: jetstream::new(client),
            envelopes,
            waiting,
            body: envelope::body(),
            wire: self.wire,
        };
        Ok(vec![caller; count])
    }
}

/// Who waits for which task's outcome: its final state.
#[derive(Debug, Default)]
struct Waiting {
    callers: Mutex<HashMap<TaskId, oneshot::Sender<String>>>,
}

impl Waiting {
    fn wait(&self, id: TaskId) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        receiver
    }

    fn tell(&self, id: TaskId, state: &str) {
        let caller = self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(caller) = caller {
            let _ = caller.send(state.to_owned());
        }
    }
}

async fn tell(mut outcomes: async_nats::Subscriber, waiting: Arc<Waiting>, wire: Wire) {
    while let Some(message) = outcomes.next().await {
        let Ok(payload) = str::from_utf8(&message.payload) else { continue };
        match wire {
            Wire::Same => {
                let id = message.subject.rsplit('.').next().and_then(|id| id.parse().ok());
                // A record of a task that still runs is no outcome.
                if let (Some(id), Some(state)) = (id, final_state(payload)) {
                    waiting.tell(id, state);
                }
            }
            Wire::Plain => {
                if let Some(id) = payload.get(..36).and_then(|id| id.parse().ok()) {
                    waiting.tell(id, "succeeded");
                }
            }
        }
    }
}

/// The record's state stands before the attempts and the result, so the first one is the task's own.
fn final_state(record: &str) -> Option<&str> {
    let (_, rest) = record.split_once(STATE)?;
    let (state, _) = rest.split_once('"')?;
    FINAL.contains(&state).then_some(state)
}

/// One who publishes a task and waits for its outcome.
#[derive(Clone)]
pub(super) struct TaskCaller {
    jetstream: jetstream::Context,
    envelopes: Envelopes,
    waiting: Arc<Waiting>,
    body: Bytes,
    wire: Wire,
}

impl Caller for TaskCaller {
    async fn ask(&mut self) -> Result<()> {
        let id = TaskId::generate();
        let outcome = self.waiting.wait(id);
        let publish = match self.wire {
            Wire::Same => {
                let (subject, headers) = self.envelopes.write(id, &self.body);
                self.jetstream.publish_with_headers(subject, headers, self.body.clone()).await
            }
            Wire::Plain => {
                let mut payload = Vec::with_capacity(36 + self.body.len());
                payload.extend_from_slice(id.encode(&mut [0; 36]).as_bytes());
                payload.extend_from_slice(&self.body);
                self.jetstream.publish(PLAIN_TASK, payload.into()).await
            }
        };
        let stored = publish.map_err(Error::doing("cannot publish a task"))?;
        stored.await.map_err(Error::doing("a task's publish was not acknowledged"))?;
        let state = outcome.await.map_err(Error::doing("the connection to nats-server ended"))?;
        if state == "succeeded" { Ok(()) } else { Err(Error::new(format!("task {id} ended {state}"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::final_state;

    #[test]
    fn only_final_records_are_outcomes() {
        assert_eq!(final_state(r#"{"v":1,"state":"succeeded","result":{"state":"x"}}"#), Some("succeeded"));
        assert_eq!(final_state(r#"{"v":1,"state":"running"}"#), None);
        assert_eq!(final_state("x"), None);
    }
}
