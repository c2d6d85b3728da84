//! One process under `dev`: started, watched, started again, stopped.
//!
//! Invariants: its stdin is a pipe whose other end only `dev` holds; it leads a process group of its own; dropping
//! it closes the pipe, which ends the process.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep_until};

use crate::command::{executable, output, parent_pipe};
use crate::exit::Exit;
use crate::process::{Death, Shutdown};

/// The first pause before a dead process is started again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process that lived for so long starts with the first pause again.
const LIVED: Duration = Duration::from_secs(30);

/// What happened to a process.
pub(super) enum Change {
    /// It ended and was not asked to.
    Ended(Death),
    /// It is time to start it again.
    Due,
}

impl Change {
    /// The exit of a `dev` that cannot start because of it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            // Nobody asked it to end.
            Self::Ended(death) if exit_of(death) != Exit::Success => exit_of(death),
            Self::Ended(_) | Self::Due => Exit::Unexpected,
        }
    }
}

enum State {
    Running {
        child: Box<Child>,
        pipe: Option<ChildStdin>,
        since: Instant,
    },
    /// Dead, and due again.
    Waiting(Instant),
    /// Not to be started by itself.
    Halted,
}

/// One process.
pub(super) struct Managed {
    name: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// How long its orderly stop may take.
    grace: Duration,
    pause: Duration,
    state: State,
}

impl Managed {
    /// This executable with these arguments; not started yet.
    pub(super) fn new(name: &'static str, arguments: Vec<OsString>, grace: Duration) -> Self {
        Self { name, arguments, environment: Vec::new(), grace, pause: PAUSE_MIN, state: State::Halted }
    }

    pub(super) fn environment(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Starts it. Where the machine refuses, it is due again after a pause.
    pub(super) fn start(&mut self) {
        let spawned = Command::new(executable::path())
            .args(&self.arguments)
            .env(parent_pipe::VARIABLE, "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        self.state = match spawned {
            Ok(mut child) => {
                let pipe = child.stdin.take();
                State::Running { child: Box::new(child), pipe, since: Instant::now() }
            }
            Err(error) => {
                output::trouble(&format!("{} cannot be started ({error}); trying again", self.name));
                self.waiting()
            }
        };
    }

    /// Waits until something happens to it. May be dropped and called again.
    pub(super) async fn change(&mut self) -> Change {
        match &mut self.state {
            State::Running { child, .. } => match child.wait().await {
                Ok(status) => Change::Ended(Death::of(status)),
                Err(error) => Change::Ended(Death::Signalled(format!("a cause that is not known ({error})"))),
            },
            State::Waiting(until) => {
                sleep_until(*until).await;
                Change::Due
            }
            State::Halted => std::future::pending().await,
        }
    }

    /// Does what follows from a change, and says it.
    pub(super) fn follow(&mut self, change: Change) {
        match change {
            Change::Due => self.start(),
            Change::Ended(death) => {
                if let State::Running { since, .. } = &self.state
                    && since.elapsed() >= LIVED
                {
                    self.pause = PAUSE_MIN;
                }
                match exit_of(&death) {
                    Exit::PluginRefused | Exit::Config => {
                        output::trouble(&format!(
                            "{} {death}; it is started again when a library changes",
                            self.name
                        ));
                        self.state = State::Halted;
                    }
                    _ => {
                        output::trouble(&format!("{} {death}; starting it again", self.name));
                        self.state = self.waiting();
                    }
                }
            }
        }
    }

    fn waiting(&mut self) -> State {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        State::Waiting(until)
    }

    /// Stops it in order: closes its pipe and waits. A second wish to stop hurries it, an overrun grace ends it.
    pub(super) async fn stop(&mut self, shutdown: &Shutdown) {
        let state = std::mem::replace(&mut self.state, State::Halted);
        let State::Running { mut child, pipe, .. } = state else { return };
        drop(pipe);
        let mut hurry = shutdown.clone();
        let overdue = Instant::now() + self.grace;
        let mut hurried = false;
        loop {
            tokio::select! {
                _ = child.wait() => return,
                () = hurry.now(), if !hurried => {
                    hurried = true;
                    terminate(&child);
                }
                () = sleep_until(overdue) => {
                    output::trouble(&format!("{} did not stop within {:?}: killing it", self.name, self.grace));
                    // It fails only for one that has ended.
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                    return;
                }
            }
        }
    }
}

/// SIGTERM: for a process that drains already, the second wish.
fn terminate(child: &Child) {
    // There is an id for as long as nobody has waited for its end, so it cannot be another's by now.
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The exit that a process's end means.
fn exit_of(death: &Death) -> Exit {
    match death {
        Death::Exited(code) => Exit::from_code(*code).unwrap_or(Exit::Unexpected),
        _ => Exit::Unexpected,
    }
}
