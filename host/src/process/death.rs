//! How a child ended.

use super::oom::OomWatch;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// It exited by itself with this code; a plugin that calls `exit` looks like this.
    Exited(i32),
    /// A signal that the supervisor did not send ended it.
    Signalled(String),
    /// The kernel killed it, because memory ran out.
    OutOfMemory,
    /// The supervisor killed it, because it …
    Killed(&'static str),
}

impl Death {
    /// What an exit status says.
    #[must_use]
    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Signalled(signal_name(signal)),
            (None, None) => Self::Signalled("an unknown cause".to_owned()),
        }
    }

    /// How a child ended that was watched: `killed` says why its supervisor did it, where it did.
    pub(super) fn of_child(
        status: std::io::Result<ExitStatus>,
        killed: Option<&'static str>,
        oom: &OomWatch,
    ) -> Self {
        match (status.map(Self::of), killed) {
            (Ok(Self::Signalled(name)), Some(why)) if name == "SIGKILL" => Self::Killed(why),
            (Ok(Self::Signalled(name)), None) if name == "SIGKILL" && oom.has_killed() => Self::OutOfMemory,
            (Ok(death), _) => death,
            (Err(error), _) => Self::Signalled(format!("a cause that is not known ({error})")),
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(name) => write!(f, "died of {name}"),
            Self::OutOfMemory => f.write_str("was killed by the kernel because memory ran out (SIGKILL)"),
            Self::Killed(why) => write!(f, "was killed by its supervisor because it {why}"),
        }
    }
}

fn signal_name(raw: i32) -> String {
    const NAMES: [(Signal, &str); 16] = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::SYS, "SIGSYS"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::USR1, "SIGUSR1"),
    ];
    let known = NAMES.iter().find(|(signal, _)| signal.as_raw() == raw);
    known.map_or_else(|| format!("signal {raw}"), |(_, name)| (*name).to_owned())
}
