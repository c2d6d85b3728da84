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
    if let Err(error) = jsonschema::validator_for(&new.input_schema) {
        let message =
            format!("the schema of its body is none ({error}): who enqueues it is refused; mend the plugin");
        let mut finding = Finding::breaking(plugin, Kind::TaskNotCompared, of, message);
        // Who is refused today as well loses nothing.
        finding.breaks = is_schema(task);
        return vec![finding];
    }
    let told = misfits(Schema::whole(&task.input_schema), Schema::whole(&new.input_schema));
    let narrowed = |misfit: &Misfit| {
        let message = format!("the body: {}", misfit.for_sender());
        let finding = Finding::breaking(plugin, Kind::TaskSchemaNarrowed, of.clone(), message);
        // Bodies of the earlier version are what an upcaster is for.
        Finding { breaks: !new.upcasts, ..finding }
    };
    told.iter().map(narrowed).collect()
}

fn is_schema(task: &TaskDescription) -> bool {
    jsonschema::validator_for(&task.input_schema).is_ok()
}

fn of_group<'a>(one: &'a Deployed, group: &Group) -> Option<&'a TaskDescription> {
    let description = &one.description;
    let is_same = description.name == group.plugin && description.major() == group.major;
    description.tasks.iter().find(|known| is_same && known.name == group.task)
}

/// Tasks of one kind and version that wait, and those that are dead.
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
    if count.is_uncompared {
        let all = count.waiting() + count.dead;
        let message = format!(
            "{all} that wait or are dead, enqueued by {version}, could not be held against the schema of its body, which is none"
        );
        let mut finding = Finding::breaking(plugin, Kind::TaskNotCompared, of.clone(), message);
        finding.breaks = deployed.iter().any(|one| of_group(one, group).is_some_and(is_schema));
        findings.push(finding);
    }
    // A plugin that was refused is told as that.
    let is_known =
        candidate.descriptions.contains_key(plugin) || !candidate.settings.plugins.contains_key(plugin);
    if !count.is_taken && count.waiting() > 0 && is_known {
        let waiting = count.waiting();
        let message =
            format!("{waiting} that wait for v{major}, enqueued by {version}, would find no worker");
        let mut finding = Finding::breaking(plugin, Kind::WaitingTasksOrphaned, of, message);
        // Of what no worker has today nothing is taken away.
        finding.breaks = deployed.iter().any(|one| of_group(one, group).is_some());
        findings.push(finding);
    }
    findings.extend(judge_dead(group, count).filter(|_| is_known || count.is_taken));
    findings
}

/// What a replay of the dead ones would come to.
fn judge_dead(group: &Group, count: &Count) -> Option<Finding> {
    let Group { plugin, major, task, version } = group;
    let (unfit, dead) = (count.unfit_dead, count.dead);
    let fault = count.dead_fault.as_deref().unwrap_or("no reason given");
    let (kind, message) = if !count.is_taken && dead > 0 {
        let message = format!(
            "{dead} dead letters of v{major}, enqueued by {version}, would find no worker when replayed"
        );
        (Kind::DeadLettersOrphaned, message)
    } else if unfit > 0 {
        let which = format!("{unfit} of {dead} dead letters of {version}");
        let what = if count.is_upcast { "are left to its upcaster" } else { "would be parked when replayed" };
        (Kind::DeadLettersUnfit, format!("{which} {what}: {fault}"))
    } else {
        return None;
    };
    let mut finding = Finding::note(plugin, kind, format!("task {task}"), message);
    // Of what nobody could replay today nothing is taken away.
    finding.breaks = count.lost_dead > 0;
    Some(finding)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether it breaks, its kind and its words.
    fn told(count: &Count) -> Option<(bool, Kind, String)> {
        let (plugin, task) = ("shop".to_owned(), "pay".to_owned());
        let group = Group { plugin, major: 1, task, version: "1.2.0".to_owned() };
        judge_dead(&group, count).map(|finding| (finding.breaks, finding.kind, finding.message))
    }

    #[test]
    fn dead_letters_are_told_and_break_where_a_replay_would_be_worse_off_than_today() {
        let dead_fault = Some("it is no JSON".to_owned());
        let none = Count::default();
        let unfit = Count { dead: 3, unfit_dead: 2, lost_dead: 2, is_taken: true, dead_fault, ..none };
        let words = "2 of 3 dead letters of 1.2.0 would be parked when replayed: it is no JSON".to_owned();
        assert_eq!(told(&unfit), Some((true, Kind::DeadLettersUnfit, words.clone())));
        let as_today = Count { lost_dead: 0, ..unfit.clone() };
        assert_eq!(told(&as_today), Some((false, Kind::DeadLettersUnfit, words)));
        let upcast = Count { is_upcast: true, ..as_today };
        let words = "2 of 3 dead letters of 1.2.0 are left to its upcaster: it is no JSON".to_owned();
        assert_eq!(told(&upcast), Some((false, Kind::DeadLettersUnfit, words)));
        let orphaned = Count { dead: 3, lost_dead: 3, ..Count::default() };
        let words = "3 dead letters of v1, enqueued by 1.2.0, would find no worker when replayed".to_owned();
        assert_eq!(told(&orphaned), Some((true, Kind::DeadLettersOrphaned, words.clone())));
        let long_gone = Count { lost_dead: 0, ..orphaned };
        assert_eq!(told(&long_gone), Some((false, Kind::DeadLettersOrphaned, words)));
        assert_eq!(told(&Count { dead: 3, is_taken: true, ..Count::default() }), None, "all fit");
    }

    #[test]
    fn task_whose_schema_is_none_is_told_as_that_and_breaks_where_the_deployed_one_is_a_schema() {
        let shop = |version: &str, schema: &serde_json::Value| -> Description {
            let task = json!({ "name": "pay", "input_schema": schema });
            let all = json!({ "name": "shop", "version": version, "routes": [], "tasks": [task] });
            serde_json::from_value(all).unwrap()
        };
        let (good, none) = (shop("1.0.0", &json!({})), shop("1.1.0", &json!({ "type": 7 })));
        let judged = |before: &Description| {
            let findings = judge_task("shop", &before.tasks[0], &none, true);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].message.contains("who enqueues it is refused"), "{findings:?}");
            (findings[0].kind, findings[0].breaks)
        };
        assert_eq!(judged(&good), (Kind::TaskNotCompared, true));
        assert_eq!(judged(&none), (Kind::TaskNotCompared, false), "who is refused today loses nothing");
    }
}
