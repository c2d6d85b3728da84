//! `cardcage plugin …`

use cardcage_protocol::Name;
use clap::{Args, Subcommand};

use super::plugin_file::{DescribeArgs, InspectArgs};
use super::{Configuration, help};

/// `cardcage plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show what a library says about itself, without running any of its code.
    #[command(after_long_help = help::INSPECT)]
    Inspect(InspectArgs),
    /// Load a library in a process of its own and show what the plugin declares: routes, tasks, schedules, schemas.
    #[command(after_long_help = help::DESCRIBE)]
    Describe(DescribeArgs),
    /// Lift the quarantine of a plugin that crashed its workers too often.
    #[command(after_long_help = help::PLUGIN_RELEASE)]
    Release(ReleaseArgs),
}

/// `cardcage plugin release`
#[derive(Debug, Clone, Args)]
pub struct ReleaseArgs {
    /// The plugin.
    pub name: Name,
    /// Only this version of it.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}
