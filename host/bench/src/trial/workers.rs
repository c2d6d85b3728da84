//! One worker and three under the closed loop of the durable task; and one under half of what it can do.

use cardcage_harness::{Error, Result};

use super::crew::Crew;
use super::{Finding, Trial};
use crate::cli::Settings;
use crate::figures::Figures;
use crate::load;

/// As many as show what a durable task's system can carry.
const CALLERS: usize = 256;

pub(super) async fn throughput(settings: &Settings) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for workers in [1, 3] {
        let crew = Crew::start(workers, settings, |config| config).await?;
        let mut measured = Vec::new();
        for _ in 0..settings.turns {
            measured.push(crew.load(CALLERS, settings).await?);
        }
        let figures = Figures::of(&measured).ok_or_else(|| Error::new("no turn was measured"))?;
        let name = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
        found.push(Trial::Workers.found(&name, figures.requests_per_s.median, "tasks/s"));
        found.push(Trial::Workers.found(format!("{name}, p50"), figures.p50_us.median, "µs"));
        found.push(Trial::Workers.found(format!("{name}, p99"), figures.p99_us.median, "µs"));
    }
    Ok(found)
}

pub(super) async fn half_load(settings: &Settings) -> Result<Vec<Finding>> {
    let crew = Crew::start(1, settings, |config| config).await?;
    let most = crew.load(CALLERS, settings).await?;
    let most_per_s = most.requests as f64 / (most.elapsed_ns as f64 / 1e9);
    let paced = load::paced(&crew.target(), most_per_s / 2.0, settings.measured).await?;
    let us = |quantile| paced.value_at_quantile(quantile) as f64 / 1e3;
    Ok(vec![
        Trial::HalfLoad.found("came", most_per_s / 2.0, "tasks/s"),
        Trial::HalfLoad.found("from its time to its outcome, p50", us(0.5), "µs"),
        Trial::HalfLoad.found("from its time to its outcome, p99", us(0.99), "µs"),
    ])
}
