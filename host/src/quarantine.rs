//! Which plugin versions are quarantined: known in every child, and acted upon where work would begin.
//!
//! The truth stands with the broker ([`crate::broker::Broker::note_crash`]). Here is a copy that follows it: read before
//! anything is served, then whenever somebody writes, whenever the connection comes back, and every few seconds, since the
//! notice of a write may be lost.
//!
//! Invariants: while the broker cannot be asked, what was known last holds. A gate belongs to one plugin version and costs
//! one atomic read where work begins.
//!
//! What it refuses: to quarantine anything (the supervisor that saw the crash does), and to touch work that has begun.

use crate::broker::{Broker, Error};
use cardcage_protocol::{CrashHistory, Name};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often the broker is asked without a notice.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Quarantines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: watch::Sender<Vec<CrashHistory>>,
    gates: Mutex<Vec<(Name, String, watch::Sender<bool>)>>,
}

/// Whether the work of one plugin version may begin. Clones see the same.
#[derive(Debug, Clone)]
pub struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Whether the version is quarantined, now.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub async fn closed(&mut self) {
        self.becomes(true).await;
    }

    /// Waits until it is not.
    pub async fn opened(&mut self) {
        self.becomes(false).await;
    }

    async fn becomes(&mut self, wanted: bool) {
        if self.0.wait_for(|closed| *closed == wanted).await.is_err() {
            // Nobody will tell any more: it stays as it is.
            std::future::pending::<()>().await;
        }
    }
}

impl Quarantines {
    fn gates(&self) -> MutexGuard<'_, Vec<(Name, String, watch::Sender<bool>)>> {
        // Nothing that holds the lock panics.
        self.0.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate of a plugin's version.
    #[must_use]
    pub fn gate(&self, plugin: &Name, version: &str) -> Gate {
        let is_closed = self.holds(plugin, version);
        let mut gates = self.gates();
        if let Some((.., gate)) = gates.iter().find(|(p, v, _)| p == plugin && v == version) {
            return Gate(gate.subscribe());
        }
        let (sender, receiver) = watch::channel(is_closed);
        gates.push((plugin.clone(), version.to_owned(), sender));
        Gate(receiver)
    }

    /// Whether a version of this plugin's major is quarantined.
    #[must_use]
    pub fn holds_major(&self, plugin: &str, major: u32) -> bool {
        let known = self.0.known.borrow();
        known.iter().any(|history| history.plugin.as_str() == plugin && history.major() == Some(major))
    }

    /// The histories of what is quarantined, as they change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<CrashHistory>> {
        self.0.known.subscribe()
    }

    fn holds(&self, plugin: &Name, version: &str) -> bool {
        self.0.known.borrow().iter().any(|known| known.plugin == *plugin && known.version == version)
    }

    /// Asks the broker.
    ///
    /// # Errors
    /// As for reading; what was known before holds on.
    pub async fn refresh(&self, broker: &Broker) -> Result<(), Error> {
        let mut known = broker.crash_histories(None).await?;
        known.retain(|history| history.quarantined_at.is_some());
        self.0.known.send_if_modified(|before| {
            let differs = *before != known;
            *before = known;
            differs
        });
        for (plugin, version, gate) in self.gates().iter() {
            let is_closed = self.holds(plugin, version);
            if gate.send_if_modified(|before| std::mem::replace(before, is_closed) != is_closed) {
                match is_closed {
                    true => tracing::error!(%plugin, version, "a plugin is quarantined; it takes no work"),
                    false => tracing::info!(%plugin, version, "a plugin is released from its quarantine"),
                }
            }
        }
        Ok(())
    }

    /// Follows the broker until it is dropped.
    pub async fn follow(self, broker: Broker) {
        let mut link = broker.watch();
        loop {
            let mut changes = match broker.crash_histories_changed().await {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::debug!(%error, "cannot listen for quarantines yet");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let mut noticed = false;
            loop {
                let pause = match self.refresh(&broker).await {
                    // The notice of a write may be faster than the write.
                    Ok(()) if std::mem::take(&mut noticed) => AGAIN,
                    Ok(()) => LOOK_EVERY,
                    Err(error) => {
                        tracing::debug!(%error, "quarantines cannot be read now");
                        AGAIN
                    }
                };
                tokio::select! {
                    change = changes.next() => match change {
                        Some(_) => noticed = true,
                        None => break,
                    },
                    changed = link.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}
