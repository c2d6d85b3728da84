//! An open loop: tasks come at their time, whether or not those before them are done.
//!
//! A latency counts from the time that a task should have come, so that a client that falls behind does not hide it.

use std::time::{Duration, Instant};

use cardcage_harness::{Error, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::{Caller, LAST_ANSWERS, TaskTarget};

/// How long each of the tasks took that came for so long, so many per second.
pub(crate) async fn paced(target: &TaskTarget, per_second: f64, length: Duration) -> Result<Histogram<u64>> {
    if !(per_second.is_finite() && per_second > 0.0) {
        return Err(Error::new("no task per second is no load"));
    }
    let callers = target.callers(1).await?;
    let caller = callers.into_iter().next().ok_or_else(|| Error::new("there is no caller"))?;
    let begins = Instant::now();
    let mut asked = JoinSet::new();
    let mut count = 0u64;
    loop {
        let after = Duration::from_secs_f64(count as f64 / per_second);
        if after >= length {
            break;
        }
        let due = begins + after;
        tokio::time::sleep_until(due.into()).await;
        let mut caller = caller.clone();
        asked.spawn(async move { caller.ask().await.map(|()| due.elapsed()) });
        count += 1;
    }
    let mut latencies = Histogram::<u64>::new(3).map_err(Error::doing("no histogram"))?;
    let collecting = async {
        while let Some(ended) = asked.join_next().await {
            let latency = ended.map_err(Error::doing("a caller failed"))??;
            let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            latencies.record(latency).map_err(Error::doing("no such latency"))?;
        }
        Ok::<(), Error>(())
    };
    let late = |_| Error::new(format!("a task had no outcome {LAST_ANSWERS:?} after the last one came"));
    tokio::time::timeout(LAST_ANSWERS, collecting).await.map_err(late)??;
    Ok(latencies)
}
