//! Tasks that wait at the broker, and dead letters, held against what the candidate takes: counted by plugin, task and the
//! version that enqueued them.
//!
//! Here nothing is compared in theory. Each body is held against the candidate's schema, as a host would do it.
//!
//! Invariant: nothing is changed, and each look is bounded (`broker/scan.rs`); one that was cut off is admitted.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cardcage_protocol::{Name, TaskEnvelope};
use serde::Serialize;
use serde_json::Value;

use crate::broker::{Broker, Error, Extent, LetterFilter, Place};
use crate::loader::Description;

/// Dead letters that are looked at.
const LETTERS_MAX: usize = 20_000;

/// Tasks of one kind and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Group {
    pub(super) plugin: String,
    pub(super) major: u32,
    pub(super) task: String,
    /// The plugin's version that enqueued them.
    pub(super) version: String,
}

/// How many there are, and how many of them the candidate cannot take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) queued: u64,
    pub(super) delayed: u64,
    pub(super) parked: u64,
    pub(super) dead: u64,
    /// Queued or delayed ones whose body does not fit.
    pub(super) unfit: u64,
    /// Parked ones whose body would fit: they come back. Of the others nobody expects that it does.
    pub(super) fit_parked: u64,
    /// Dead ones whose body does not fit.
    pub(super) unfit_dead: u64,
    /// Dead ones that what is deployed would take in a replay, and the candidate would not.
    pub(super) lost_dead: u64,
    /// What is wrong with the first queued or delayed one that does not fit.
    pub(super) fault: Option<String>,
    /// What is wrong with the first dead one that does not fit.
    pub(super) dead_fault: Option<String>,
    /// The candidate has the plugin, in this major, with this task.
    pub(super) is_taken: bool,
    /// The candidate's task has an upcaster, which may take what does not fit.
    pub(super) is_upcast: bool,
    /// The candidate's schema cannot be compiled, so no body was held against it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_uncompared: bool,
}

impl Count {
    /// Those that are still to run.
    pub(super) fn waiting(&self) -> u64 {
        self.queued + self.delayed + self.parked
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) counts: BTreeMap<Group, Count>,
    /// Messages that are no tasks that could be read.
    pub(super) unreadable: u64,
    pub(super) is_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Queue,
    Schedule,
    Parked,
    Dead,
}

/// The tasks that one set of libraries takes, by plugin, major and task.
struct Takers(BTreeMap<(String, u32, String), Taker>);

struct Taker {
    /// `None` where it cannot be compiled: a worker runs the task all the same, for it holds no body against it.
    schema: Option<jsonschema::Validator>,
    upcasts: bool,
}

impl Taker {
    /// Whether a body can be anything but parked. What an upcaster makes of it only its code knows.
    fn may_take(&self, body: &[u8]) -> bool {
        self.upcasts || self.misfit(body).is_none()
    }

    /// Why a body does not fit; `None` where nothing is known to speak against it.
    fn misfit(&self, body: &[u8]) -> Option<String> {
        misfit(self.schema.as_ref()?, body)
    }
}

impl Takers {
    fn new<'a>(descriptions: impl IntoIterator<Item = &'a Description>) -> Self {
        let mut takers = BTreeMap::new();
        for description in descriptions {
            for task in &description.tasks {
                let schema = jsonschema::validator_for(&task.input_schema).ok();
                let key = (description.name.clone(), description.major(), task.name.clone());
                takers.insert(key, Taker { schema, upcasts: task.upcasts });
            }
        }
        Self(takers)
    }

    fn get(&self, envelope: &TaskEnvelope) -> Option<&Taker> {
        self.0.get(&(text(&envelope.plugin), envelope.major, text(&envelope.task)))
    }
}

/// Who takes tasks today, and who would.
struct Both {
    /// By version: two of one major may be live side by side.
    deployed: Vec<Takers>,
    candidate: Takers,
}

impl Both {
    /// Whether a replay of this task has somebody today whom it would not have any more.
    fn lose(&self, dead: &TaskEnvelope) -> bool {
        let may_take = |takers: &Takers| takers.get(dead).is_some_and(|taker| taker.may_take(&dead.body));
        !may_take(&self.candidate) && self.deployed.iter().any(may_take)
    }
}

/// Counts everything that waits, and the dead letters.
///
/// # Errors
/// As [`Broker`] has them: it could not be read.
pub(super) async fn count<'a>(
    broker: &Broker,
    deployed: impl IntoIterator<Item = &'a Description>,
    candidate: impl IntoIterator<Item = &'a Description>,
) -> Result<Waiting, Error> {
    let deployed = deployed.into_iter().map(|one| Takers::new([one])).collect();
    let both = Both { deployed, candidate: Takers::new(candidate) };
    let mut waiting = Waiting { is_complete: true, ..Waiting::default() };
    let mut extents: Vec<Extent> = Vec::new();
    let found = &mut waiting;
    extents.push(
        broker
            .look_at_queues(None, |_, one| {
                found.add(&both, In::Queue, one.envelope.as_ref());
                ControlFlow::Continue(())
            })
            .await?,
    );
    // Who waits for a serial key is queued, to everybody else.
    extents.push(
        broker
            .look_at_lines(|one| {
                found.add(&both, In::Queue, one.envelope.as_ref());
                ControlFlow::Continue(())
            })
            .await?,
    );
    extents.push(
        broker
            .look_at_schedule(|place| {
                if let Place::Scheduled(one, _) | Place::Due(one) = place {
                    found.add(&both, In::Schedule, one.envelope.as_ref());
                }
                ControlFlow::Continue(())
            })
            .await?,
    );
    extents.push(
        broker
            .look_at_parked(|one| {
                found.add(&both, In::Parked, one.envelope.as_ref());
                ControlFlow::Continue(())
            })
            .await?,
    );
    let (letters, extent) = broker.newest_letters(&LetterFilter::default(), LETTERS_MAX).await?;
    for letter in &letters {
        found.add(&both, In::Dead, letter.envelope.as_ref().ok());
    }
    extents.push(extent);
    waiting.is_complete = extents.iter().all(|extent| extent.complete);
    Ok(waiting)
}

impl Waiting {
    fn add(&mut self, both: &Both, place: In, envelope: Option<&TaskEnvelope>) {
        let Some(envelope) = envelope else {
            self.unreadable += 1;
            return;
        };
        let (plugin, task) = (text(&envelope.plugin), text(&envelope.task));
        let taker = both.candidate.get(envelope);
        let version = envelope.version.to_string();
        let count = self.counts.entry(Group { plugin, major: envelope.major, task, version }).or_default();
        count.is_taken = taker.is_some();
        count.is_upcast = taker.is_some_and(|taker| taker.upcasts);
        match place {
            In::Queue => count.queued += 1,
            In::Schedule => count.delayed += 1,
            In::Parked => count.parked += 1,
            In::Dead => {
                count.dead += 1;
                count.lost_dead += u64::from(both.lose(envelope));
            }
        }
        let Some(taker) = taker else { return };
        let fault = taker.misfit(&envelope.body);
        count.is_uncompared = taker.schema.is_none();
        if place == In::Parked {
            // By a schema that cannot be compiled none comes back.
            if count.is_uncompared {
                return;
            }
            count.fit_parked += u64::from(fault.is_none());
            return;
        }
        let Some(fault) = fault else { return };
        if place == In::Dead {
            count.unfit_dead += 1;
            count.dead_fault.get_or_insert(fault);
        } else {
            count.unfit += 1;
            count.fault.get_or_insert(fault);
        }
    }
}

fn text(name: &Name) -> String {
    name.as_str().to_owned()
}

/// Why a body does not fit; `None` where it does.
fn misfit(schema: &jsonschema::Validator, body: &[u8]) -> Option<String> {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return Some(format!("it is no JSON ({error})")),
    };
    let error = schema.iter_errors(&body).next()?;
    let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    // Masked: a body may hold what should not stand in a CI's log.
    let what = error.masked().to_string();
    Some(if path.is_empty() { what } else { format!("at `{path}`: {what}") })
}

#[cfg(test)]
mod tests;
