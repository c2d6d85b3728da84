//! Exit codes: what a supervisor, a script or systemd can tell from the end of a `cardcage` process.
//!
//! They exist once, here, and are part of the interface: a code never changes its meaning.
//! 64 and up follow `sysexits.h`, so that they say the same to people who know it.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a `cardcage` process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or drained within the grace period.
    Success = 0,
    /// Not found, or a fault of cardcage.
    Unexpected = 1,
    /// The command line cannot be understood, or names a file of no use.
    Usage = 2,
    /// The task that was run failed for good.
    TaskFailed = 3,
    /// The task that was run asked to be tried again, or panicked.
    TaskRetry = 4,
    /// The task that was run is no longer wanted.
    TaskDiscarded = 5,
    /// `check --against`: something that is deployed would break.
    Breaks = 6,
    /// A port or the broker is not available.
    Unavailable = 69,
    /// A required plugin was refused.
    PluginRefused = 70,
    /// The drain's grace period passed.
    DrainDeadline = 75,
    /// The configuration is wrong.
    Config = 78,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Unexpected,
        Self::Usage,
        Self::TaskFailed,
        Self::TaskRetry,
        Self::TaskDiscarded,
        Self::Breaks,
        Self::Unavailable,
        Self::PluginRefused,
        Self::DrainDeadline,
        Self::Config,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The exit with this number, if it is one of ours.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// What happened, whether to try again, and what to do.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Success => "All is well: the command is done, or the host drained within its grace period.",
            Self::Unexpected => {
                "What was asked for does not exist, as the message says; or something went wrong that nobody foresaw, which is a fault of cardcage: report it."
            }
            Self::Usage => {
                "The command line was not understood, or names a file that is not what the command takes: the message says which, and `cardcage help` shows how it is written."
            }
            Self::TaskFailed => {
                "`tasks run`: the task failed for good; a worker would make a dead letter of it."
            }
            Self::TaskRetry => {
                "`tasks run`: the task asked to be tried again, or panicked; a worker would try again later."
            }
            Self::TaskDiscarded => "`tasks run`: the task said that it is no longer wanted.",
            Self::Breaks => {
                "`check --against`: callers, waiting or dead tasks, or schedules of what is deployed would be let down, as the report says."
            }
            Self::Unavailable => {
                "A port is taken, the broker was not reachable or is unfit, or a program that `dev` runs (cargo, nats-server) is missing: start again once that is put right."
            }
            Self::PluginRefused => {
                "A required plugin was refused: the log names the file and the reason; starting again does not help."
            }
            Self::DrainDeadline => {
                "The grace period passed, or a second signal came, before everything was finished: \
                 tasks that were cut off were handed back and run again elsewhere."
            }
            Self::Config => {
                "The configuration is wrong: every mistake was told with file and line; starting again does not help."
            }
        }
    }

    /// The one that is reported where both apply: bad configuration before a refused plugin before something
    /// unavailable; anything else before success.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Success => 0,
            // Of one command only, which ends with nothing else.
            Self::TaskFailed | Self::TaskRetry | Self::TaskDiscarded | Self::Breaks => 1,
            Self::DrainDeadline => 2,
            Self::Unavailable => 3,
            Self::PluginRefused => 4,
            Self::Config => 5,
            Self::Usage => 6,
            Self::Unexpected => 7,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// `docs/reference/exit-codes.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Exit codes\n\n\
         <!-- Generated from host/src/exit.rs; `CARDCAGE_BLESS=1 cargo test -p cardcage --test it config`. -->\n\n\
         | code | meaning |\n|---|---|\n",
    );
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} |", exit.code(), exit.sentence());
    }
    text.push_str(
        "\nA conflict that the configuration shows by itself is 78: two plugins with one `prefix`, a `prefix` that \
         belongs to the host, and, though only the library can tell, a line of `plugins.<name>.routes` that moves no \
         route of its plugin. A conflict between libraries is 70: two that are the same plugin, and two plugins with \
         routes for one path. Two folders of `dev --plugin` that build the same plugin are 2.\n",
    );
    text.push_str(
        "\nWhere several apply, as `cardcage check` may find, the first of 78, 70, 69 is the exit code.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_configuration_outranks_a_refused_plugin_outranks_a_missing_broker() {
        let all = [Exit::Success, Exit::Unavailable, Exit::Config, Exit::PluginRefused];
        assert_eq!(all.into_iter().fold(Exit::Success, Exit::or_worse), Exit::Config);
        assert_eq!(Exit::Unavailable.or_worse(Exit::PluginRefused), Exit::PluginRefused);
        assert_eq!(Exit::PluginRefused.or_worse(Exit::Unavailable), Exit::PluginRefused);
    }

    #[test]
    fn a_code_leads_back_to_its_exit() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code().into()), Some(exit));
        }
        assert_eq!(Exit::from_code(139), None);
    }
}
