//! `cardcage-bench`: what the plugin system costs over bare crates, path by path.
//!
//! A figure alone says little about a machine that nobody else has. So each path of cardcage runs against a floor that
//! does the same work on the wire with bare crates and no plugins, in the same run, in turns, in as many processes,
//! fed by the same client. What is reported is the ratio, with its spread.
//!
//! Invariants: every answer is checked, and one wrong answer ends the run, for a fast error is no figure; floors hold
//! no code of the host or of a plugin; nothing started here outlives this process.
//!
//! It refuses a debug build of cardcage (unless told otherwise), to compare figures of different runs, and to judge: it
//! prints goals beside ratios and exits 0 whatever they are.

mod cli;
mod cpu;
mod envelope;
mod figures;
mod floor;
mod load;
mod machine;
mod origin;
mod part;
mod path;
mod report;
mod stage;
mod streams;
mod table;
mod traffic;
mod trial;
mod turns;

use std::process::ExitCode;

use clap::Parser;

/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // Whichever way it ends, the handles are dropped, and with them all processes go.
    let outcome = tokio::select! {
        outcome = run(cli) => outcome,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: cli::Cli) -> cardcage_harness::Result<()> {
    if let Some(cli::Command::Part { part }) = cli.command {
        return part::play(&part).await;
    }
    let settings = cli.options.settings();
    if settings.paths.is_empty() && settings.trials.is_empty() {
        return Err(cardcage_harness::Error::new(
            "--floors-only leaves nothing of these paths: they have no floor",
        ));
    }
    let origin = origin::Origin::find(&settings)?;
    table::introduce(&origin, &settings);
    let report = turns::measure(&settings, origin).await?;
    table::show(&report);
    if let Some(file) = &settings.json {
        report.write(file)?;
    }
    Ok(())
}
