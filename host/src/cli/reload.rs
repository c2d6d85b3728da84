//! `cardcage reload`

use std::net::SocketAddr;

use clap::Args;

use super::Configuration;

/// `cardcage reload`
#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {
    /// Admin listener of one host; without it, those of the configuration: the API's and the worker's.
    #[arg(long = "admin", value_name = "ADDRESS")]
    pub admin: Vec<SocketAddr>,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the hosts listen.
    #[command(flatten)]
    pub configuration: Configuration,
}

pub(super) const HELP: &str = "\
Examples:
  cardcage reload --config /etc/cardcage.toml
  cardcage reload --admin 127.0.0.1:9465
  kill -HUP $(pidof cardcage)                     the same, without an answer

The hosts on this machine read their own configuration again, from where they read it at their start. The new plugin set is \
judged first; then another child comes up beside the one that serves, takes over, and the one before finishes what it has \
within drain.grace_ms. A set that is refused changes nothing. What only a restart changes is named and stays as it was.

Exit codes: 0 reloaded, 2 where hosts listen is not known, 69 no host answers, 70 a required plugin is refused, 78 bad configuration.";
