//! The judge: what was promised against what is recorded, and what is recorded against what ran.
//!
//! It is a function of plain values, so that its own tests can hand it a ledger with a lost task and see it object.
//!
//! Refuses to pass a run in which too little happened: nothing is lost where nothing is risked.

mod turns;

use std::collections::{BTreeMap, BTreeSet};

use cardcage_protocol::{State, TaskId};

use crate::ending::Ending;
use crate::harvest::Endings;
use crate::ledger::Entry;
use crate::plan::Target;
use crate::submission::Kind;

/// What a run of a minute must have seen; a longer one more, a shorter one less.
pub(crate) const DUE_PER_MINUTE: Due =
    Due { kills: 20, broker_kills: 5, accepted: 2_000, of_each_kind: 5, slots: 8 };

/// The least that must have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) kills: u64,
    pub(crate) broker_kills: u64,
    pub(crate) accepted: u64,
    /// Of those: a kind that is always refused proves nothing of itself.
    pub(crate) of_each_kind: u64,
    /// Of the schedule, which has one every two seconds.
    pub(crate) slots: u64,
}

/// What the tasks of the schedule answer with.
pub(crate) const SLOT_NOTE: &str = "slot";

/// What is judged.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) entries: Vec<Entry>,
    pub(crate) endings: Endings,
    pub(crate) letters: BTreeMap<TaskId, u64>,
    /// How often each task of the plugin that leaves a trace came to a good end.
    pub(crate) runs: BTreeMap<TaskId, u64>,
    pub(crate) kills: BTreeMap<Target, u64>,
    /// Answers to submissions, by status and code.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Messages that still waited when everything was promised to be over.
    pub(crate) left_over: u64,
    pub(crate) seconds: u64,
}

/// What was found. A run is passed if everything but `duplicates` is empty.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Verdict {
    /// Promised, and never ended.
    pub(crate) lost: Vec<String>,
    /// Ended or ran, and never submitted.
    pub(crate) phantom: Vec<String>,
    /// Ended otherwise than its handler decided, or with another's result.
    pub(crate) corrupt: Vec<String>,
    /// Ended twice, or one submission became two tasks.
    pub(crate) double_final: Vec<String>,
    /// The API did not know a task that it had promised, or answered a submission with what is neither a promise nor a refusal
    /// for now.
    pub(crate) denied: Vec<String>,
    /// Why the run proves too little.
    pub(crate) vacuous: Vec<String>,
    /// Good ends of a handler beyond the first: allowed, at least once is what is promised.
    pub(crate) duplicates: u64,
    /// Slots of the schedule that became tasks.
    pub(crate) slots: u64,
    /// Submissions that were promised.
    pub(crate) accepted: u64,
    /// Submissions that were not.
    pub(crate) refused: u64,
    /// Of those, the ones that ran nevertheless.
    pub(crate) refused_and_ended: u64,
    /// Ends by state.
    pub(crate) states: BTreeMap<String, u64>,
}

impl Verdict {
    /// Whether there is nothing to object to.
    pub(crate) fn is_passed(&self) -> bool {
        [&self.lost, &self.phantom, &self.corrupt, &self.double_final, &self.denied, &self.vacuous]
            .iter()
            .all(|objections| objections.is_empty())
    }
}

/// Judges.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let owners = Owners::of(&evidence.entries);
    let offspring = offspring(evidence, &owners);
    let mut slots = BTreeMap::new();
    let mut ends_of: BTreeMap<u64, Vec<&Ending>> = BTreeMap::new();
    for (id, ends) in &evidence.endings {
        let [end, others @ ..] = ends.as_slice() else { continue };
        *verdict.states.entry(end.state.to_string()).or_default() += 1;
        if let Some(other) = others.first() {
            verdict.double_final.push(format!(
                "{id} ended {} at {:?} and {} at {:?}",
                end.state, end.finished_at, other.state, other.finished_at
            ));
        }
        match owners.owner(end) {
            Some(n) => ends_of.entry(n).or_default().push(end),
            // Its parent answers for it.
            None if offspring.contains(id) => {}
            // The time in its id is its slot's.
            None if end.note() == Some(SLOT_NOTE) => {
                if let Some(other) = slots.insert(id.unix_ms(), *id) {
                    verdict.double_final.push(format!("a slot of the schedule became {other} and {id}"));
                }
            }
            None => verdict.phantom.push(format!("{id} ended {}, and nobody submitted it", end.state)),
        }
    }
    for entry in &evidence.entries {
        let ends = ends_of.remove(&entry.submission.n).unwrap_or_default();
        judge_entry(&mut verdict, evidence, entry, &ends);
    }
    for (id, runs) in &evidence.runs {
        verdict.duplicates += runs - 1;
        if !evidence.endings.contains_key(id) && !owners.is_promised(*id) && !offspring.contains(id) {
            verdict.phantom.push(format!("{id} ran {runs} times, and neither promise nor record knows it"));
        }
    }
    verdict.slots = slots.len() as u64;
    judge_letters(&mut verdict, evidence);
    turns::judge(&mut verdict, evidence);
    judge_answers(&mut verdict, evidence);
    judge_weight(&mut verdict, evidence);
    verdict
}

/// The tasks that come of those that were promised or ended.
fn offspring(evidence: &Evidence, owners: &Owners<'_>) -> BTreeSet<TaskId> {
    let kinds: BTreeMap<u64, Kind> =
        evidence.entries.iter().map(|entry| (entry.submission.n, entry.submission.kind)).collect();
    let ended = evidence.endings.iter().filter_map(|(id, ends)| Some((*id, owners.owner(ends.first()?)?)));
    let promised = owners.ids.iter().map(|(id, n)| (*id, *n));
    ended.chain(promised).flat_map(|(id, n)| kinds.get(&n).map(|kind| kind.offspring(id))).flatten().collect()
}

/// What comes of a task that ended as it should ends well, once.
fn judge_offspring(verdict: &mut Verdict, evidence: &Evidence, what: &str, kind: Kind, parent: TaskId) {
    for id in kind.offspring(parent) {
        let Some(end) = evidence.endings.get(&id).and_then(|ends| ends.first()) else {
            verdict.lost.push(format!("{what}: {parent} has ended, and {id}, which comes of it, never did"));
            continue;
        };
        if end.state != State::Succeeded || !evidence.runs.contains_key(&id) {
            verdict.corrupt.push(format!(
                "{what}: {id}, which comes of {parent}, is recorded as {}, and ran {} times",
                end.state,
                evidence.runs.get(&id).copied().unwrap_or(0)
            ));
        }
    }
}

fn judge_entry(verdict: &mut Verdict, evidence: &Evidence, entry: &Entry, ends: &[&Ending]) {
    let submission = &entry.submission;
    let what = format!("submission {} ({:?})", submission.n, submission.kind);
    if entry.promised.is_empty() {
        verdict.refused += 1;
        verdict.refused_and_ended += u64::from(!ends.is_empty());
    } else {
        verdict.accepted += 1;
    }
    let known: BTreeSet<TaskId> =
        entry.promised.iter().copied().chain(ends.iter().map(|end| end.id)).collect();
    if known.len() > 1 {
        verdict.double_final.push(format!("{what} became several tasks: {known:?}"));
    }
    for id in &entry.promised {
        if !evidence.endings.contains_key(id) {
            verdict.lost.push(format!("{what} was promised as {id} and never ended"));
        }
    }
    if entry.denials > 0 {
        verdict.denied.push(format!("{what}: {:?} was answered with 404", entry.promised));
    }
    for end in ends {
        if let Some(objection) = submission.objection(end) {
            verdict.corrupt.push(format!("{what}, {}: {objection}", end.id));
        }
        judge_offspring(verdict, evidence, &what, submission.kind, end.id);
        if submission.kind.leaves_trace()
            && end.state == State::Succeeded
            && !evidence.runs.contains_key(&end.id)
        {
            verdict.corrupt.push(format!("{what}, {}: recorded as succeeded, and it never ran", end.id));
        }
    }
}

/// Whatever failed has one dead letter, and nothing else has any.
fn judge_letters(verdict: &mut Verdict, evidence: &Evidence) {
    for (id, ends) in &evidence.endings {
        let Some(end) = ends.first() else { continue };
        let letters = evidence.letters.get(id).copied().unwrap_or(0);
        if letters != u64::from(end.state == State::Failed) {
            verdict.corrupt.push(format!("{id} ended {} with {letters} dead letters", end.state));
        }
    }
    for id in evidence.letters.keys().filter(|id| !evidence.endings.contains_key(id)) {
        verdict.phantom.push(format!("{id} has a dead letter, and never ended"));
    }
}

/// A submission is promised, or refused for now; anything else is no answer to what is sent here.
fn judge_answers(verdict: &mut Verdict, evidence: &Evidence) {
    const FOR_NOW: [&str; 5] = ["202", "502", "503", "504", "none"];
    for (answer, count) in &evidence.answers {
        if !FOR_NOW.iter().any(|known| answer.starts_with(known)) {
            verdict.denied.push(format!("{count} submissions were answered {}", answer.trim()));
        }
    }
}

/// Did enough happen?
fn judge_weight(verdict: &mut Verdict, evidence: &Evidence) {
    let due = |per_minute: u64| per_minute * evidence.seconds / 60;
    let kills = evidence.kills.values().sum();
    let of_broker = evidence.kills.get(&Target::Broker).copied().unwrap_or(0);
    for (what, were, least) in [
        ("kills", kills, due(DUE_PER_MINUTE.kills)),
        ("kills of the broker", of_broker, due(DUE_PER_MINUTE.broker_kills)),
        ("accepted tasks", verdict.accepted, due(DUE_PER_MINUTE.accepted)),
        ("slots of the schedule", verdict.slots, due(DUE_PER_MINUTE.slots)),
    ] {
        if were < least {
            verdict
                .vacuous
                .push(format!("{were} {what} in {} s, at least {least} are due", evidence.seconds));
        }
    }
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for entry in &evidence.entries {
        *kinds.entry(entry.submission.kind.name()).or_default() += u64::from(!entry.promised.is_empty());
    }
    let least = due(DUE_PER_MINUTE.of_each_kind);
    for (kind, were) in kinds.iter().filter(|(_, were)| **were < least) {
        verdict
            .vacuous
            .push(format!("{were} accepted tasks that {kind} describes, at least {least} are due"));
    }
    if evidence.left_over > 0 {
        verdict.vacuous.push(format!("{} messages still wait: it was judged too early", evidence.left_over));
    }
}

/// Whose outcome it is.
struct Owners<'a> {
    ids: BTreeMap<TaskId, u64>,
    keys: BTreeMap<&'a str, u64>,
    notes: BTreeMap<&'a str, u64>,
}

impl<'a> Owners<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut owners = Self { ids: BTreeMap::new(), keys: BTreeMap::new(), notes: BTreeMap::new() };
        for Entry { submission, promised, .. } in entries {
            owners.ids.extend(promised.iter().map(|id| (*id, submission.n)));
            owners.keys.extend(submission.key.as_deref().map(|key| (key, submission.n)));
            owners.notes.insert(&submission.note, submission.n);
        }
        owners
    }

    /// By promise, else by what came back with it: its receipt may have been lost.
    fn owner(&self, end: &Ending) -> Option<u64> {
        let by_id = self.ids.get(&end.id);
        let by_key = || end.key.as_deref().and_then(|key| self.keys.get(key));
        let by_note = || end.note().and_then(|note| self.notes.get(note));
        by_id.or_else(by_key).or_else(by_note).copied()
    }

    fn is_promised(&self, id: TaskId) -> bool {
        self.ids.contains_key(&id)
    }
}

#[cfg(test)]
mod tests;
