//! The broker's clock, as this host knows it.
//!
//! Deadlines cross between machines whose clocks differ. Each host measures how far its own clock is from the broker's
//! and writes and reads deadlines in the broker's time.
//!
//! Invariants: a measurement is off by at most half its round trip; the best of a few counts. Between two of them a
//! clock counts that nobody can set and that goes on while the machine sleeps, so that neither a step of this machine's time
//! nor a suspended machine moves a deadline. What was measured of a connection that was lost counts as unknown, though
//! nothing better is there to be told; before the first one that is the local time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cardcage_protocol::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::Broker;

/// Time for one measurement.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(1);
/// Measurements per round.
const SAMPLES: usize = 3;
/// Pause between rounds.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// The same for whoever can do nothing before it has one.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Pause after a round without a result.
const MEASURE_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What a measurement may be off by beyond half its round trip: times are in whole milliseconds, and until the next one a
/// clock that runs 50 millionths too fast gains three.
const OFF_MIN_MS: u64 = 4;

/// Time since the machine started, asleep or awake. `Instant` stands still while it is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Duration);

impl Moment {
    fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The broker's time at a fixed moment.
pub(super) struct Clock {
    base: Moment,
    at_base_unix_ms: AtomicU64,
    /// By how much that may be wrong.
    off_by_max_ms: AtomicU64,
    is_measured: AtomicBool,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            base: Moment::now(),
            at_base_unix_ms: AtomicU64::new(Timestamp::now().unix_ms()),
            off_by_max_ms: AtomicU64::new(0),
            is_measured: AtomicBool::new(false),
        }
    }
}

impl Clock {
    /// Until the first measurement it is only the local time, and after an outage what was known before.
    pub(super) fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Acquire)
    }

    pub(super) fn now_unix_ms(&self) -> u64 {
        self.at_base_unix_ms.load(Ordering::Relaxed).saturating_add(self.since_base_ms(Moment::now()))
    }

    /// A time that the broker's clock has certainly reached, if it was measured.
    pub(super) fn reached_unix_ms(&self) -> u64 {
        self.now_unix_ms().saturating_sub(self.off_by_max_ms.load(Ordering::Relaxed))
    }

    fn forget(&self) {
        self.is_measured.store(false, Ordering::Release);
    }

    fn since_base_ms(&self, moment: Moment) -> u64 {
        u64::try_from(moment.since(self.base).as_millis()).unwrap_or(u64::MAX)
    }

    fn set(&self, sample: &Sample) {
        let at_base = sample.unix_ms.saturating_sub(self.since_base_ms(sample.moment));
        self.at_base_unix_ms.store(at_base, Ordering::Relaxed);
        let half = u64::try_from((sample.round_trip / 2).as_millis()).unwrap_or(u64::MAX);
        self.off_by_max_ms.store(half.saturating_add(OFF_MIN_MS), Ordering::Relaxed);
        self.is_measured.store(true, Ordering::Release);
    }
}

/// Measures again and again, until the broker's last handle is dropped.
pub(super) fn keep(broker: &Broker) {
    let (weak, mut link) = (broker.downgrade(), broker.watch());
    tokio::spawn(async move {
        loop {
            let Some(broker) = weak.upgrade() else { return };
            let pause = if broker.measure_clock().await { MEASURE_EVERY } else { MEASURE_AGAIN_AFTER };
            drop(broker);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // It may be another server, or one whose machine stood still: what was measured before is not its time.
                    let Some(broker) = weak.upgrade() else { return };
                    broker.clock().forget();
                }
            }
        }
    });
}

impl Broker {
    /// Measures the offset to the broker's clock now; says whether it could.
    ///
    /// [`Broker::now_unix_ms`] does this by itself from time to time; until the first measurement, which needs the
    /// record stream to exist, it gives the local time.
    pub async fn measure_clock(&self) -> bool {
        let mut best: Option<Sample> = None;
        for _ in 0..SAMPLES {
            let Some(sample) = self.sample_clock().await else { break };
            if best.as_ref().is_none_or(|best| sample.round_trip < best.round_trip) {
                best = Some(sample);
            }
        }
        let Some(best) = best else { return false };
        self.clock().set(&best);
        true
    }

    /// Waits until the broker's time is known, for as long as that takes. Cancel-safe.
    pub async fn wait_for_time(&self) {
        while !self.knows_time() {
            let _ = self.wait_connected(MEASURE_AGAIN_AFTER).await;
            if !self.measure_clock().await {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
        }
    }

    async fn sample_clock(&self) -> Option<Sample> {
        let started = Moment::now();
        let tail = format!("STREAM.INFO.{}", self.subjects().state_stream());
        let answer = self.api(&tail, &json!(null), MEASURE_TIMEOUT).await.ok()?;
        let round_trip = Moment::now().since(started);
        let broker: Timestamp = answer.get("ts").and_then(Value::as_str)?.parse().ok()?;
        Some(Sample { round_trip, moment: Moment(started.0 + round_trip / 2), unix_ms: broker.unix_ms() })
    }
}

/// The broker's time at some moment, as far as its answer tells.
struct Sample {
    round_trip: Duration,
    moment: Moment,
    unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_count_from_the_machines_start_also_while_it_sleeps() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = Moment::now().0.as_secs_f64();
        assert!((now - uptime).abs() < 5.0, "{now} s by the clock, up for {uptime} s");
    }

    #[test]
    fn time_goes_on_from_what_was_measured() {
        let clock = Clock::default();
        let moment = Moment(clock.base.0 + Duration::from_secs(10));
        clock.set(&Sample { round_trip: Duration::from_millis(21), moment, unix_ms: 1_000_000 });
        assert_eq!(clock.at_base_unix_ms.load(Ordering::Relaxed), 990_000);
        let (reached, now) = (clock.reached_unix_ms(), clock.now_unix_ms());
        assert!((990_000..1_000_000).contains(&now), "{now}");
        assert!(
            (990_000 - 14..=now - 14).contains(&reached),
            "half a round trip and more: {reached} at {now}"
        );
    }
}
