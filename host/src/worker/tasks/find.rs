//! Answers who asks where a task is, and takes cancellations: only the holder speaks.

use super::held::Held;
use super::unit::Shared;
use crate::broker::Incoming;
use bytes::Bytes;
use cardcage_protocol::TaskId;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Pause before subscribing again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Question {
    id: TaskId,
}

/// Answers until it is dropped.
pub(super) async fn answer(shared: Arc<Shared>) {
    let subject = shared.broker.subjects().find();
    listen(&shared, subject, |id| shared.held.get(id)).await;
}

/// Passes cancellations on until it is dropped.
pub(super) async fn cancel(shared: Arc<Shared>) {
    let subject = shared.broker.subjects().cancel();
    listen(&shared, subject, |id| shared.held.cancel(id)).await;
}

async fn listen(shared: &Shared, subject: String, found: impl Fn(TaskId) -> Option<Held>) {
    loop {
        match shared.broker.subscribe(subject.clone()).await {
            Ok(mut questions) => {
                while let Some(question) = questions.next().await {
                    // Rubbish is ignored.
                    let Ok(Question { id }) = serde_json::from_slice(&question.payload()) else { continue };
                    if let Some(held) = found(id) {
                        reply(shared, &question, held).await;
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen for questions after tasks yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn reply(shared: &Shared, question: &Incoming, held: Held) {
    let Some(asker) = question.reply() else { return };
    let answer = json!({ "worker": shared.instance, "attempt": held.attempt, "since": held.since });
    if let Err(error) = shared.broker.publish(asker.to_owned(), Bytes::from(answer.to_string())).await {
        tracing::debug!(%error, "a question after a task could not be answered");
    }
}
