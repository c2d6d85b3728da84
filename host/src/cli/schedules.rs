//! `cardcage schedules …`

use std::str::FromStr;

use cardcage_protocol::Name;
use clap::{Args, Subcommand};

use super::{Configuration, TaskName, help};

/// `cardcage schedules …`
#[derive(Debug, Subcommand)]
pub enum SchedulesCommand {
    /// List schedules with their next slot and their last firing.
    #[command(after_long_help = help::SCHEDULES_LIST)]
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
    /// Let a schedule start no more tasks.
    #[command(after_long_help = help::SCHEDULES_PAUSE)]
    Pause(ScheduleArgs),
    /// Let a paused schedule go on.
    #[command(after_long_help = help::SCHEDULES_RESUME)]
    Resume(ScheduleArgs),
    /// Start a schedule's task now, beside its slots.
    #[command(after_long_help = help::SCHEDULES_RUN)]
    Run(ScheduleArgs),
}

/// Which schedule, and where.
#[derive(Debug, Clone, Args)]
pub struct ScheduleArgs {
    /// The schedule.
    #[arg(value_name = "PLUGIN.SCHEDULE")]
    pub schedule: ScheduleName,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `PLUGIN.SCHEDULE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleName {
    /// The plugin.
    pub plugin: Name,
    /// The schedule.
    pub schedule: Name,
}

impl FromStr for ScheduleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('.') {
            return Err("write the plugin, a dot and the schedule, as in orders.nightly".to_owned());
        }
        let TaskName { plugin, task } = text.parse()?;
        Ok(Self { plugin, schedule: task })
    }
}

impl std::fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.plugin, self.schedule)
    }
}
