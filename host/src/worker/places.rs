//! A plugin's places for calls, and the subscription that fills them.
//!
//! Invariant: a worker listens for a plugin's calls only while it takes them: where the plugin is quarantined, another
//! version's workers get all of them, and where there are none, callers hear so at once.

use super::calls::Calls;
use crate::broker::{Error, Incoming, Subscription};
use crate::loader::Plugin;
use crate::quarantine::Gate;
use cardcage_protocol::subject::WORKERS_GROUP;
use cardcage_protocol::{ProblemCode, ReplyKind, Text};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long to wait before subscribing again.
const AGAIN: Duration = Duration::from_millis(500);

/// One plugin's calls: where they come from, how many run at once, and whether any are taken.
#[derive(Debug)]
pub struct Places {
    calls: Arc<Calls>,
    plugin: Arc<Plugin>,
    subject: String,
    gate: Gate,
    free: Arc<Semaphore>,
}

impl Places {
    /// Calls on `subject`, taken while `gate` is open.
    #[must_use]
    pub fn new(calls: &Arc<Calls>, plugin: Arc<Plugin>, subject: String, gate: Gate) -> Self {
        let own = calls.options.of_plugin.get(&*plugin.identity.name).copied();
        let free = Arc::new(Semaphore::new(own.unwrap_or(calls.options.concurrency)));
        Self { calls: calls.clone(), plugin, subject, gate, free }
    }

    /// Joins the workers that share the plugin's calls; `None` while it is quarantined: another version may take them.
    ///
    /// # Errors
    /// As [`crate::broker::Broker::subscribe_shared`].
    pub async fn subscribe(&self) -> Result<Option<Subscription>, Error> {
        if self.gate.is_closed() {
            return Ok(None);
        }
        self.calls.broker.subscribe_shared(self.subject.clone(), WORKERS_GROUP).await.map(Some)
    }

    /// Serves until `stop`.
    pub async fn serve(mut self, first: Option<Subscription>, stop: CancellationToken) {
        let mut messages = first;
        loop {
            let Some(open) = &mut messages else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.gate.opened() => {}
                }
                match self.subscribe().await {
                    Ok(joined) => messages = joined,
                    Err(error) => {
                        tracing::debug!(%error, "cannot listen for calls yet");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                continue;
            };
            let ended = self.accept_all(open, &stop).await;
            // Unsubscribes, so that other workers get what comes now; what was delivered already is still answered.
            if open.drain().await.is_ok() {
                while let Some(message) = open.next().await {
                    self.accept(message);
                }
            }
            if ended {
                return;
            }
            messages = None;
        }
    }

    /// Accepts calls until `stop` (true), or until the plugin is quarantined.
    async fn accept_all(&mut self, messages: &mut Subscription, stop: &CancellationToken) -> bool {
        let mut gate = self.gate.clone();
        let closed = gate.closed();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.accept(message),
                    None => return true,
                },
                () = stop.cancelled() => return true,
                () = &mut closed => return false,
            }
        }
    }

    fn accept(&self, message: Incoming) {
        if !self.gate.is_closed() {
            return self.calls.accept(&self.plugin, &self.free, message);
        }
        if let Some(reply_to) = message.reply() {
            let code = Text::from_static(ProblemCode::PluginQuarantined.as_str());
            self.calls.refuse(reply_to.to_owned(), ReplyKind::Refused(code));
        }
    }
}
