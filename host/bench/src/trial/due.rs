//! Delayed tasks, due at even distances: 100,000 within one minute, and 2,000 a second for half of one.

use std::collections::HashMap;
use std::time::Duration;

use cardcage_harness::{Error, Result};
use cardcage_protocol::{TaskId, Timestamp};
use hdrhistogram::Histogram;

use super::crew::Crew;
use super::{Finding, Trial};
use crate::cli::Settings;
use crate::envelope;

/// Hosts read the broker's clock from its answers, and round to milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 10;

/// The issue of the task engine asks for less than half a second at up to 2,000 due per second.
const LATE_MAX_MS: u64 = 500;

/// So many tasks, due at even distances within so many seconds.
const LOADS: [(u64, u64); 2] = [(100_000, 60), (60_000, 30)];
/// The same where only its running is of interest.
const SMOKE: [(u64, u64); 2] = [(200, 1), (300, 1)];

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (count, seconds) in if settings.smoke { SMOKE } else { LOADS } {
        findings.extend(lateness(settings, count, Duration::from_secs(seconds)).await?);
    }
    Ok(findings)
}

async fn lateness(settings: &Settings, count: u64, within: Duration) -> Result<[Finding; 3]> {
    let crew = Crew::start(1, settings, |config| config).await?;
    // All must be stored before the first is due.
    let begins = Timestamp::now().plus_ms(5_000 + count / 5);
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let dues: HashMap<TaskId, Timestamp> =
        (0..count).map(|n| (TaskId::generate(), begins.plus_ms(n * within_ms / count))).collect();
    let body = envelope::body();
    let messages = dues.iter().map(|(id, at)| crew.envelopes.write_delayed(*id, &body, *at));
    crew.publish(messages, &body).await?;
    if Timestamp::now() >= begins {
        return Err(Error::new(
            "storing the delayed tasks took longer than their delay; is the machine busy?",
        ));
    }
    let mut late = Histogram::<u64>::new(3).map_err(Error::doing("no histogram"))?;
    for record in crew.outcomes(count).await? {
        let due =
            dues.get(&record.id).ok_or_else(|| Error::new("a record of a task that nobody enqueued"))?;
        let started = record.attempts.first().map(|attempt| attempt.started_at);
        let started = started.ok_or_else(|| Error::new(format!("task {} has no attempt", record.id)))?;
        if started.unix_ms() + CLOCK_TOLERANCE_MS < due.unix_ms() {
            return Err(Error::new(format!("task {} was due at {due} and started at {started}", record.id)));
        }
        let late_ms = started.unix_ms().saturating_sub(due.unix_ms());
        late.record(late_ms).map_err(Error::doing("no such time"))?;
    }
    if late.max() >= LATE_MAX_MS && !settings.smoke {
        return Err(Error::new(format!(
            "of {count} tasks within {} s the latest started {} ms after its time, and {LATE_MAX_MS} are allowed",
            within.as_secs(),
            late.max()
        )));
    }
    let what = |which: &str| format!("{count} within {} s, {which} late by", within.as_secs());
    Ok([
        Trial::Due.found(what("p50"), late.value_at_quantile(0.5) as f64, "ms"),
        Trial::Due.found(what("p99"), late.value_at_quantile(0.99) as f64, "ms"),
        Trial::Due.found(what("the latest"), late.max() as f64, "ms"),
    ])
}
