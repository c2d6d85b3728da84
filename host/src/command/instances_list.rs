//! `cardcage instances list`: which instance runs which version of a plugin, and where APIs promise what no worker does.
//!
//! Invariant: what is said to drift is what an API that answered offers now, and no worker that answered can run
//! (`instances_list/drift.rs`). An instance that does not answer is not there.

mod bodies;
mod drift;

use cardcage_protocol::presence::{Presence, PresentPlugin, Question};
use cardcage_protocol::{Name, Timestamp};
use serde_json::json;

use bodies::Schemas;
use drift::{Code, Found, Kind, NotCompared, Reason};

use super::output;
use super::session::{Session, age, broker_trouble};
use crate::broker::{Broker, Error};
use crate::cli::InstanceListArgs;
use crate::deployed::By;
use crate::exit::Exit;

/// Lists them.
pub async fn run(args: InstanceListArgs) -> Exit {
    let session = match Session::open(args.configuration, "instances list").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let question = Question { routes: true, bodies: true, ..Question::default() };
    let asked = tokio::join!(session.broker.ask_apis(question), session.broker.ask_workers(question));
    let (apis, workers) = match asked {
        (Ok(apis), Ok(workers)) => (apis, workers),
        (Err(error), _) | (_, Err(error)) => return broker_trouble("instances cannot be asked", &error),
    };
    let found = match find(&session.broker, &apis, &workers).await {
        Ok(found) => found,
        Err(error) => return broker_trouble("plugins' schemas cannot be read", &error),
    };
    let Found { drift, not_compared } = &found;
    if args.json {
        output::json(
            &json!({ "apis": apis, "workers": workers, "drift": drift, "not_compared": not_compared }),
        );
    } else if apis.is_empty() && workers.is_empty() {
        output::result("no instance answers");
    } else {
        output::result(&text(&apis, &workers, &found, session.now(), output::styled()));
    }
    let is_settled = drift.is_empty() && not_compared.is_empty();
    if args.check && !is_settled { Exit::Unexpected } else { Exit::Success }
}

/// Schemas are read only where some differ.
async fn find(broker: &Broker, apis: &[Presence], workers: &[Presence]) -> Result<Found, Error> {
    let found = drift::find(apis, workers, &Schemas::default());
    if found.not_compared.is_empty() {
        return Ok(found);
    }
    let (offered, deployed) = tokio::try_join!(broker.deployed(By::Api), broker.deployed(By::Worker))?;
    let descriptions = offered.into_iter().chain(deployed).map(|one| one.description);
    Ok(drift::find(apis, workers, &Schemas::of(descriptions)))
}

fn text(apis: &[Presence], workers: &[Presence], found: &Found, now: Timestamp, is_styled: bool) -> String {
    let mut table = output::table();
    table.set_header(["instance", "role", "group", "host", "pid", "up", "status", "plugins"]);
    let apis = apis.iter().map(|one| ("api", one));
    for (role, one) in apis.chain(workers.iter().map(|one| ("worker", one))) {
        let version = |plugin: &PresentPlugin| {
            let quarantined = if plugin.quarantined_at.is_some() { " (quarantined)" } else { "" };
            format!("{} {}{quarantined}", plugin.name, output::shown(&plugin.version))
        };
        table.add_row([
            one.instance.to_string(),
            role.to_owned(),
            output::shown(one.group.as_deref().unwrap_or("-")),
            output::shown(&one.host),
            one.pid.to_string(),
            age(Some(one.started_at), now),
            output::shown(&one.status),
            one.plugins.iter().map(version).collect::<Vec<_>>().join(", "),
        ]);
    }
    let (red, plain) = if is_styled { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    let mut text = table.trim_fmt();
    for one in &found.drift {
        let (plugin, version, instance) = (&one.plugin, output::shown(&one.version), &one.instance);
        let nobody = format!("no live worker can run {plugin} {version}: {instance}");
        let not_all = format!("no live worker reads all bodies of {plugin} {version}: {instance}");
        for (names, kind, is_unfit, line) in [
            (&one.tasks, Kind::Task, false, format!("{nobody} accepts its tasks")),
            (&one.routes, Kind::Route, false, format!("{nobody} serves its routes")),
            (&one.unfit, Kind::Task, true, format!("{not_all} accepts its tasks")),
        ] {
            if !names.is_empty() {
                text.push_str(&format!("\n{red}{line} {}{plain}", list(names)));
                let is_of =
                    |reason: &&Reason| reason.kind == kind && (reason.code == Code::BodyUnfit) == is_unfit;
                push_reasons(&mut text, one.reasons.iter().filter(is_of));
            }
        }
    }
    for one in &found.not_compared {
        let NotCompared { instance, plugin, version, task } = one;
        let version = output::shown(version);
        text.push_str(&format!(
            "\nnot compared: {instance} accepts {task} of {plugin} {version} by another schema than workers read it by, and \
             the broker does not have both: try again; two builds of one version cannot be told apart there"
        ));
    }
    text
}

fn list(names: &[Name]) -> String {
    names.iter().map(Name::to_string).collect::<Vec<_>>().join(", ")
}

/// Adds why, once for all that have it in common.
fn push_reasons<'a>(text: &mut String, reasons: impl Iterator<Item = &'a Reason>) {
    let mut told: Vec<(&Reason, Vec<Name>)> = Vec::new();
    for reason in reasons {
        let same = |(other, _): &&mut (&Reason, _)| (reason.code, &reason.why) == (other.code, &other.why);
        match told.iter_mut().find(same) {
            Some((_, names)) => names.push(reason.name.clone()),
            None => told.push((reason, vec![reason.name.clone()])),
        }
    }
    for (reason, names) in told {
        let (why, remedy) = (output::shown(&reason.why), output::shown(&reason.remedy));
        text.push_str(&format!("\n  {}: {why}\n  remedy: {remedy}", list(&names)));
    }
}

#[cfg(test)]
mod tests;
