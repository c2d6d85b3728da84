//! What operators have set for tasks while hosts run: known in every worker, and laid over what is declared.
//!
//! The truth stands with the broker ([`crate::broker::Broker::change_live_limits`]). Here is a copy that follows it: read
//! before anything is taken, then whenever it may have changed.
//!
//! Invariant: while the broker cannot be asked, what was known last holds.

use crate::broker::{Broker, Error};
use cardcage_protocol::{LiveLimits, Name, Rate};
use std::sync::Arc;
use tokio::sync::watch;

/// What is set for all tasks. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct AllLiveLimits(Arc<watch::Sender<Vec<LiveLimits>>>);

/// What is set for one task, as it changes.
#[derive(Debug, Clone)]
pub struct OfTask {
    all: watch::Receiver<Vec<LiveLimits>>,
    plugin: Name,
    task: Name,
}

/// What is set for a task at one moment; `None` leaves what is declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InForce {
    /// Starts over all workers.
    pub rate: Option<Rate>,
    /// Handlers at the same time, over all workers.
    pub max_running: Option<u32>,
}

impl AllLiveLimits {
    /// What is set for one task.
    #[must_use]
    pub fn of(&self, plugin: Name, task: Name) -> OfTask {
        OfTask { all: self.0.subscribe(), plugin, task }
    }

    /// Asks the broker.
    ///
    /// # Errors
    /// As for reading; what was known before holds on.
    pub async fn refresh(&self, broker: &Broker) -> Result<(), Error> {
        let mut now = broker.live_limits().await?;
        now.sort_by(|a, b| (&a.plugin, &a.task).cmp(&(&b.plugin, &b.task)));
        self.0.send_if_modified(|before| {
            let differs = *before != now;
            *before = now;
            differs
        });
        Ok(())
    }

    /// Follows the broker until it is dropped.
    pub async fn follow(self, broker: Broker) {
        let filter = broker.subjects().all_live_limits();
        broker.follow_limits(filter, || self.refresh(&broker)).await;
    }
}

impl OfTask {
    /// What is set now.
    #[must_use]
    pub fn now(&self) -> InForce {
        self.find(&self.all.borrow())
    }

    /// Waits until something else is set than `known`.
    pub async fn changed_from(&mut self, known: InForce) {
        let mut all = self.all.clone();
        if all.wait_for(|all| self.find(all) != known).await.is_err() {
            // Nobody will tell any more: it stays as it is.
            std::future::pending::<()>().await;
        }
    }

    fn find(&self, all: &[LiveLimits]) -> InForce {
        let own = all.iter().find(|limits| limits.plugin == self.plugin && limits.task == self.task);
        own.map_or_else(InForce::default, |limits| InForce {
            rate: limits.rate,
            max_running: limits.max_running,
        })
    }
}
