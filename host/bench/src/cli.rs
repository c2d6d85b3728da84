//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::path::Path;

/// Measures cardcage's paths against floors built from bare crates, in turns.
#[derive(Debug, Parser)]
#[command(name = "cardcage-bench", max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One of the bench's own processes; started by the bench itself.
    #[command(hide = true)]
    Part {
        /// What to be, as JSON.
        part: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before the measured ones.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up_seconds: f64,
    /// Turns of each side, floor and cardcage by turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    turns: u32,
    /// Only this path; may be given several times.
    #[arg(long = "path", value_enum)]
    paths: Vec<Path>,
    /// Only the floors: says what bare crates do on this machine, without cardcage.
    #[arg(long)]
    floors_only: bool,
    /// One turn of 0.3 s each: shows that everything runs; the figures mean nothing.
    #[arg(long, conflicts_with_all = ["seconds", "warm_up_seconds", "turns"])]
    smoke: bool,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure a debug build too; the figures say nothing about a release.
    #[arg(long)]
    allow_debug: bool,
}

/// What a run is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) turns: u32,
    pub(crate) paths: Vec<Path>,
    pub(crate) floors_only: bool,
    pub(crate) allow_debug: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn settings(self) -> Settings {
        let (warm_up, measured, turns) =
            if self.smoke { (0.1, 0.3, 1) } else { (self.warm_up_seconds, self.seconds, self.turns) };
        Settings {
            warm_up: Duration::from_secs_f64(warm_up),
            measured: Duration::from_secs_f64(measured),
            turns,
            paths: if self.paths.is_empty() { Path::ALL.to_vec() } else { self.paths },
            floors_only: self.floors_only,
            allow_debug: self.allow_debug,
            json: self.json,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.01 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoke_is_one_short_turn_of_all_paths() {
        let settings = Cli::parse_from(["cardcage-bench", "--smoke"]).options.settings();
        assert_eq!((settings.turns, settings.measured), (1, Duration::from_millis(300)));
        assert_eq!(settings.paths, Path::ALL);
        assert!(Cli::try_parse_from(["cardcage-bench", "--smoke", "--turns", "2"]).is_err());
        assert!(Cli::try_parse_from(["cardcage-bench", "--seconds", "0"]).is_err());
    }
}
