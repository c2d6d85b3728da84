//! What holds for a task: the operator's word over the author's.
//!
//! It is settled once, when a library has described itself; after that nobody asks who said it. The operator's defaults
//! for what neither of them states are filled in where the limits are used.

use super::description::{Description, TaskDescription};
use super::set::Source;
use crate::config::TaskOverrides;
use std::collections::BTreeMap;

/// How many tasks are named as a hint.
const HINTS: usize = 8;

impl TaskDescription {
    /// Lays the operator's limits over the author's.
    pub(super) fn lay_over(&mut self, over: &TaskOverrides) {
        fn lay<T: Copy>(below: &mut Option<T>, over: Option<T>) {
            *below = over.or(*below);
        }
        lay(&mut self.max_attempts, over.max_attempts);
        lay(&mut self.backoff_initial_ms, over.backoff_initial_ms);
        lay(&mut self.backoff_max_ms, over.backoff_max_ms);
        lay(&mut self.timeout_ms, over.timeout_ms);
        lay(&mut self.soft_timeout_ms, over.soft_timeout_ms);
        lay(&mut self.concurrency, over.concurrency);
        lay(&mut self.max_running, over.max_running);
        lay(&mut self.rate, over.rate);
        lay(&mut self.expires_ms, over.expires_ms);
        lay(&mut self.result_ttl_s, over.result_ttl_s);
        lay(&mut self.on_lost, over.on_lost);
        self.priorities = over.priorities.unwrap_or(self.priorities);
        for (below, over) in [
            (&mut self.unique_key, &over.unique_key),
            (&mut self.serial_key, &over.serial_key),
            (&mut self.exhausted, &over.exhausted),
        ] {
            if let Some(text) = over {
                *below = Some(text.clone()).filter(|text| !text.is_empty());
            }
        }
    }
}

impl Description {
    /// Lays the operator's limits over the authors'. A task that does not exist is passed over: see [`task_faults`].
    pub(crate) fn lay_over(&mut self, overrides: &BTreeMap<String, TaskOverrides>) {
        for task in &mut self.tasks {
            if let Some(over) = overrides.get(&task.name) {
                task.lay_over(over);
            }
        }
    }
}

impl Description {
    /// Lays the operator's word over the authors', as far as it is about this library: what `plugins.<name>` says of tasks is
    /// meant for the current one, and a previous one takes of it what it can.
    pub(super) fn lay_over_all(&mut self, source: &Source) {
        if !source.is_previous {
            self.lay_over(&source.tasks);
            return self.lay_over_schedules(&source.schedules);
        }
        for (task, over) in &source.tasks {
            let one = BTreeMap::from([(task.clone(), over.clone())]);
            if task_faults(&source.name, &one, self).is_empty() {
                self.lay_over(&one);
            }
        }
    }
}

/// One sentence for each entry of `plugins.<name>.tasks` that cannot be meant. Whoever starts with one is told, and
/// `check` tells it in the same words.
#[must_use]
pub fn task_faults(
    name: &str,
    overrides: &BTreeMap<String, TaskOverrides>,
    description: &Description,
) -> Vec<String> {
    let unknown = |task: &&String| !description.tasks.iter().any(|known| known.name == **task);
    let fault = |task: &String| {
        format!("`plugins.{name}.tasks.{task}` names no task of the plugin; {}", hint(description))
    };
    let capped = |task: &&TaskDescription| {
        task.priorities && overrides.get(&task.name).is_some_and(|over| over.max_running.is_some())
    };
    let capped_fault = |task: &TaskDescription| {
        let task = &task.name;
        format!(
            "`plugins.{name}.tasks.{task}.max_running` cannot be kept: the task has priorities, so a queue for each of \
             them; `concurrency` bounds it per worker"
        )
    };
    let mut laid_over = description.clone();
    laid_over.lay_over(overrides);
    let mut faults: Vec<String> = overrides.keys().filter(unknown).map(fault).collect();
    let capped: Vec<String> = laid_over.tasks.iter().filter(capped).map(capped_fault).collect();
    match laid_over.check_tasks() {
        Err(what) if capped.is_empty() => {
            faults.push(format!("what `plugins.{name}.tasks` sets cannot be kept: the plugin then {what}"));
        }
        _ => faults.extend(capped),
    }
    faults
}

fn hint(description: &Description) -> String {
    let names: Vec<String> =
        description.tasks.iter().take(HINTS).map(|task| format!("`{}`", task.name)).collect();
    let more = description.tasks.len().saturating_sub(HINTS);
    match (names.is_empty(), more) {
        (true, _) => "it has none".to_owned(),
        (false, 0) => format!("it has {}", names.join(", ")),
        (false, more) => format!("it has {} and {more} more", names.join(", ")),
    }
}
