//! What a child says, and what is shown and done for it.

use super::{EXIT_WAIT, Ending, Life};
use crate::process::control::{Error, Ready, Refusal, ToChild, ToSupervisor};
use crate::process::crash_loops::is_for_a_while;
use crate::process::status::Stage;
use crate::process::wear;
use tokio::time::Instant;

impl Life<'_, '_> {
    pub(super) fn receive(&mut self, message: Result<Option<ToSupervisor>, Error>) {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return self.closed(),
            Err(error) => {
                // A child's death cuts its channel: that is no message of its own.
                tracing::debug!(%error, "the control channel broke");
                return self.closed();
            }
        };
        let status = self.setting.status;
        match message {
            ToSupervisor::Phase { entered } => {
                self.heard = Instant::now();
                entered.iter().for_each(|phase| self.started.enter(phase));
                self.phase = entered;
            }
            ToSupervisor::Judged(judged) => self.setting.held.hold(judged),
            ToSupervisor::Refused(refusal) => {
                self.heard = Instant::now();
                status.refuse(refusal);
            }
            ToSupervisor::Ready(ready) => self.ready(ready),
            ToSupervisor::Degraded { reasons } => status.update(|now| now.lacks = reasons),
            ToSupervisor::Restored => status.update(|now| now.lacks.clear()),
            ToSupervisor::Consuming { active } => self.consuming(active),
            ToSupervisor::Quarantined { plugins } => status.update(|now| now.quarantined = plugins),
            ToSupervisor::Blocked { plugins } => status.update(|now| now.blocked = plugins),
            ToSupervisor::MetricsText { id, text } => {
                if let Some(waiting) = self.pending.remove(&id) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(text);
                }
            }
            // This one was told to drain, and nobody waits for its listener.
            ToSupervisor::Leaving => {}
            ToSupervisor::Drained { unfinished } => tracing::info!(unfinished, "the child has drained"),
            ToSupervisor::Failed { exit_code, message, retry } => {
                self.phase = None;
                self.exit_by = Some(Instant::now() + EXIT_WAIT);
                self.failed = Some(Ending::Failed { exit_code, message, retry });
            }
        }
    }

    fn consuming(&mut self, active: bool) {
        match self.setting.successor.take() {
            // Until this one takes work, the one before does.
            Some(waiting) if !active => *self.setting.successor = Some(waiting),
            Some(waiting) => {
                // It may have ended meanwhile.
                let _ = waiting.send(());
                self.setting.status.update(|now| now.consuming = Some(true));
            }
            None => self.setting.status.update(|now| now.consuming = Some(active)),
        }
    }

    fn ready(&mut self, ready: Ready) {
        (self.phase, self.heard) = (None, Instant::now());
        self.served = true;
        self.wear.begin(self.process.id().and_then(wear::resident_mb));
        let refused = self.setting.status.snapshot().refused;
        let lasting = |one: &&Refusal| !is_for_a_while(one);
        if refused
            .iter()
            .filter(lasting)
            .any(|one| one.required || self.setting.required.contains(&one.plugin))
        {
            self.failed = Some(Ending::Incomplete);
            return self.kill("serves without a required plugin");
        }
        if self.drain_by.is_some() {
            return;
        }
        // One that is to be handed over does not accept beside the one before.
        if self.setting.reloading.is_some() && self.setting.listener.is_some() {
            self.order(&ToChild::Accept);
        }
        let pid = self.process.id();
        tracing::info!(pid, plugins = ready.plugins.len(), bound = ?ready.bound, "the child serves");
        self.setting.status.update(|now| {
            now.status = Stage::Serving;
            now.responding = true;
            now.plugins = ready.plugins;
            now.blocked.clear();
            now.bound = ready.bound;
        });
    }

    fn closed(&mut self) {
        self.open = false;
        self.exit_by.get_or_insert(Instant::now() + EXIT_WAIT);
    }
}
