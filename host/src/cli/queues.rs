//! `cardcage queues …`

use std::num::NonZeroU32;
use std::str::FromStr;

use cardcage_protocol::{Name, Rate};
use clap::{Args, Subcommand};

use super::{Configuration, TaskName, help, span::Span};

/// `cardcage queues …`
#[derive(Debug, Subcommand)]
pub enum QueuesCommand {
    /// List queues with what waits in them.
    #[command(after_long_help = help::QUEUES_LIST)]
    List {
        /// Of this plugin.
        #[arg(long, value_name = "NAME")]
        plugin: Option<Name>,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Let no worker take tasks from a queue.
    #[command(after_long_help = help::QUEUES_PAUSE)]
    Pause {
        /// The queue, or all of a plugin.
        #[arg(value_name = "PLUGIN[.TASK]")]
        queue: QueueName,
        /// For so long, such as 30m or 2h; without it, until it is resumed.
        #[arg(long = "for", value_name = "TIME")]
        time: Option<Span>,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Let workers take tasks again.
    #[command(after_long_help = help::QUEUES_RESUME)]
    Resume {
        /// The queue, or all of a plugin.
        #[arg(value_name = "PLUGIN[.TASK]")]
        queue: QueueName,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Where the broker is.
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Change how fast a queue is worked off, in all workers and at once.
    #[command(after_long_help = help::QUEUES_LIMIT)]
    Limit(QueueLimitArgs),
    /// Cancel every task that waits in a queue.
    #[command(after_long_help = help::QUEUES_PURGE)]
    Purge(QueuePurgeArgs),
}

/// `cardcage queues purge`
#[derive(Debug, Clone, Args)]
pub struct QueuePurgeArgs {
    /// The queue, or all of a plugin.
    #[arg(value_name = "PLUGIN[.TASK]")]
    pub queue: QueueName,
    /// Also those that wait for their time.
    #[arg(long)]
    pub delayed: bool,
    /// Say how many, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it; without this, they are only counted.
    #[arg(long)]
    pub yes: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `cardcage queues limit`
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct QueueLimitArgs {
    /// The queue.
    #[arg(value_name = "PLUGIN.TASK")]
    pub queue: TaskName,
    /// Starts over all workers, such as 10/s, 100/m or 5/h; `declared` goes back to what plugin and configuration say.
    #[arg(long, value_name = "RATE", required_unless_present = "max_running")]
    pub rate: Option<Setting<Rate>>,
    /// Handlers at the same time, over all workers; `declared` goes back to what plugin and configuration say.
    #[arg(long, value_name = "COUNT")]
    pub max_running: Option<Setting<NonZeroU32>>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// A value, or what is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<T> {
    /// This one.
    To(T),
    /// What plugin and configuration say.
    Declared,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Setting<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "declared" => Ok(Self::Declared),
            text => text.parse().map(Self::To).map_err(|error| format!("{error}, or `declared`")),
        }
    }
}

impl<T> Setting<T> {
    /// The value, if it is one.
    #[must_use]
    pub fn value(self) -> Option<T> {
        match self {
            Self::To(value) => Some(value),
            Self::Declared => None,
        }
    }
}

/// `PLUGIN` or `PLUGIN.TASK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueName {
    /// The plugin.
    pub plugin: Name,
    /// The task; without it, all of the plugin.
    pub task: Option<Name>,
}

impl FromStr for QueueName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('.') {
            let TaskName { plugin, task } = text.parse()?;
            return Ok(Self { plugin, task: Some(task) });
        }
        Ok(Self {
            plugin: text.parse().map_err(|error: cardcage_protocol::NameError| error.to_string())?,
            task: None,
        })
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.task {
            None => write!(f, "{}", self.plugin),
            Some(task) => write!(f, "{}.{task}", self.plugin),
        }
    }
}
