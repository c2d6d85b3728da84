//! The run: path by path, load by load, the sides in turns.

use cardcage_harness::{Error, Result};

use crate::cli::Settings;
use crate::figures::Figures;
use crate::load::Measured;
use crate::origin::Origin;
use crate::path::{Path, Side};
use crate::report::{Report, Row, SideFigures};
use crate::stage::Stage;
use crate::table;

/// Measures everything that was asked for.
pub(crate) async fn measure(settings: &Settings, origin: Origin) -> Result<Report> {
    let mut report = Report::new(origin, settings);
    for path in &settings.paths {
        let stage = Stage::set(*path, settings).await?;
        for callers in path.callers() {
            report.rows.push(row(&stage, *path, *callers, settings).await?);
        }
        report.notes.extend(stage.notes().await?);
    }
    for trial in &settings.trials {
        report.trials.extend(trial.run(settings).await?);
    }
    Ok(report)
}

async fn row(stage: &Stage, path: Path, callers: usize, settings: &Settings) -> Result<Row> {
    let mut sides: Vec<(Side, Vec<Measured>)> =
        path.sides(settings.floors_only).into_iter().map(|side| (side, Vec::new())).collect();
    for turn in 1..=settings.turns {
        for (side, measured) in &mut sides {
            table::progress(path, callers, *side, turn);
            measured.push(stage.turn(*side, callers, settings).await?);
        }
        // Whoever was last in this turn is first in the next: a machine that slows down slows both alike.
        sides.reverse();
    }
    sides.sort_by_key(|(side, _)| *side as u8);
    let figures = |(side, measured): (Side, Vec<Measured>)| {
        Some(SideFigures { side, figures: Figures::of(&measured)? })
    };
    let sides: Option<Vec<_>> = sides.into_iter().map(figures).collect();
    Ok(Row::new(path, callers, sides.ok_or_else(|| Error::new("no turn was measured"))?))
}
