//! The report, as it is written to JSON.

use std::path::Path as File;

use cardcage_harness::{Error, Result};
use serde::Serialize;

use crate::figures::{self, Figures, Spread};
use crate::machine::Machine;
use crate::origin::Origin;
use crate::path::{Path, Side};
use crate::trial::Finding;

/// Version of the JSON; a change that breaks a reader raises it.
const VERSION: u32 = 1;

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    /// When the run began.
    pub(crate) began_at: String,
    pub(crate) machine: Machine,
    pub(crate) origin: Origin,
    pub(crate) seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) turns: u32,
    pub(crate) rows: Vec<Row>,
    /// What no floor does.
    pub(crate) trials: Vec<Finding>,
    /// What makes a figure less than it seems, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// One path under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: Path,
    pub(crate) callers: usize,
    /// The sides, in the order they are shown in.
    pub(crate) sides: Vec<SideFigures>,
    /// Requests per second of cardcage by those of the floor, turn by turn.
    pub(crate) ratio: Option<Spread>,
    /// The least ratio that the design asks for.
    pub(crate) goal: Option<f64>,
}

/// One side's part of a row.
#[derive(Debug, Serialize)]
pub(crate) struct SideFigures {
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

impl Report {
    pub(crate) fn new(origin: Origin, settings: &crate::cli::Settings) -> Self {
        Self {
            version: VERSION,
            began_at: cardcage_protocol::Timestamp::now().to_string(),
            machine: Machine::this(),
            origin,
            seconds: settings.measured.as_secs_f64(),
            warm_up_seconds: settings.warm_up.as_secs_f64(),
            turns: settings.turns,
            rows: Vec::new(),
            trials: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, file: &File) -> Result<()> {
        let mut json =
            serde_json::to_vec_pretty(self).map_err(Error::doing("cannot write the report as JSON"))?;
        json.push(b'\n');
        std::fs::write(file, json).map_err(Error::doing(format!("cannot write {}", file.display())))
    }
}

impl Row {
    pub(crate) fn new(path: Path, callers: usize, sides: Vec<SideFigures>) -> Self {
        let turns = |wanted: Side| {
            sides.iter().find(|found| found.side == wanted).map(|found| found.figures.turns.as_slice())
        };
        let ratio = turns(Side::Cardcage)
            .zip(turns(Side::Floor))
            .and_then(|(cardcage, floor)| figures::ratio(cardcage, floor));
        // The goals speak of load; one caller alone has none.
        let goal = path.goal().filter(|_| callers > 1);
        Self { path, callers, sides, ratio, goal }
    }
}
