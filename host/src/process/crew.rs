//! A host's seats, seen and led as one: each is a [`super::Supervisor`] with one child, and a worker with groups, or with previous
//! libraries, has several. Who they are is [`super::members`]' business.
//!
//! ```text
//! reload ─▶ every seat brings up another child ─▶ all are up: all follow │ one is not: none does
//! ```
//!
//! Invariants: a child's death is its seat's business alone, the others do not notice; a reload changes all seats or none.
//!
//! It refuses to start or end children itself.

use super::assent::Assent;
use super::control::Role;
use super::status::{DutyMetrics, Handle, Snapshot, Stage};
use super::{Cause, Plan, Reloads, Unfit};
use crate::exit::Exit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// One process of a worker group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The group's name.
    pub group: String,
    /// Which of its processes, from 1.
    pub process: u32,
}

/// What others see of all seats. Clones are cheap, and see the same.
#[derive(Clone, Debug)]
pub struct Crew {
    all: Arc<watch::Sender<All>>,
    /// The metrics of what the host does beside watching its children.
    pub duties: DutyMetrics,
}

#[derive(Clone, Debug, Default)]
struct All {
    seats: Vec<Handle>,
    past: Past,
}

/// What seats that are gone have counted: the host's counters never go back.
#[derive(Clone, Debug, Default)]
struct Past {
    restarts: u64,
    replaced: BTreeMap<&'static str, u64>,
    crashes: BTreeMap<(Cause, Option<String>), u64>,
}

impl From<Handle> for Crew {
    fn from(handle: Handle) -> Self {
        let duties = handle.duties.clone();
        Self { duties, ..Self::new(vec![handle]) }
    }
}

impl Crew {
    /// The crew of these seats.
    #[must_use]
    pub fn new(seats: Vec<Handle>) -> Self {
        let all = All { seats, past: Past::default() };
        Self { all: Arc::new(watch::Sender::new(all)), duties: DutyMetrics::default() }
    }

    /// One seat more.
    pub fn add(&self, seat: Handle) {
        self.all.send_modify(|all| all.seats.push(seat));
    }

    /// Shows the seat of this instance no more, but for what it has counted.
    pub fn remove(&self, instance: &str) {
        self.all.send_modify(|all| {
            let All { seats, past } = all;
            seats.retain(|seat| {
                let last = seat.status.snapshot();
                let stays = last.instance != instance;
                if !stays {
                    past.restarts += last.restarts;
                    count(&mut past.replaced, last.replaced);
                    count(&mut past.crashes, last.crashes);
                }
                stays
            });
        });
    }

    fn seats(&self) -> Vec<Handle> {
        self.all.borrow().seats.clone()
    }

    /// The host's status now; with more than one seat it has theirs, too.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let All { seats, past } = self.all.borrow().clone();
        let mut seats = seats.into_iter().map(|seat| seat.status.snapshot());
        let Some(mut all) = seats.next() else { return Snapshot::new(Role::Worker, String::new()) };
        let rest: Vec<Snapshot> = seats.collect();
        if !rest.is_empty() {
            let each: Vec<Snapshot> = std::iter::once(all.clone()).chain(rest.iter().cloned()).collect();
            for seat in rest {
                all.merge(seat);
            }
            (all.seats, all.seat) = (each, None);
        }
        all.restarts += past.restarts;
        count(&mut all.replaced, past.replaced);
        count(&mut all.crashes, past.crashes);
        all
    }

    /// The metrics texts of the children that answer in time, as one; `None` where none does.
    pub async fn metrics_text(&self, within: Duration) -> Option<String> {
        let seats = self.seats();
        let asked = seats.iter().map(|seat| async move {
            let text = seat.metrics.text(within).await?;
            Some((seat.status.snapshot().seat, text))
        });
        let texts: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        match texts.as_slice() {
            [] => None,
            [(_, text)] if seats.len() == 1 => Some(text.clone()),
            _ => Some(labelled(&texts)),
        }
    }
}

impl Snapshot {
    /// What is said of two seats together.
    fn merge(&mut self, other: Self) {
        fn join<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
            for one in more {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        self.status = match (self.status, other.status) {
            (one, two) if one == two => one,
            (Stage::Draining, _) | (_, Stage::Draining) => Stage::Draining,
            (Stage::Ended, _) | (_, Stage::Ended) => Stage::Draining,
            _ => Stage::Starting,
        };
        self.ready &= other.ready;
        self.responding &= other.responding;
        self.consuming = self.consuming.zip(other.consuming).map(|(one, two)| one && two);
        join(&mut self.degraded, other.degraded);
        join(&mut self.refused, other.refused);
        join(&mut self.plugins, other.plugins);
        join(&mut self.quarantined, other.quarantined);
        join(&mut self.blocked, other.blocked);
        join(&mut self.bound, other.bound);
        self.child_pid = self.child_pid.or(other.child_pid);
        self.restarts += other.restarts;
        self.reloads = self.reloads.max(other.reloads);
        let is_later =
            |last: &super::CrashReport| self.last_crash.as_ref().is_none_or(|known| known.at < last.at);
        if other.last_crash.as_ref().is_some_and(is_later) {
            self.last_crash = other.last_crash;
        }
        count(&mut self.replaced, other.replaced);
        count(&mut self.crashes, other.crashes);
    }
}

fn count<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (what, count) in more {
        *all.entry(what).or_default() += count;
    }
}

/// One text of several children's, whose samples say whose they are. Samples of one name stand together.
fn labelled(texts: &[(Option<Seat>, String)]) -> String {
    // A name's comments, and its samples.
    let mut series: Vec<(String, String, String)> = Vec::new();
    for (seat, text) in texts {
        let mut comments = String::new();
        let labels = seat.as_ref().map_or_else(String::new, |seat| {
            format!("group=\"{}\",process=\"{}\"", seat.group, seat.process)
        });
        for line in text.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
            if line.starts_with('#') {
                comments.push_str(line);
                comments.push('\n');
                continue;
            }
            let Some(end) = line.find(['{', ' ']) else { continue };
            let (name, rest) = line.split_at(end);
            let sample = match rest.strip_prefix('{') {
                // Those of a host's only current process are what they are without others beside it.
                _ if labels.is_empty() => format!("{line}\n"),
                Some(rest) if rest.starts_with('}') => format!("{name}{{{labels}{rest}\n"),
                Some(rest) => format!("{name}{{{labels},{rest}\n"),
                None => format!("{name}{{{labels}}}{rest}\n"),
            };
            let comments = std::mem::take(&mut comments);
            match series.iter_mut().find(|(known, ..)| known == name) {
                Some((_, _, samples)) => samples.push_str(&sample),
                None => series.push((name.to_owned(), comments, sample)),
            }
        }
    }
    series.into_iter().map(|(_, comments, samples)| comments + &samples).collect()
}

/// Gives each seat its new plan: all of them follow, or none does.
///
/// # Errors
/// Why those before serve on.
pub async fn reload(seats: &[(Reloads, Plan)]) -> Result<(), Unfit> {
    let lost = || Unfit::of(Exit::Unexpected, "a reload was lost: a fault of cardcage");
    let (up, mut ups) = mpsc::channel(seats.len().max(1));
    let (go, gone) = watch::channel(None);
    let mut asked = JoinSet::new();
    for (reloads, plan) in seats {
        let (reloads, plan) = (reloads.clone(), plan.clone());
        let assent = Assent { up: up.clone(), go: gone.clone() };
        asked.spawn(async move { reloads.reload_with(plan, Some(assent)).await });
    }
    drop(up);
    let mut risen = 0;
    let mut fault = None;
    while risen < seats.len() && fault.is_none() {
        tokio::select! {
            Some(()) = ups.recv() => risen += 1,
            Some(ended) = asked.join_next() => fault = ended.unwrap_or_else(|_| Err(lost())).err(),
            else => fault = Some(lost()),
        }
    }
    go.send_replace(Some(fault.is_none()));
    while let Some(ended) = asked.join_next().await {
        let ended = ended.unwrap_or_else(|_| Err(lost()));
        // The first says what was wrong; the rest only that they were told so.
        fault = fault.or(ended.err());
    }
    fault.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(group: &str, process: u32) -> Option<Seat> {
        Some(Seat { group: group.to_owned(), process })
    }

    #[test]
    fn samples_of_several_children_stand_together_under_one_comment_and_say_whose_they_are() {
        let one = "# TYPE a gauge\na 1\n# TYPE b counter\nb{what=\"x\"} 2\n".to_owned();
        let two = "# TYPE a gauge\na 3\n# TYPE b counter\nb{what=\"x\"} 4\nc{} 5\n".to_owned();
        assert_eq!(
            labelled(&[(seat("g", 1), one), (seat("h", 2), two)]),
            "# TYPE a gauge\na{group=\"g\",process=\"1\"} 1\na{group=\"h\",process=\"2\"} 3\n\
             # TYPE b counter\nb{group=\"g\",process=\"1\",what=\"x\"} 2\nb{group=\"h\",process=\"2\",what=\"x\"} 4\n\
             c{group=\"h\",process=\"2\"} 5\n"
        );
    }

    #[test]
    fn samples_of_the_only_current_process_stay_as_they_are_beside_those_of_previous_libraries() {
        let text = "# TYPE a gauge\na 1\nb{what=\"x\"} 2\n".to_owned();
        assert_eq!(
            labelled(&[(None, text.clone()), (seat("previous-1", 1), text)]),
            "# TYPE a gauge\na 1\na{group=\"previous-1\",process=\"1\"} 1\n\
             b{what=\"x\"} 2\nb{group=\"previous-1\",process=\"1\",what=\"x\"} 2\n"
        );
    }

    #[test]
    fn host_is_ready_only_when_each_seat_is() {
        let at = |status, ready| Snapshot { status, ready, ..Snapshot::new(Role::Worker, "w".to_owned()) };
        let mut all = at(Stage::Serving, true);
        all.merge(at(Stage::Serving, true));
        assert_eq!((all.status, all.ready), (Stage::Serving, true));
        all.merge(at(Stage::Starting, false));
        assert_eq!((all.status, all.ready), (Stage::Starting, false));
        all.merge(at(Stage::Draining, false));
        assert_eq!((all.status, all.ready), (Stage::Draining, false));
    }
}
