//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::path::Path;
use crate::trial::Trial;

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
    paths: Vec<Wanted>,
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

/// What can be measured: a path against its floor, or a trial without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Path(Path),
    Trial(Trial),
}

impl ValueEnum for Wanted {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Wanted; 12] = [
            Wanted::Path(Path::Inline),
            Wanted::Path(Path::Call),
            Wanted::Path(Path::Task),
            Wanted::Path(Path::Enqueue),
            Wanted::Trial(Trial::Workers),
            Wanted::Trial(Trial::HalfLoad),
            Wanted::Trial(Trial::Backlog),
            Wanted::Trial(Trial::Due),
            Wanted::Trial(Trial::Memory),
            Wanted::Trial(Trial::Residue),
            Wanted::Trial(Trial::Commands),
            Wanted::Trial(Trial::Startup),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Path(path) => path.to_possible_value(),
            Self::Trial(trial) => trial.to_possible_value(),
        }
    }
}

/// What a run is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) turns: u32,
    pub(crate) paths: Vec<Path>,
    pub(crate) trials: Vec<Trial>,
    pub(crate) smoke: bool,
    pub(crate) floors_only: bool,
    pub(crate) allow_debug: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn settings(self) -> Settings {
        let (warm_up, measured, turns) =
            if self.smoke { (0.1, 0.3, 1) } else { (self.warm_up_seconds, self.seconds, self.turns) };
        let (mut paths, mut trials) = (Vec::new(), Vec::new());
        for wanted in self.paths {
            match wanted {
                Wanted::Path(path) => paths.push(path),
                Wanted::Trial(trial) => trials.push(trial),
            }
        }
        if paths.is_empty() && trials.is_empty() {
            (paths, trials) = (Path::ALL.to_vec(), Trial::ALL.to_vec());
        }
        Settings {
            warm_up: Duration::from_secs_f64(warm_up),
            measured: Duration::from_secs_f64(measured),
            turns,
            paths,
            trials: if self.floors_only { Vec::new() } else { trials },
            smoke: self.smoke,
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
        assert_eq!((settings.paths, settings.trials), (Path::ALL.to_vec(), Trial::ALL.to_vec()));
        let one = Cli::parse_from(["cardcage-bench", "--path", "half-load"]).options.settings();
        assert_eq!((one.paths, one.trials), (vec![], vec![Trial::HalfLoad]));
        for value in Path::ALL
            .iter()
            .map(ValueEnum::to_possible_value)
            .chain(Trial::ALL.iter().map(ValueEnum::to_possible_value))
        {
            let name = value.unwrap().get_name().to_owned();
            assert!(Cli::try_parse_from(["cardcage-bench", "--path", &name]).is_ok(), "{name}");
        }
        assert!(Cli::try_parse_from(["cardcage-bench", "--smoke", "--turns", "2"]).is_err());
        assert!(Cli::try_parse_from(["cardcage-bench", "--seconds", "0"]).is_err());
    }
}
