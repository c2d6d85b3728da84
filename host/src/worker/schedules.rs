//! Keeps what the broker holds of schedules in step with what plugins declare.
//!
//! Every worker does this, now and then, for its own plugins; nobody is in charge. What makes that safe is that a schedule is
//! one message, replaced by compare-and-set, and that one rule says who may replace it.
//!
//! Invariants:
//! - A schedule whose definition is as declared is never written, so its rhythm is never started anew.
//! - The highest live version of a plugin has the say: it writes what differs and deletes what it does not declare. Of hosts
//!   of one version, but with other settings, the one that started last.
//! - An operator's pause outlives every rewriting.
//! - A plugin that no worker has had for a day (`tasks.schedule_absent_s`) has its schedules stand still; they go on where a
//!   worker has it again.
//!
//! Refuses: firing anything. The broker does that, and the supervisors' pumps take it up.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use cardcage_protocol::presence::{Presence, Question};
use cardcage_protocol::{Name, ScheduleDefinition, ScheduleRecord, Timestamp};
use tokio::time::Instant;

use crate::broker::{Broker, Error, compare_versions};

/// A round comes every so many leases.
const ROUND_LEASES: u32 = 2;
/// Pause before a round that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// That a plugin is there is said anew after this part of the time for which it holds.
const SAY_AGAIN_PART: u32 = 4;
/// So many rounds in a row must see no later version before what one declared is changed: an answer may be lost.
const ROUNDS_ALONE: u32 = 2;

/// What one plugin of this worker declares.
#[derive(Debug)]
pub struct Declared {
    /// The plugin.
    pub plugin: Name,
    /// Its version.
    pub version: String,
    /// Its schedules.
    pub schedules: BTreeMap<Name, ScheduleDefinition>,
}

/// One plugin, and what is known of its standing.
#[derive(Debug)]
struct Own {
    declared: Declared,
    /// Since when, by the broker's clock, no later version has been seen; `None` while there is one.
    alone_since: Option<Timestamp>,
    rounds_alone: u32,
    /// When the last of these rounds was: one that follows a failed one at once counts as the same.
    counted_at: Option<Instant>,
    said_at: Option<Instant>,
}

/// What to do about one schedule that the broker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Its definition is right, and it stands still for want of its plugin.
    Wake,
    Rewrite,
    Delete,
}

/// The keeper of one worker.
#[derive(Debug)]
pub struct ScheduleKeeper {
    broker: Broker,
    own: Vec<Own>,
    absent_after: Duration,
    rounds: u64,
}

impl ScheduleKeeper {
    /// A keeper for these plugins; it does nothing before [`ScheduleKeeper::run`].
    #[must_use]
    pub fn new(broker: Broker, declared: Vec<Declared>, absent_after: Duration) -> Self {
        let own = declared.into_iter();
        let own = own.map(|declared| Own {
            declared,
            alone_since: None,
            rounds_alone: 0,
            counted_at: None,
            said_at: None,
        });
        Self { broker, own: own.collect(), absent_after, rounds: 0 }
    }

    /// Keeps schedules in step until it is dropped.
    pub async fn run(mut self) {
        let mut was_told = false;
        // Who declared a schedule last is told apart by the broker's time.
        self.broker.wait_for_time().await;
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    was_told = false;
                    self.broker.options().lease.saturating_mul(ROUND_LEASES)
                }
                // Somebody else was faster: what they wrote is to be looked at.
                Err(Error::Conflict { .. }) => AGAIN,
                Err(error) => {
                    if !was_told {
                        tracing::warn!(%error, "schedules cannot be kept in step yet");
                    }
                    was_told = true;
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        self.say_what_is_here().await?;
        let (held, now) = (self.broker.recurring(None).await?, self.now());
        for own in &mut self.own {
            own.alone_since.get_or_insert(now);
        }
        if self.is_in_step(&held) {
            self.own.iter_mut().for_each(|own| own.rounds_alone = 0);
        } else {
            let workers = self.broker.ask_workers(Question::default()).await?;
            for nth in 0..self.own.len() {
                self.keep(nth, &held, &workers).await?;
            }
            // A worker may come up a moment after others: not in the first round.
            if self.rounds > 0 {
                self.rest_absent(&held, &workers).await?;
            }
        }
        self.rounds = self.rounds.saturating_add(1);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.broker.now_unix_ms())
    }

    /// Whether nothing is to be written, whoever has the say.
    fn is_in_step(&self, held: &[(ScheduleRecord, u64)]) -> bool {
        let known = |plugin: &Name| self.own.iter().find(|own| own.declared.plugin == *plugin);
        let as_declared = |record: &ScheduleRecord| match known(&record.plugin) {
            Some(own) => {
                record.absent_since.is_none()
                    && own.declared.schedules.get(&record.name) == Some(&record.definition)
            }
            None => record.absent_since.is_some(),
        };
        let is_held = |plugin: &Name, name: &Name| {
            held.iter().any(|(record, _)| record.plugin == *plugin && record.name == *name)
        };
        let all_held = self.own.iter().all(|own| {
            let Declared { plugin, schedules, .. } = &own.declared;
            schedules.keys().all(|name| is_held(plugin, name))
        });
        all_held && held.iter().all(|(record, _)| as_declared(record))
    }

    /// Before anything is declared, so that nobody takes it for a plugin that is gone.
    async fn say_what_is_here(&mut self) -> Result<(), Error> {
        for own in &mut self.own {
            let is_due = own.said_at.is_none_or(|at| at.elapsed() >= self.absent_after / SAY_AGAIN_PART);
            if is_due && !own.declared.schedules.is_empty() {
                self.broker.say_seen(&own.declared.plugin, self.absent_after).await?;
                own.said_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Keeps one plugin's schedules.
    async fn keep(
        &mut self,
        nth: usize,
        held: &[(ScheduleRecord, u64)],
        workers: &[Presence],
    ) -> Result<(), Error> {
        let (now, lease) = (self.now(), self.broker.options().lease);
        let Some(own) = self.own.get_mut(nth) else { return Ok(()) };
        if later_version_is_live(&own.declared, workers) {
            (own.alone_since, own.rounds_alone) = (None, 0);
            return Ok(());
        }
        if own.counted_at.is_none_or(|at| at.elapsed() >= lease) {
            (own.rounds_alone, own.counted_at) = (own.rounds_alone.saturating_add(1), Some(Instant::now()));
        }
        let own = &*own;
        let Declared { plugin, version, schedules } = &own.declared;
        let held: Vec<&(ScheduleRecord, u64)> =
            held.iter().filter(|(record, _)| record.plugin == *plugin).collect();
        for (name, definition) in schedules {
            if !held.iter().any(|(record, _)| record.name == *name) {
                let record = ScheduleRecord {
                    v: 1,
                    plugin: plugin.clone(),
                    name: name.clone(),
                    declared_by: version.clone(),
                    declared_at: now,
                    definition: definition.clone(),
                    paused_at: None,
                    absent_since: None,
                };
                self.broker.write_recurring(&record, 0).await?;
                tracing::info!(%plugin, schedule = %name, version, "a schedule is declared");
            }
        }
        for (record, sequence) in held {
            let (name, declared) = (&record.name, schedules.get(&record.name));
            match (judge(own, record), declared) {
                (Verdict::Rewrite, Some(definition)) => {
                    let record = ScheduleRecord {
                        declared_by: version.clone(),
                        declared_at: now,
                        definition: definition.clone(),
                        absent_since: None,
                        ..record.clone()
                    };
                    self.broker.write_recurring(&record, *sequence).await?;
                    tracing::info!(%plugin, schedule = %name, version, "a schedule is declared anew");
                }
                (Verdict::Wake, _) => {
                    let record = ScheduleRecord { absent_since: None, ..record.clone() };
                    self.broker.write_recurring(&record, *sequence).await?;
                    tracing::info!(%plugin, schedule = %name, version, "a schedule goes on: its plugin is back");
                }
                (Verdict::Delete, _) => {
                    self.broker.delete_recurring(plugin, name, *sequence).await?;
                    tracing::info!(%plugin, schedule = %name, version, "a schedule that is no longer declared is deleted");
                }
                (Verdict::Keep | Verdict::Rewrite, _) => {}
            }
        }
        Ok(())
    }

    /// Lets the schedules stand still whose plugin no worker has had for long.
    async fn rest_absent(&self, held: &[(ScheduleRecord, u64)], workers: &[Presence]) -> Result<(), Error> {
        let has = |worker: &Presence, name: &Name| worker.plugins.iter().any(|plugin| plugin.name == *name);
        for (record, sequence) in held {
            let ScheduleRecord { plugin, name, .. } = record;
            let is_here = self.own.iter().any(|own| own.declared.plugin == *plugin)
                || workers.iter().any(|worker| has(worker, plugin));
            if is_here || record.absent_since.is_some() || self.broker.is_seen(plugin).await? {
                continue;
            }
            let record = ScheduleRecord { absent_since: Some(self.now()), ..record.clone() };
            self.broker.write_recurring(&record, *sequence).await?;
            tracing::warn!(%plugin, schedule = %name, "a schedule stands still: no worker has its plugin");
        }
        Ok(())
    }
}

/// Whether a worker has a later version as its current one: after a step back the version before it may be a previous one for a
/// while, and declares nothing.
fn later_version_is_live(declared: &Declared, workers: &[Presence]) -> bool {
    workers.iter().flat_map(|worker| &worker.plugins).any(|plugin| {
        plugin.name == declared.plugin
            && !plugin.is_previous
            && compare_versions(&plugin.version, &declared.version) == Ordering::Greater
    })
}

/// What the highest live version does about a schedule that the broker holds.
fn judge(own: &Own, record: &ScheduleRecord) -> Verdict {
    let declared = own.declared.schedules.get(&record.name);
    if declared == Some(&record.definition) {
        return if record.absent_since.is_some() { Verdict::Wake } else { Verdict::Keep };
    }
    let may = match compare_versions(&own.declared.version, &record.declared_by) {
        Ordering::Greater => true,
        // Other settings, or another build of the same version: the one that started last.
        Ordering::Equal => own.alone_since.is_some_and(|since| record.declared_at < since),
        // A later version declared it and is gone: it was rolled back, if it is not just being restarted.
        Ordering::Less => own.rounds_alone >= ROUNDS_ALONE,
    };
    match (may, declared) {
        (false, _) => Verdict::Keep,
        (true, Some(_)) => Verdict::Rewrite,
        (true, None) => Verdict::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(every: &str) -> ScheduleDefinition {
        serde_json::from_value(json!({ "task": "t", "major": 1, "every": every, "body": null })).unwrap()
    }

    fn own(version: &str, schedules: &[(&str, &str)], rounds_alone: u32) -> Own {
        let name = |text: &str| Name::new(text).unwrap();
        let schedules = schedules.iter().map(|(schedule, every)| (name(schedule), definition(every)));
        let declared =
            Declared { plugin: name("p"), version: version.to_owned(), schedules: schedules.collect() };
        Own {
            declared,
            alone_since: Some(Timestamp::from_unix_ms(1_000)),
            rounds_alone,
            counted_at: None,
            said_at: None,
        }
    }

    fn record(version: &str, every: &str, declared_at_ms: u64) -> ScheduleRecord {
        ScheduleRecord {
            v: 1,
            plugin: Name::new("p").unwrap(),
            name: Name::new("s").unwrap(),
            declared_by: version.to_owned(),
            declared_at: Timestamp::from_unix_ms(declared_at_ms),
            definition: definition(every),
            paused_at: None,
            absent_since: None,
        }
    }

    #[test]
    fn what_is_as_declared_is_never_written_whoever_declared_it() {
        for version in ["1.0.0", "1.1.0", "2.0.0"] {
            let own = own("1.1.0", &[("s", "5m")], 9);
            assert_eq!(judge(&own, &record(version, "5m", 0)), Verdict::Keep, "{version}");
        }
    }

    #[test]
    fn later_version_writes_at_once_an_earlier_one_only_when_it_has_been_alone() {
        let changed = [("s", "5m")];
        assert_eq!(judge(&own("1.1.0", &changed, 1), &record("1.0.0", "1m", 9_000)), Verdict::Rewrite);
        assert_eq!(judge(&own("1.1.0", &[], 1), &record("1.0.0", "1m", 9_000)), Verdict::Delete);
        assert_eq!(judge(&own("1.0.0", &changed, 1), &record("1.1.0", "1m", 0)), Verdict::Keep);
        assert_eq!(judge(&own("1.0.0", &changed, 2), &record("1.1.0", "1m", 0)), Verdict::Rewrite);
    }

    #[test]
    fn of_one_version_the_host_that_started_last_has_the_say() {
        let own = own("1.0.0", &[("s", "5m")], 1);
        assert_eq!(judge(&own, &record("1.0.0", "1m", 500)), Verdict::Rewrite);
        assert_eq!(judge(&own, &record("1.0.0", "1m", 2_000)), Verdict::Keep);
    }
}
