//! `cardcage plugin lock`, `verify`, `sign` and `keygen`: what can be typed about trust in libraries.

use std::path::PathBuf;

use clap::Args;

use super::Configuration;

/// `cardcage plugin lock`
#[derive(Debug, Clone, Args)]
pub struct LockArgs {
    /// Where to write the lock; without it `plugins.require_lock`, else plugins.lock beside the first config file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// The plugin set.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `cardcage plugin verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Libraries to verify in place of those of the plugin set.
    #[arg(value_name = "FILE")]
    pub libraries: Vec<PathBuf>,
    /// Hold the set against this lock, instead of `plugins.require_lock`.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// The plugin set.
    #[command(flatten)]
    pub configuration: Configuration,
}

/// `cardcage plugin sign`
#[derive(Debug, Clone, Args)]
pub struct SignArgs {
    /// The file to sign; the signature is written beside it, with `.minisig` at its end.
    pub file: PathBuf,
    /// Secret key, as `cardcage plugin keygen` or `minisign -G` writes it.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File whose first line is the key's password; without it you are asked, where the key has one.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// What to say in the signature, instead of time, file name and hash; it is signed too.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `cardcage plugin keygen`
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// Where to write the secret key; the public one goes beside it, with `.pub` at its end.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File whose first line is the password that protects the key; without it you are asked.
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    pub password_file: Option<PathBuf>,
    /// Protect the key by its file's permissions alone, as a build machine needs it.
    #[arg(long)]
    pub no_password: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}
