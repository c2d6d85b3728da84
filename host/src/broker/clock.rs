//! The broker's clock, as this host knows it.
//!
//! Deadlines cross between machines whose clocks differ. Each host measures how far its own clock is from the broker's
//! and writes and reads deadlines in the broker's time.
//!
//! Invariant: a measurement is off by at most half its round trip; the best of a few counts. Whoever decides something
//! by this clock can ask how far it may be off.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
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

/// [`Clock::off_by_ms`] before the first measurement.
const NOT_MEASURED: u64 = u64::MAX;

/// What was measured, in milliseconds.
pub(super) struct Clock {
    /// To be added to the local clock.
    offset_ms: AtomicI64,
    off_by_ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset_ms: AtomicI64::new(0), off_by_ms: AtomicU64::new(NOT_MEASURED) }
    }
}

impl Clock {
    /// How far [`Clock::now_unix_ms`] may be off; `None` while it is only the local time.
    pub(super) fn off_by_ms(&self) -> Option<u64> {
        Some(self.off_by_ms.load(Ordering::Relaxed)).filter(|off_by_ms| *off_by_ms != NOT_MEASURED)
    }

    pub(super) fn now_unix_ms(&self) -> u64 {
        Timestamp::now().unix_ms().saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
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
        let mut best: Option<(Duration, i64)> = None;
        for _ in 0..SAMPLES {
            let Some(sample) = self.sample_clock().await else { break };
            if best.is_none_or(|(round_trip, _)| sample.0 < round_trip) {
                best = Some(sample);
            }
        }
        let Some((round_trip, offset_ms)) = best else { return false };
        // Both times were cut to whole milliseconds on the way.
        let off_by_ms = u64::try_from(round_trip.as_millis() / 2).unwrap_or(0).saturating_add(2);
        self.clock().offset_ms.store(offset_ms, Ordering::Relaxed);
        self.clock().off_by_ms.store(off_by_ms, Ordering::Relaxed);
        true
    }

    async fn sample_clock(&self) -> Option<(Duration, i64)> {
        let (started, local) = (Instant::now(), Timestamp::now());
        let tail = format!("STREAM.INFO.{}", self.subjects().state_stream());
        let answer = self.api(&tail, &json!(null), MEASURE_TIMEOUT).await.ok()?;
        let round_trip = started.elapsed();
        let broker: Timestamp = answer.get("ts").and_then(Value::as_str)?.parse().ok()?;
        let middle = local.plus_ms(u64::try_from(round_trip.as_millis() / 2).ok()?);
        let offset_ms = i64::try_from(broker.unix_ms()).ok()? - i64::try_from(middle.unix_ms()).ok()?;
        Some((round_trip, offset_ms))
    }
}
