//! `cardcage-demo [DIR] [--keep]`: the main job on sample payloads, told as a table.
//!
//! It starts nats-server, an api and a worker with the example plugins, and fake downstream services; sends each
//! sample as its sender would; follows each task to its end; and exits 0 only if every outcome was as expected. So
//! it is a demonstration for people and an end-to-end check for CI at once.
//!
//! It refuses to talk to services that it did not start itself, and to build anything: `./justw demo` does that.

mod expected;
mod samples;
mod script;
mod stage;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cardcage_harness::Result;
use clap::Parser;

/// Sends sample webhooks through a running Cardcage and shows each one's way.
#[derive(Debug, Parser)]
#[command(name = "cardcage-demo")]
struct Arguments {
    /// A folder with stripe/*.json and commercetools/*.json; without it, the project's own samples.
    dir: Option<PathBuf>,
    /// Keep everything running after the table, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Start nothing but the fake order API (127.0.0.1:9470) and LMS (127.0.0.1:9471) that config/dev.toml names.
    #[arg(long, conflicts_with = "keep")]
    downstream: bool,
}

/// Where config/dev.toml expects the two.
const ORDER_API_ADDRESS: &str = "127.0.0.1:9470";
const LMS_ADDRESS: &str = "127.0.0.1:9471";

/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whichever way it ends, the handles are dropped, and with them all processes go.
    tokio::select! {
        outcome = run(&arguments) => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                table::complain(&error);
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}

/// Says whether every outcome was as expected.
async fn run(arguments: &Arguments) -> Result<bool> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let samples = samples::Samples::read(arguments.dir.as_deref().unwrap_or(&own))?;
    if arguments.downstream {
        let _fakes = stage::Downstream::at(&samples, ORDER_API_ADDRESS, LMS_ADDRESS).await?;
        std::future::pending::<()>().await;
    }
    let stage = stage::Stage::set(&samples).await?;
    let rows = script::play(&stage, &samples).await?;
    let all_as_expected = table::show(&rows, &stage);
    if arguments.keep {
        table::invite(&stage);
        std::future::pending::<()>().await;
    }
    stage.strike().await?;
    Ok(all_as_expected)
}
