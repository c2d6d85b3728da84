//! The command line: what can be typed, and the help that teaches it.
//!
//! It only parses into types; `main` decides what to do with them. A command line that cannot be understood
//! ends with exit code 2, before any file is read.

mod against;
mod dead;
mod dev;
mod help;
mod instances;
mod plugin;
mod plugin_file;
mod plugin_new;
mod plugin_package;
mod plugin_trust;
mod queues;
pub mod reference;
mod reload;
mod schedules;
mod span;
mod tasks;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use uuid::Uuid;

use crate::config::{Assignment, Sources};

pub use against::Against;
pub use dead::{DeadAction, DeadCommand, LetterArgs};
pub use dev::DevArgs;
pub use instances::{InstanceListArgs, InstancesCommand};
pub use plugin::{PluginCommand, ReleaseArgs};
pub use plugin_file::{DescribeArgs, InspectArgs};
pub use plugin_new::NewArgs;
pub use plugin_package::PackageArgs;
pub use plugin_trust::{KeygenArgs, LockArgs, SignArgs, VerifyArgs};
pub use queues::{QueueLimitArgs, QueueName, QueuePurgeArgs, QueuesCommand};
pub use reload::ReloadArgs;
pub use schedules::{ScheduleArgs, ScheduleName, SchedulesCommand};
pub use span::Span;
pub use tasks::{EnqueueArgs, OneTaskArgs, RunArgs, TaskListArgs, TaskName, WorkersCommand};

/// A plugin host: HTTP routes and durable tasks from extension libraries, over NATS.
#[derive(Debug, Parser)]
#[command(name = "cardcage", version, about, max_term_width = 100)]
#[command(long_about = help::LONG_ABOUT, after_long_help = help::AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve HTTP: inline routes here, worker routes as calls, tasks into the queue.
    #[command(after_long_help = help::API)]
    Api(Configuration),
    /// Run calls and tasks.
    #[command(after_long_help = help::WORKER)]
    Worker(Configuration),
    /// Run an API, a worker and a nats-server here; build plugins and take them over whenever they change.
    #[command(after_long_help = help::DEV)]
    Dev(DevArgs),
    /// Check configuration, plugins and broker, without serving.
    #[command(after_long_help = help::CHECK)]
    Check {
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Say what would break if this set took the place of what is deployed: `broker`, or a file of --save-manifest.
        #[arg(long, value_name = "broker|FILE")]
        against: Option<Against>,
        /// Write how the plugins describe themselves to a file, for a later --against.
        #[arg(long, value_name = "FILE")]
        save_manifest: Option<PathBuf>,
        /// What to check.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Have the hosts on this machine read their configuration and plugins again, without a gap.
    #[command(after_long_help = reload::HELP)]
    Reload(ReloadArgs),
    /// Begin plugins, package them, look at their libraries, lock and sign them, release them from quarantine.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look at tasks, start them, help them on.
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Look at queues; pause, limit, resume and purge them.
    #[command(subcommand)]
    Queues(QueuesCommand),
    /// Look at schedules, pause, resume and run them.
    #[command(subcommand)]
    Schedules(SchedulesCommand),
    /// Look at API instances and workers: which versions run where.
    #[command(subcommand)]
    Instances(InstancesCommand),
    /// Look at workers.
    #[command(subcommand)]
    Workers(WorkersCommand),
    /// Look at dead letters, run them again, remove them.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Print a completion script for a shell.
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The process under a supervisor that loads the plugins; started by cardcage itself.
    #[command(hide = true)]
    Child,
    /// The process that runs plugins' `describe` for `check`; started by cardcage itself.
    #[command(hide = true)]
    DescribeChild,
    /// The process that keeps the nats-server of `dev`; started by cardcage itself.
    #[command(hide = true)]
    DevBrokerGuard {
        /// Folder of that `dev`, removed at the end.
        #[arg(long)]
        folder: PathBuf,
        /// The nats-server and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// The process that keeps one build of `dev`; started by cardcage itself.
    #[command(hide = true)]
    DevBuildGuard {
        /// Cargo and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

/// `cardcage tasks …`
#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// Show one task: state, attempts, result or error.
    #[command(after_long_help = help::SHOW)]
    Show {
        /// Id of the task, as in its receipt.
        id: Uuid,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Cancel one task, wherever it is, whether or not any worker runs.
    #[command(after_long_help = help::CANCEL)]
    Cancel {
        /// Id of the task, as in its receipt.
        id: Uuid,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// List tasks, what changed last first.
    #[command(after_long_help = help::TASKS_LIST)]
    List(TaskListArgs),
    /// Say in one sentence why a task is where it is.
    #[command(after_long_help = help::TASKS_WHY)]
    Why(OneTaskArgs),
    /// Try a task again now: one that waits for its time, or one that failed.
    #[command(after_long_help = help::TASKS_RETRY)]
    Retry(OneTaskArgs),
    /// Enqueue a task.
    #[command(after_long_help = help::TASKS_ENQUEUE)]
    Enqueue(EnqueueArgs),
    /// Run one task here, in the foreground: no broker, nothing is published.
    #[command(after_long_help = help::TASKS_RUN)]
    Run(RunArgs),
}

/// Where settings come from.
#[derive(Debug, Clone, Default, Args)]
pub struct Configuration {
    /// Config file; several may be given, later ones win.
    #[arg(long = "config", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Set one option, over files and environment, such as api.listen=127.0.0.1:8080.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub assignments: Vec<Assignment>,
}

impl Configuration {
    /// These files and flags, with the environment of this process.
    #[must_use]
    pub fn sources(self) -> Sources {
        Sources::from_process(self.files, self.assignments)
    }

    /// What has to be typed for the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let files = self.files.iter().flat_map(|file| ["--config".into(), file.clone().into_os_string()]);
        let assignments = self.assignments.iter().flat_map(|one| ["--set".into(), one.to_string().into()]);
        files.chain(assignments).collect()
    }
}

/// Writes the completion script for `shell`.
///
/// # Errors
/// Where writing fails.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> std::io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cardcage", &mut script);
    out.write_all(&script)
}
