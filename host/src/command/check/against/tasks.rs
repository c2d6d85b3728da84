//! Tasks that are declared, and those that wait, held against the candidate's: gone, asking for more, or left without a worker.

use super::Candidate;
use super::comparison::misfits;
use super::finding::{Finding, Kind};
use super::misfit::Misfit;
use super::schema::Schema;
use super::waiting::{Count, Group};
use crate::deployed::Deployed;
use crate::loader::{Description, TaskDescription};

/// One deployed task. Where the broker was asked, a task that goes lets down only those that wait (`judge_tasks`).
pub(super) fn judge_task(
    plugin: &str,
    task: &TaskDescription,
    after: &Description,
    broker_was_asked: bool,
) -> Vec<Finding> {
    let of = format!("task {}", task.name);
    let Some(new) = after.tasks.iter().find(|one| one.name == task.name) else {
        let message = "is gone: who enqueues it is refused";
        let mut finding = Finding::breaking(plugin, Kind::TaskRemoved, of, message);
        finding.breaks = !broker_was_asked;
        return vec![finding];
    };
    let told = misfits(Schema::whole(&task.input_schema), Schema::whole(&new.input_schema));
    let narrowed = |misfit: &Misfit| {
        let message = format!("the body: {}", misfit.for_sender());
        let finding = Finding::breaking(plugin, Kind::TaskSchemaNarrowed, of.clone(), message);
        // Bodies of the earlier version are what an upcaster is for.
        Finding { breaks: !new.upcasts, ..finding }
    };
    told.iter().map(narrowed).collect()
}

/// Tasks of one kind and version that wait.
pub(super) fn judge_tasks(
    group: &Group,
    count: &Count,
    deployed: &[Deployed],
    candidate: &Candidate<'_>,
) -> Vec<Finding> {
    let Group { plugin, major, task, version } = group;
    let of = format!("task {task}");
    let mut findings = Vec::new();
    if count.unfit > 0 {
        let (unfit, waiting) = (count.unfit, count.queued + count.delayed);
        let fault = count.fault.as_deref().unwrap_or("no reason given");
        let which = format!("{unfit} of {waiting} that wait, enqueued by {version},");
        findings.push(if count.is_upcast {
            let message = format!("{which} are left to its upcaster: {fault}");
            Finding::note(plugin, Kind::WaitingTasksUnfit, of.clone(), message)
        } else {
            let message = format!("{which} would be parked: {fault}");
            Finding::breaking(plugin, Kind::WaitingTasksUnfit, of.clone(), message)
        });
    }
    if count.fit_parked > 0 {
        let (fit, parked) = (count.fit_parked, count.parked);
        let message =
            format!("{fit} of {parked} that are parked, enqueued by {version}, would come back and run");
        findings.push(Finding::note(plugin, Kind::ParkedTasksFit, of.clone(), message));
    }
    if count.unfit_dead > 0 {
        let (unfit, dead) = (count.unfit_dead, count.dead);
        let fault = count.fault.as_deref().unwrap_or("no reason given");
        let message = format!("{unfit} of {dead} dead letters of {version} could not be replayed: {fault}");
        findings.push(Finding::note(plugin, Kind::DeadLettersUnfit, of.clone(), message));
    }
    // A plugin that was refused is told as that.
    let is_known =
        candidate.descriptions.contains_key(plugin) || !candidate.settings.plugins.contains_key(plugin);
    if !count.is_taken && count.waiting() > 0 && is_known {
        let waiting = count.waiting();
        let message =
            format!("{waiting} that wait for v{major}, enqueued by {version}, would find no worker");
        let is_deployed = |one: &Deployed| {
            let description = &one.description;
            description.name == *plugin
                && description.major() == *major
                && description.tasks.iter().any(|known| known.name == *task)
        };
        let mut finding = Finding::breaking(plugin, Kind::WaitingTasksOrphaned, of, message);
        // Of what no worker has today nothing is taken away.
        finding.breaks = deployed.iter().any(is_deployed);
        findings.push(finding);
    }
    findings
}
