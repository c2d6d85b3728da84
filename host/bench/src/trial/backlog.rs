//! A queue that was paused while 100,000 tasks came, and is resumed.

use std::time::Instant;

use cardcage_harness::{Deadline, Result, eventually};

use super::crew::Crew;
use super::{Finding, Trial};
use crate::cli::Settings;

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let count = if settings.smoke { 500 } else { 100_000 };
    let crew = Crew::start(1, settings, |config| config).await?;
    crew.queues("pause").await?;
    let begun = Instant::now();
    crew.enqueue(count).await?;
    let enqueued = begun.elapsed();
    // The command takes its own time to start: what counts begins with the first task that is gone.
    let resume = crew.queues("resume");
    let first = eventually(Deadline::seconds(60), "the first task of the backlog is done", async || {
        crew.queued().await.is_ok_and(|queued| queued < count).then(Instant::now)
    });
    let (resumed, first) = tokio::join!(resume, first);
    resumed?;
    let first = first?;
    crew.drained().await?;
    let drained = first.elapsed();
    crew.outcomes(count).await?;
    Ok(vec![
        Trial::Backlog.found(format!("{count} enqueued"), count as f64 / enqueued.as_secs_f64(), "tasks/s"),
        Trial::Backlog.found(format!("{count} drained"), count as f64 / drained.as_secs_f64(), "tasks/s"),
    ])
}
