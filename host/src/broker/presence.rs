//! Who is there: a question that every supervisor answers.
//!
//! Nothing is stored. Whoever does not answer is not there, or stopped, or cut off: of no use to a task either way.

use std::time::Duration;

use bytes::Bytes;
use cardcage_protocol::presence::{Presence, Question};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Broker, Error};

/// Answers are awaited for so long at least, unless the broker knows of nobody.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// And for so long at most: a command answers within a second.
const WAIT_MAX: Duration = Duration::from_millis(700);
/// Answers that come are followed by others within this time.
const QUIET: Duration = Duration::from_millis(100);

impl Broker {
    /// The workers that are there, by name. It takes a quarter of a second, and no time where there are none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ask_workers(&self, question: Question) -> Result<Vec<Presence>, Error> {
        self.ask_who_is_there(self.subjects().presence(), question).await
    }

    /// The API instances that are there, by name; as long as [`Broker::ask_workers`].
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ask_apis(&self, question: Question) -> Result<Vec<Presence>, Error> {
        self.ask_who_is_there(self.subjects().api_presence(), question).await
    }

    async fn ask_who_is_there(&self, subject: String, question: Question) -> Result<Vec<Presence>, Error> {
        let inbox = self.new_inbox();
        let mut answers = timeout(WAIT_MAX, self.client().subscribe(inbox.clone()))
            .await
            .map_err(|_| Error::unavailable("the connection does not take data"))?
            .map_err(|error| Error::unavailable(error.to_string()))?;
        let question =
            serde_json::to_vec(&question).map_err(|error| Error::unreadable("a question", error))?;
        self.send(subject, Some(inbox), None, Bytes::from(question)).await?;
        let began = Instant::now();
        let mut workers: Vec<Presence> = Vec::new();
        let mut until = began + WAIT_MAX;
        while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
            if answer.status.is_some() {
                break;
            }
            match serde_json::from_slice(&answer.payload) {
                Ok(presence) => workers.push(presence),
                Err(error) => tracing::debug!(%error, "a worker's answer cannot be read"),
            }
            until = (Instant::now() + QUIET).max(began + WAIT_MIN).min(began + WAIT_MAX);
        }
        workers.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(workers)
    }
}
