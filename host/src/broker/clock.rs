//! The broker's clock, as this host knows it.
//!
//! Deadlines cross between machines whose clocks differ. Each host measures how far its own clock is from the broker's
//! and writes and reads deadlines in the broker's time.
//!
//! Invariants: a measurement is off by at most half its round trip; the best of a few counts. Between two of them a
//! clock counts that nobody can set, so that a step of this machine's time moves no deadline.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cardcage_protocol::Timestamp;
use serde_json::{Value, json};

use super::Broker;

/// Time for one measurement.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(1);
/// Measurements per round.
const SAMPLES: usize = 3;
/// Pause between rounds.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// Pause after a round without a result.
const MEASURE_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The broker's time at a fixed moment.
pub(super) struct Clock {
    base: Instant,
    at_base_unix_ms: AtomicU64,
    is_measured: AtomicBool,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            at_base_unix_ms: AtomicU64::new(Timestamp::now().unix_ms()),
            is_measured: AtomicBool::new(false),
        }
    }
}

impl Clock {
    /// Until the first measurement it is only the local time.
    pub(super) fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Acquire)
    }

    pub(super) fn now_unix_ms(&self) -> u64 {
        self.at_base_unix_ms.load(Ordering::Relaxed).saturating_add(self.since_base_ms(Instant::now()))
    }

    fn since_base_ms(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX)
    }

    fn set(&self, moment: Instant, unix_ms: u64) {
        let at_base = unix_ms.saturating_sub(self.since_base_ms(moment));
        self.at_base_unix_ms.store(at_base, Ordering::Relaxed);
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
                // After a reconnect it may be another server.
                changed = link.changed() => if changed.is_err() { return },
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
        self.clock().set(best.moment, best.unix_ms);
        true
    }

    async fn sample_clock(&self) -> Option<Sample> {
        let started = Instant::now();
        let tail = format!("STREAM.INFO.{}", self.subjects().state_stream());
        let answer = self.api(&tail, &json!(null), MEASURE_TIMEOUT).await.ok()?;
        let round_trip = started.elapsed();
        let broker: Timestamp = answer.get("ts").and_then(Value::as_str)?.parse().ok()?;
        Some(Sample { round_trip, moment: started + round_trip / 2, unix_ms: broker.unix_ms() })
    }
}

/// The broker's time at some moment, as far as its answer tells.
struct Sample {
    round_trip: Duration,
    moment: Instant,
    unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_what_was_measured() {
        let clock = Clock::default();
        clock.set(clock.base + Duration::from_secs(10), 1_000_000);
        assert_eq!(clock.at_base_unix_ms.load(Ordering::Relaxed), 990_000);
        let now = clock.now_unix_ms();
        assert!((990_000..1_000_000).contains(&now), "{now}");
    }
}
