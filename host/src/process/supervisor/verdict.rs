//! What follows from a child's end, and who is not loaded again for it.

use super::Supervisor;
use crate::exit::Exit;
use crate::process::Death;
use crate::process::control::{Phase, Refusal};
use crate::process::crash_loops::is_for_a_while;
use crate::process::culprit::refusal;
use crate::process::life::{Ending, Lived};
use tokio::time::Instant;

/// What follows from the end of a child.
pub(super) enum Next {
    Exit(Exit),
    AtOnce,
    AfterPause,
}

impl Supervisor {
    /// What follows from the end of a child.
    pub(super) fn verdict(&mut self, ended: Option<Lived>) -> Next {
        let Some(Lived { ending, death, .. }) = ended else { return Next::AfterPause };
        match ending {
            Ending::Stopped(exit) => Next::Exit(exit),
            Ending::Incomplete | Ending::Failed { retry: false, .. }
                if self.loops.give_up(Instant::now()) =>
            {
                Next::AtOnce
            }
            Ending::Incomplete => Next::Exit(Exit::PluginRefused),
            Ending::Failed { exit_code, message, retry: false } => {
                tracing::error!(exit_code, reason = message, "the child cannot start");
                Next::Exit(Exit::from_code(exit_code.into()).unwrap_or(Exit::Unexpected))
            }
            Ending::Failed { message, retry: true, .. } => {
                tracing::warn!(
                    reason = message,
                    "the child cannot start with what did not start; trying again without"
                );
                // Whatever it was refused for: else the next child would strand on it too.
                self.ban_refused(|one| !is_for_a_while(one));
                Next::AfterPause
            }
            Ending::Loading(phase) if self.ban(&phase, &death) => Next::Exit(Exit::PluginRefused),
            // The culprit is known and out: no reason to wait.
            Ending::Loading(_) => Next::AtOnce,
            Ending::Starting => {
                tracing::error!(how = %death, "the child died before it served");
                Next::AfterPause
            }
            Ending::Serving => Next::AfterPause,
            Ending::Replaced => Next::AtOnce,
        }
    }

    /// Bans such of the plugins that the last child refused.
    pub(super) fn ban_refused(&mut self, is_such: impl Fn(&Refusal) -> bool) {
        for refusal in self.status.snapshot().refused {
            let is_known = self.banned.iter().any(|one| one.plugin == refusal.plugin);
            if is_such(&refusal) && !is_known {
                self.banned.push(refusal);
            }
        }
    }

    /// Refuses a plugin that took a child down; true when the host cannot do without it.
    fn ban(&mut self, phase: &Phase, death: &Death) -> bool {
        let refusal = refusal(phase, death, self.options.plan.load_timeout, &self.options.plan.required);
        let required = refusal.required;
        self.status.refuse(refusal.clone());
        // A child that loads what it was told to leave out would go round for ever.
        let again = self.banned.iter().any(|one| one.plugin == refusal.plugin);
        if again {
            tracing::error!(
                plugin = refusal.plugin,
                "a child loaded what it was told to leave out; giving up"
            );
        }
        self.banned.push(refusal);
        required || again
    }
}
