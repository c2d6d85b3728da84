//! The load client: so many callers, each asking again as soon as it is answered, for a fixed time.
//!
//! Invariants: a request counts if its answer came within the measured window; every answer is checked; the first
//! wrong one ends the load with an error.
//!
//! It is a closed loop, and so it does not show what happens when more comes in than can be done; `paced` is an open one.

mod http;
mod paced;
mod task;
mod window;

use std::time::{Duration, Instant};

use cardcage_harness::{Error, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::cpu::{self, Used, Watched};
use crate::traffic::Traffic;
use window::Window;

pub(crate) use http::HttpTarget;
pub(crate) use paced::paced;
pub(crate) use task::TaskTarget;

/// What the client is called in the report.
pub(crate) const LOAD_CLIENT: &str = "load client";
/// How long callers may take to finish what they began in the window.
const LAST_ANSWERS: Duration = Duration::from_secs(15);

/// One turn's load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) target: Target,
    /// Callers that ask at the same time.
    pub(crate) callers: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Whose processor time is taken; the client adds itself.
    pub(crate) watched: Vec<Watched>,
    /// Where the broker can be asked what passed through it.
    pub(crate) monitor: String,
}

/// Who is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    Http(HttpTarget),
    Task(TaskTarget),
}

/// What one turn came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    /// Length of the window.
    pub(crate) elapsed_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) cpu: Vec<Used>,
    pub(crate) traffic: Traffic,
}

/// One who asks and waits for the answer.
trait Caller: Send + 'static {
    /// Asks once.
    ///
    /// # Errors
    /// No answer, or a wrong one.
    fn ask(&mut self) -> impl Future<Output = Result<()>> + Send;
}

impl Load {
    pub(crate) async fn run(self) -> Result<Measured> {
        match &self.target {
            Target::Http(target) => self.run_callers(target.callers(self.callers).await?).await,
            Target::Task(target) => self.run_callers(target.callers(self.callers).await?).await,
        }
    }

    async fn run_callers<C: Caller>(&self, callers: Vec<C>) -> Result<Measured> {
        let mut watched = self.watched.clone();
        watched.push(Watched { name: LOAD_CLIENT.into(), pid: std::process::id() });
        let window = Window::after(self.warm_up, self.measured);
        let mut calling = JoinSet::new();
        for caller in callers {
            calling.spawn(call(caller, window));
        }
        let readings = tokio::spawn(read(watched, self.monitor.clone(), window));
        let limit = window.end + LAST_ANSWERS;
        let mut latencies = Histogram::<u64>::new(3).map_err(Error::doing("no histogram"))?;
        let collecting = async {
            while let Some(ended) = calling.join_next().await {
                for latency in ended.map_err(Error::doing("a caller failed"))?? {
                    latencies.record(latency).map_err(Error::doing("no such latency"))?;
                }
            }
            Ok::<(), Error>(())
        };
        let late = |_| Error::new(format!("a request had no answer {LAST_ANSWERS:?} after the turn's end"));
        tokio::time::timeout_at(limit.into(), collecting).await.map_err(late)??;
        if latencies.is_empty() {
            return Err(Error::new("not one request was answered in the measured time; give --seconds more"));
        }
        let (cpu, traffic) = readings.await.map_err(Error::doing("cannot read what was used"))??;
        Ok(Measured {
            requests: latencies.len(),
            elapsed_ns: u64::try_from((window.end - window.start).as_nanos()).unwrap_or(u64::MAX),
            p50_ns: latencies.value_at_quantile(0.5),
            p99_ns: latencies.value_at_quantile(0.99),
            cpu,
            traffic,
        })
    }
}

/// What was used between the window's start and end.
async fn read(watched: Vec<Watched>, monitor: String, window: Window) -> Result<(Vec<Used>, Traffic)> {
    tokio::time::sleep_until(window.start.into()).await;
    let (cpu, traffic) = (cpu::read(&watched), Traffic::read(&monitor).await?);
    tokio::time::sleep_until(window.end.into()).await;
    let used = cpu::used(&watched, &cpu, &cpu::read(&watched));
    Ok((used, Traffic::read(&monitor).await?.since(traffic)))
}

/// Asks until the window ends; gives the latencies of the answers within it, in nanoseconds.
async fn call(mut caller: impl Caller, window: Window) -> Result<Vec<u64>> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut began = Instant::now();
    while !window.is_over(began) {
        caller.ask().await?;
        let ended = Instant::now();
        if window.contains(ended) {
            latencies.push(u64::try_from((ended - began).as_nanos()).unwrap_or(u64::MAX));
        }
        began = ended;
    }
    Ok(latencies)
}
