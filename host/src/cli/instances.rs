//! `cardcage instances …`

use clap::{Args, Subcommand};

use super::Configuration;

/// `cardcage instances …`
#[derive(Debug, Subcommand)]
pub enum InstancesCommand {
    /// List API instances and workers with the plugin versions that they run, and what no live worker can run.
    #[command(after_long_help = HELP)]
    List(InstanceListArgs),
}

/// `cardcage instances list`
#[derive(Debug, Clone, Args)]
pub struct InstanceListArgs {
    /// Exit with 1 where an API serves a route or accepts a task that no live worker can run, or where that cannot be said.
    #[arg(long)]
    pub check: bool,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub configuration: Configuration,
}

const HELP: &str = "\
Examples:
  cardcage instances list --config cardcage.toml
  cardcage instances list --check --config cardcage.toml      in a roll-out: exit 1 while something would wait or fail
  cardcage instances list --json --config cardcage.toml | jq '.drift[].reasons'

Every supervisor is asked, of APIs and of workers. A task that no live worker can run waits until one can, and one whose body \
none reads is parked until then; a call of such a route gets 503 at once, or 404 or 405 where workers have it elsewhere. An API is ready all the same: its readiness does not \
depend on workers.

Exit codes: 0 listed, 1 with --check: something would wait or fail, 69 broker unavailable.";
