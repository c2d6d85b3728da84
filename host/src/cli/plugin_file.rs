//! `cardcage plugin inspect` and `cardcage plugin describe`: what can be typed about one library file.

use std::path::PathBuf;

use clap::Args;

use super::Configuration;

/// `cardcage plugin inspect`
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The library file.
    pub file: PathBuf,
    /// List the crates that it was built from.
    #[arg(long)]
    pub dependencies: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Whose signatures are trusted, and what is locked.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `cardcage plugin describe`
#[derive(Debug, Clone, Args)]
pub struct DescribeArgs {
    /// The library file.
    pub file: PathBuf,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// How libraries are loaded; its plugins do not matter.
    #[command(flatten)]
    pub configuration: Configuration,
}
