//! `cardcage plugin package`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// `cardcage plugin package`
#[derive(Debug, Clone, Args)]
pub struct PackageArgs {
    /// The plugin's folder, the one with its Cargo.toml.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
    /// Where the package goes; by default packages in the plugin's folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Cargo's profile.
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    pub profile: String,
    /// Build without cargo-auditable: the library does not say what it was built from.
    #[arg(long)]
    pub no_audit: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// More arguments for `cargo build`, after `--`.
    #[arg(last = true, value_name = "CARGO_ARGUMENTS")]
    pub cargo_arguments: Vec<OsString>,
}
