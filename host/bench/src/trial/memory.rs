//! The resident memory of a worker's processes while 1,000,000 tasks pass. What grows ends the run.

use cardcage_harness::{Cardcage, Deadline, Error, Result, eventually};

use super::crew::Crew;
use super::{Finding, Trial};
use crate::cli::Settings;

/// How far above what it was after the first portion memory may be at the end. The first one fills what is kept and used again.
const TOLERANCE: f64 = 1.1;
/// The end: the least after so many portions counts, for what has just been freed is still there at times.
const LAST: usize = 3;
/// The tasks come in so many portions; after each one is done, memory is read.
const PORTIONS: u64 = 10;

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let count: u64 = if settings.smoke { 1_000 } else { 1_000_000 };
    // A short time to live keeps the broker's disk small.
    let crew = Crew::start(1, settings, |config| config.set("tasks.result_ttl_s", 120)).await?;
    let worker = crew.workers.first().ok_or_else(|| Error::new("there is no worker"))?;
    let mut resident = vec![("before".to_owned(), mebibytes(worker))];
    for portion in 1..=PORTIONS {
        crew.enqueue(count / PORTIONS).await?;
        crew.drained().await?;
        resident.push((format!("after {}", count / PORTIONS * portion), mebibytes(worker)));
    }
    succeeded(worker, count).await?;
    let first = resident.get(1).map_or(f64::NAN, |(_, value)| *value);
    let last = resident.iter().rev().take(LAST).map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    if last > first * TOLERANCE && !settings.smoke {
        return Err(Error::new(format!(
            "the worker has {last:.1} MiB after {count} tasks, and had {first:.1} after a tenth of them"
        )));
    }
    Ok(resident.into_iter().map(|(what, value)| Trial::Memory.found(what, value, "MiB")).collect())
}

/// Records are gone by then; the worker's own count says that all succeeded.
async fn succeeded(worker: &Cardcage, count: u64) -> Result<()> {
    let admin = worker.admin()?;
    let line = format!("cardcage_tasks_total{{what=\"succeeded\"}} {count}");
    eventually(Deadline::seconds(30), "the worker says that every task succeeded", async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await
}

/// Of supervisor and children.
pub(super) fn mebibytes(host: &Cardcage) -> f64 {
    let kibibytes = |pid: u32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let all: u64 = host.child_pids().into_iter().chain([host.pid()]).filter_map(kibibytes).sum();
    all as f64 / 1024.0
}
