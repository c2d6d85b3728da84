//! Trials: what cardcage does that no floor does, so that there is no ratio; the figures stand for themselves.
//!
//! Invariants: every task's outcome is checked, and one that is not `succeeded` ends the run; a delayed task that started
//! early ends it too.

mod backlog;
mod commands;
mod crew;
mod due;
mod memory;
mod residue;
mod startup;
mod workers;

use std::fmt;

use cardcage_harness::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::Settings;
use crate::table;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trial {
    /// Tasks per second with one worker and with three.
    Workers,
    /// How long a task takes while half as many come as one worker can do.
    HalfLoad,
    /// 100,000 queued tasks, drained by one worker.
    Backlog,
    /// 100,000 delayed tasks due within the same minute, and 2,000 a second for half a minute: how late they start.
    Due,
    /// A worker's resident memory over 1,000,000 tasks.
    Memory,
    /// What is left of 100,000 tasks after their time to live.
    Residue,
    /// What operators run while every worker is busy: how long until each command has answered.
    Commands,
    /// Hosts with 30 plugins: time to ready, and what each plugin costs in memory and threads.
    Startup,
}

/// One figure of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) trial: Trial,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Trial {
    pub(crate) const ALL: [Trial; 8] = [
        Trial::Workers,
        Trial::HalfLoad,
        Trial::Backlog,
        Trial::Due,
        Trial::Memory,
        Trial::Residue,
        Trial::Commands,
        Trial::Startup,
    ];

    pub(crate) async fn run(self, settings: &Settings) -> Result<Vec<Finding>> {
        table::trial(self);
        match self {
            Self::Workers => workers::throughput(settings).await,
            Self::HalfLoad => workers::half_load(settings).await,
            Self::Backlog => backlog::run(settings).await,
            Self::Due => due::run(settings).await,
            Self::Memory => memory::run(settings).await,
            Self::Residue => residue::run(settings).await,
            Self::Commands => commands::run(settings).await,
            Self::Startup => startup::run(settings).await,
        }
    }

    fn found(self, what: impl Into<String>, value: f64, unit: &'static str) -> Finding {
        Finding { trial: self, what: what.into(), value, unit }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workers => "workers",
            Self::HalfLoad => "half load",
            Self::Backlog => "backlog",
            Self::Due => "due",
            Self::Memory => "memory",
            Self::Residue => "residue",
            Self::Commands => "commands",
            Self::Startup => "start-up",
        })
    }
}
