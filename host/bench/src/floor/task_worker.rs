//! Bare async-nats running tasks: pull, store the outcome, acknowledge.

use async_nats::jetstream::{self, consumer::PullConsumer};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use cardcage_harness::{Error, Result};
use cardcage_protocol::header;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use super::{NAMESPACE, connect, record};
use crate::envelope::Envelopes;
use crate::part::{Ready, say};
use crate::streams::{self, TASK_CONCURRENCY};

/// The worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskWorker {
    /// The broker.
    pub(crate) nats_url: String,
    pub(crate) wire: Wire,
}

/// How much it does on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wire {
    /// As the host: the id in the subject, an outcome record under compare-and-set, republished.
    Same,
    /// The least: one subject, one outcome stored under another, no headers.
    Plain,
}

impl TaskWorker {
    pub(crate) async fn serve(self) -> Result<()> {
        let jetstream = jetstream::new(connect(&self.nats_url).await?);
        let consumer = match self.wire {
            Wire::Same => streams::floor_consumer(&jetstream, &Envelopes::new(NAMESPACE)?).await?,
            Wire::Plain => streams::plain_consumer(&jetstream).await?,
        };
        say(&Ready { address: None }).await?;
        self.work(jetstream, consumer).await
    }

    async fn work(self, jetstream: jetstream::Context, consumer: PullConsumer) -> Result<()> {
        let pulling = consumer.stream().max_messages_per_batch(2 * TASK_CONCURRENCY).messages().await;
        let mut messages = pulling.map_err(Error::doing("cannot pull"))?;
        // One loop, not a spawned task for each message: measured, that is a third less processor time per task.
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = running.next() => {}
                message = messages.next(), if running.len() < TASK_CONCURRENCY => {
                    let message = message.ok_or_else(|| Error::new("pulling ended"))?;
                    running.push(self.run(&jetstream, message.map_err(Error::doing("pulling failed"))?));
                }
            }
        }
    }

    async fn run(&self, jetstream: &jetstream::Context, message: jetstream::Message) {
        let (message, acker) = message.split();
        let stored = match self.wire {
            Wire::Same => store_record(jetstream, message).await,
            Wire::Plain => store_plain(jetstream, message.payload).await,
        };
        // A failure shows: the client waits for the outcome in vain, and says so.
        if stored.is_ok() {
            let _ = acker.ack().await;
        }
    }
}

async fn store_record(jetstream: &jetstream::Context, message: Message) -> Result<()> {
    let id = message.subject.rsplit('.').next().unwrap_or_default();
    let body = str::from_utf8(&message.payload).map_err(Error::doing("the body is no text"))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let subject = format!("{NAMESPACE}.state.{id}");
    let publish = jetstream.publish_with_headers(subject, headers, record::succeeded(id, body).into()).await;
    publish.map_err(Error::doing("cannot publish"))?.await.map_err(Error::doing("not stored"))?;
    Ok(())
}

async fn store_plain(jetstream: &jetstream::Context, body: Bytes) -> Result<()> {
    let publish = jetstream.publish(streams::PLAIN_OUTCOME, body).await;
    publish.map_err(Error::doing("cannot publish"))?.await.map_err(Error::doing("not stored"))?;
    Ok(())
}
