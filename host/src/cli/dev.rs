//! `cardcage dev`: what can be typed.

use std::path::PathBuf;

use clap::Args;

use super::Configuration;

/// `cardcage dev`
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Folder of a plugin, the one with its Cargo.toml: built here, and again whenever something in it changes; may be given several times.
    #[arg(long = "plugin", value_name = "PATH")]
    pub plugins: Vec<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub configuration: Configuration,
}
