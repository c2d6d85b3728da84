//! How a child's life ended, as the supervisor draws its conclusions from it.

use super::Life;
use crate::exit::Exit;
use crate::process::Death;
use crate::process::control::Phase;
use crate::process::started::Started;
use std::time::Duration;

/// How a child's life ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::process) enum Ending {
    /// It said that it cannot start.
    Failed { exit_code: u8, message: String, retry: bool },
    /// It died in this step of loading a plugin.
    Loading(Phase),
    /// It died before it served, and not of what was loaded: of nothing that is known, or of a plugin that ran already.
    Starting,
    /// It died while it served.
    Serving,
    /// It serves without a plugin that is required.
    Incomplete,
    /// It was asked to stop.
    Stopped(Exit),
    /// It lives on, and another one is to take its place.
    Replaced,
}

/// A child's life, looked back upon.
#[derive(Debug)]
pub(in crate::process) struct Lived {
    pub(in crate::process) ending: Ending,
    pub(in crate::process) death: Death,
    pub(in crate::process) alive: Duration,
    /// The plugins that it had begun, as its board knows them.
    pub(in crate::process) begun: Started,
}

impl Lived {
    /// The life of one that another child has taken the place of.
    pub(in crate::process) fn replaced(death: Death, alive: Duration, begun: Started) -> Self {
        Self { ending: Ending::Replaced, death, alive, begun }
    }
}

impl Life<'_, '_> {
    /// Looks back upon it.
    pub(super) fn ended(mut self, death: Death, alive: Duration) -> Lived {
        let started = std::mem::take(&mut self.started);
        let ending = self.ending(&death, &started);
        Lived { ending, death, alive, begun: started }
    }

    fn ending(self, death: &Death, started: &Started) -> Ending {
        if self.drain_by.is_some() || self.forced {
            return Ending::Stopped(self.stopped(death));
        }
        match (self.failed, self.phase) {
            (Some(failed), _) => failed,
            (None, Some(phase)) if started.is_of_another(&phase, &self.setting.board) => Ending::Starting,
            (None, Some(phase)) => Ending::Loading(phase),
            (None, None) if self.served => Ending::Serving,
            (None, None) => Ending::Starting,
        }
    }

    fn stopped(&self, death: &Death) -> Exit {
        let late = i32::from(Exit::DrainDeadline.code());
        match death {
            _ if self.forced => Exit::DrainDeadline,
            _ if !self.served => Exit::Success,
            Death::Exited(0) => Exit::Success,
            Death::Exited(code) if *code == late => Exit::DrainDeadline,
            // The grace was exceeded: the child's watchdog and the supervisor both use SIGKILL.
            Death::Killed(_) => Exit::DrainDeadline,
            Death::Signalled(name) if name == "SIGKILL" => Exit::DrainDeadline,
            Death::OutOfMemory => Exit::DrainDeadline,
            Death::Exited(_) | Death::Signalled(_) => Exit::Unexpected,
        }
    }
}
