//! What `cardcage tasks list|why|retry|enqueue` and `cardcage workers list` take.

use std::str::FromStr;

use cardcage_protocol::{Name, Priority, State, TaskId};
use clap::{Args, Subcommand};

use super::{Configuration, help, span::Span};

/// `cardcage tasks list`
#[derive(Debug, Clone, Args)]
pub struct TaskListArgs {
    /// Of this plugin.
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<Name>,
    /// With this name.
    #[arg(long, value_name = "NAME")]
    pub task: Option<Name>,
    /// In this state: queued, scheduled, running, retrying, parked, succeeded, failed, cancelled or expired.
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<State>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub limit: usize,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

fn state(text: &str) -> Result<State, String> {
    let known = || State::ALL.map(State::as_str).join(", ");
    State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| format!("one of {}", known()))
}

/// `cardcage tasks why` and `retry`
#[derive(Debug, Clone, Args)]
pub struct OneTaskArgs {
    /// Id of the task, as in its receipt.
    pub id: TaskId,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `cardcage tasks enqueue`
#[derive(Debug, Clone, Args)]
pub struct EnqueueArgs {
    /// The task.
    #[arg(value_name = "PLUGIN.TASK")]
    pub target: TaskName,
    /// Its body: JSON, or @FILE.
    #[arg(long = "json", value_name = "BODY")]
    pub body: String,
    /// Idempotency key: a second enqueue with the same one gives the same task.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Not before so much time has passed, such as 10s or 2h.
    #[arg(long, value_name = "TIME")]
    pub delay: Option<Span>,
    /// How urgent it is, where the task declares priorities.
    #[arg(long, value_enum, default_value_t, value_name = "PRIORITY")]
    pub priority: Urgency,
    /// Where broker and plugins are.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// A priority as it is typed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Urgency {
    /// Before the others.
    High,
    /// As a task is that has no priorities.
    #[default]
    Normal,
    /// After the others.
    Low,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::High => Self::High,
            Urgency::Normal => Self::Normal,
            Urgency::Low => Self::Low,
        }
    }
}

/// `PLUGIN.TASK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName {
    /// The plugin.
    pub plugin: Name,
    /// The task.
    pub task: Name,
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (plugin, task) =
            text.split_once('.').ok_or("write the plugin, a dot and the task, as in orders.fulfil")?;
        let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
        Ok(Self { plugin: name(plugin)?, task: name(task)? })
    }
}

impl std::fmt::Display for TaskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.plugin, self.task)
    }
}

/// `cardcage workers …`
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// List the workers that are there, with what they run.
    #[command(after_long_help = help::WORKERS_LIST)]
    List {
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
}
