//! `cardcage-torture [--seconds N --seed S]`: what is promised, held against an installation that is being killed.
//!
//! Callers submit tasks and keep a ledger of what they were promised; a storm kills (SIGKILL), stops (SIGSTOP) and
//! restarts workers, API instances and the broker on a plan made from a seed; then everything heals, and a judge
//! compares the ledger with what was recorded and with what really ran.
//!
//! Invariants: submissions and plan depend on the seed alone; a promise is a 2xx and nothing else; the judge knows
//! nothing of how the host works beyond its documented records.
//!
//! It refuses to pass a run in which too little happened (`judge::DUE_PER_MINUTE`), to build anything (`./justw torture`
//! does that), and to touch processes that it did not start.

mod caller;
mod company;
mod deed;
mod ending;
mod harvest;
mod judge;
mod ledger;
mod plan;
mod report;
mod run;
mod storm;
mod submission;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Kills, stops and restarts a Cardcage installation under load, and judges whether it kept its promises.
#[derive(Debug, Clone, Parser)]
#[command(name = "cardcage-torture", max_term_width = 100)]
pub(crate) struct Settings {
    /// How long the storm lasts.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub(crate) seconds: u64,
    /// The number that submissions and storm are made from; without it, one is drawn and shown.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Submissions per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the logs of all processes go if the run is not passed; without it, they are lost.
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    // Whichever way it ends, the handles are dropped, and with them all processes go.
    let outcome = tokio::select! {
        outcome = run::run(&settings) => outcome,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    match outcome {
        Ok(report) => report::show(&report, &settings),
        Err(error) => report::complain(&error),
    }
}
