//! `cardcage dead …`: dead letters.

use cardcage_protocol::{Name, TaskId};
use clap::{Args, Subcommand};

use super::{Configuration, help, span::Span};

/// `cardcage dead …`
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, newest first.
    #[command(after_long_help = help::DEAD_LIST)]
    List {
        /// Which ones.
        #[command(flatten)]
        filter: LetterArgs,
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: usize,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Show one dead letter: reason, attempts, headers and body.
    #[command(after_long_help = help::DEAD_SHOW)]
    Show {
        /// Id of the task that failed.
        id: TaskId,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Run dead tasks again, each as a new task that is linked to the old one.
    #[command(after_long_help = help::DEAD_REPLAY)]
    Replay(DeadAction),
    /// Remove dead letters for good.
    #[command(after_long_help = help::DEAD_PURGE)]
    Purge(DeadAction),
}

/// Which letters.
#[derive(Debug, Clone, Default, Args)]
pub struct LetterArgs {
    /// Of this plugin.
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<Name>,
    /// Of the task with this name.
    #[arg(long, value_name = "NAME")]
    pub task: Option<Name>,
    /// Ended by an error with this code, as in the list.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// No older than this, such as 2h or 7d.
    #[arg(long, value_name = "AGE")]
    pub since: Option<Span>,
}

impl LetterArgs {
    /// Says whether nothing was narrowed down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plugin.is_none() && self.task.is_none() && self.code.is_none() && self.since.is_none()
    }
}

/// What to do with which letters.
#[derive(Debug, Clone, Args)]
pub struct DeadAction {
    /// Id of one task that failed; needs no --yes.
    #[arg(conflicts_with_all = ["plugin", "task", "code", "since", "limit", "all"])]
    pub id: Option<TaskId>,
    /// Which ones.
    #[command(flatten)]
    pub filter: LetterArgs,
    /// All that there are.
    #[arg(long, conflicts_with_all = ["plugin", "task", "code", "since"])]
    pub all: bool,
    /// At most so many, oldest first.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Say how many, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it; without this, several are only counted.
    #[arg(long)]
    pub yes: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}
