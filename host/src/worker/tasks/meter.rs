//! Holds one task's pull to its rate: the broker is asked only for deliveries that may start now.
//!
//! So a task over its rate waits in its queue, where it holds no slot and no lease, and nobody hands it back.
//!
//! Invariant: at most 100 ms' worth of starts are in hand, so that a worker with nothing to do keeps them from nobody.

use super::unit::Unit;
use cardcage_protocol::Rate;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// First pause after a failed reservation; doubled up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(2);

type Reservation = Pin<Box<dyn Future<Output = usize> + Send>>;

/// Starts that one consumer takes from the common rate.
pub(super) struct Meter {
    rate: Rate,
    in_hand_max: usize,
    /// The reservation under way.
    under_way: Option<Reservation>,
}

impl Meter {
    pub(super) fn new(rate: Rate) -> Self {
        let in_hand_max = usize::try_from(rate.in_hand_max()).unwrap_or(usize::MAX);
        Self { rate, in_hand_max, under_way: None }
    }

    /// How many starts to get when `waiting` slots have none and `in_hand` have one.
    pub(super) fn wish(&self, waiting: usize, in_hand: usize) -> usize {
        waiting.min(self.in_hand_max.saturating_sub(in_hand))
    }

    /// Gets up to `wish` starts, and returns when they may happen. Cancel-safe: what is under way goes on.
    pub(super) async fn starts(&mut self, unit: &Arc<Unit>, wish: usize) -> usize {
        let reservation =
            self.under_way.get_or_insert_with(|| Box::pin(reserve(unit.clone(), self.rate, wish)));
        let starts = reservation.await;
        self.under_way = None;
        starts
    }
}

async fn reserve(unit: Arc<Unit>, rate: Rate, wish: usize) -> usize {
    let broker = &unit.shared.broker;
    let count = u32::try_from(wish).unwrap_or(u32::MAX);
    let mut pause = AGAIN_MIN;
    loop {
        match broker.reserve_starts(&unit.room.name, &unit.name, rate, count).await {
            Ok(wait) => {
                tokio::time::sleep(wait).await;
                return wish;
            }
            Err(error) => {
                let (plugin, task) = (unit.room.name.as_str(), unit.name.as_str());
                tracing::warn!(plugin, task, %error, "a task's rate cannot be asked for; it waits");
                tokio::time::sleep(pause).await;
                let _ = broker.wait_connected(AGAIN_MAX).await;
                pause = (pause * 2).min(AGAIN_MAX);
            }
        }
    }
}
