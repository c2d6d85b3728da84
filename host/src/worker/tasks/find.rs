//! Answers who asks where a task is: only the holder speaks.

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
    loop {
        match shared.broker.subscribe(subject.clone()).await {
            Ok(mut questions) => {
                while let Some(question) = questions.next().await {
                    reply(&shared, &question).await;
                }
            }
            Err(error) => tracing::debug!(%error, "cannot listen for questions after tasks yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn reply(shared: &Shared, question: &Incoming) {
    // Rubbish, and questions that expect no answer, are ignored.
    let Some(asker) = question.reply() else { return };
    let Ok(Question { id }) = serde_json::from_slice(&question.payload()) else { return };
    let Some(held) = shared.held.get(id) else { return };
    let answer = json!({ "worker": shared.instance, "attempt": held.attempt, "since": held.since });
    if let Err(error) = shared.broker.publish(asker.to_owned(), Bytes::from(answer.to_string())).await {
        tracing::debug!(%error, "a question after a task could not be answered");
    }
}
