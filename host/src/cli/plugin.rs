//! `cardcage plugin …`

use cardcage_protocol::Name;
use clap::{Args, Subcommand};

use super::plugin_file::{DescribeArgs, InspectArgs};
use super::plugin_new::NewArgs;
use super::plugin_trust::{KeygenArgs, LockArgs, SignArgs, VerifyArgs};
use super::{Configuration, help};

/// `cardcage plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write a new plugin: a repo of its own, with routes, a task and tests, that builds as it is.
    #[command(after_long_help = help::PLUGIN_NEW)]
    New(NewArgs),
    /// Show what a library says about itself, without running any of its code.
    #[command(after_long_help = help::INSPECT)]
    Inspect(InspectArgs),
    /// Load a library in a process of its own and show what the plugin declares: routes, tasks, schedules, schemas.
    #[command(after_long_help = help::DESCRIBE)]
    Describe(DescribeArgs),
    /// Write down which files the plugin set is, by hash, so that nothing else is loaded.
    #[command(after_long_help = help::PLUGIN_LOCK)]
    Lock(LockArgs),
    /// Hold the plugin set against its lock and its signatures, without running any of it.
    #[command(after_long_help = help::PLUGIN_VERIFY)]
    Verify(VerifyArgs),
    /// Sign a library, in minisign's format.
    #[command(after_long_help = help::PLUGIN_SIGN)]
    Sign(SignArgs),
    /// Make a pair of keys to sign libraries with.
    #[command(after_long_help = help::PLUGIN_KEYGEN)]
    Keygen(KeygenArgs),
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
