//! The rate that holds a waiting task up, and when the start comes that is left for it.
//!
//! Workers reserve starts at the broker before they may use them (`broker/tokens.rs`), so the record of the next free start
//! tells how far the rate is used up; the order of the queue tells the rest. Priorities and retries may still change it, so
//! it is said with an "about".
//!
//! What it refuses: blaming a rate that nobody is at. A record that outlives its rate, or a queue that moves more slowly than
//! the rate allows, is none.

use cardcage_protocol::{Rate, TaskAddress, Timestamp};

use super::super::session::Session;
use crate::broker::{Error, compare_versions};
use crate::deployed::By;

/// How far a task's rate is used up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) rate: Rate,
    /// When the next start is free, in microseconds since 1970 by the broker's clock.
    next_unix_us: u64,
    now_unix_us: u64,
}

impl Pace {
    /// The rate that holds for the task: the one that an operator has `set`, else the one that its highest version declares.
    pub(super) async fn of(
        session: &Session,
        at: &TaskAddress,
        set: Option<Rate>,
    ) -> Result<Option<Self>, Error> {
        let broker = &session.broker;
        let rate = match set {
            Some(rate) => Some(rate),
            None => declared(session, at).await?,
        };
        let Some(rate) = rate else { return Ok(None) };
        let next = broker.next_start(&at.plugin, &at.task).await?;
        let now_unix_us = broker.now_unix_ms().saturating_mul(1_000);
        Ok(next.map(|next_unix_us| Self { rate, next_unix_us, now_unix_us }))
    }

    /// When the start comes that is left for a task with so many before it; `None` where it is not the rate that it waits for.
    pub(super) fn start_of(&self, ahead: u64) -> Option<Timestamp> {
        let interval = self.rate.interval_us().max(1);
        if self.next_unix_us.saturating_add(interval) <= self.now_unix_us {
            return None;
        }
        // Those that are reserved and have not come yet go to the tasks before it.
        let reserved = self.next_unix_us.saturating_sub(self.now_unix_us) / interval;
        let first = self.next_unix_us.saturating_sub(reserved.saturating_mul(interval));
        let own = first.saturating_add(ahead.saturating_mul(interval));
        (own > self.now_unix_us).then(|| Timestamp::from_unix_ms(own.div_ceil(1_000)))
    }
}

async fn declared(session: &Session, at: &TaskAddress) -> Result<Option<Rate>, Error> {
    let deployed = session.broker.deployed(By::Worker).await?;
    let of_major = deployed
        .into_iter()
        .map(|one| one.description)
        .filter(|one| *at.plugin.as_str() == *one.name && one.major() == at.major);
    let highest = of_major.max_by(|a, b| compare_versions(&a.version, &b.version));
    let task = highest.and_then(|one| one.tasks.into_iter().find(|task| *at.task.as_str() == *task.name));
    Ok(task.and_then(|task| task.rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(next_ms: u64, now_ms: u64) -> Pace {
        Pace { rate: "10/s".parse().unwrap(), next_unix_us: next_ms * 1_000, now_unix_us: now_ms * 1_000 }
    }

    #[test]
    fn a_task_gets_the_start_that_its_place_in_the_queue_leaves_it() {
        let at = |pace: Pace, ahead| pace.start_of(ahead).map(|at| at.unix_ms());
        assert_eq!(at(pace(10_050, 10_000), 0), Some(10_050), "the next free one");
        assert_eq!(at(pace(10_050, 10_000), 7), Some(10_750));
        assert_eq!(at(pace(10_250, 10_000), 0), Some(10_050), "two that workers hold come first");
        assert_eq!(at(pace(9_950, 10_000), 0), None, "a start is free now");
        assert_eq!(at(pace(9_950, 10_000), 1), Some(10_050));
        assert_eq!(at(pace(9_000, 10_000), 5), None, "nobody is at the rate");
    }
}
