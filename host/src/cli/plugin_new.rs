//! `cardcage plugin new`

use std::path::PathBuf;

use cardcage_protocol::Name;
use clap::Args;

/// `cardcage plugin new`
#[derive(Debug, Clone, Args)]
pub struct NewArgs {
    /// The plugin's name: 1 to 64 of a-z, 0-9, _ and -.
    pub name: Name,
    /// The new folder; by default ./NAME.
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Use the SDK in this folder, the checkout's or its plugin-api, instead of writing its sources to vendor/.
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}
