//! `cardcage instances list`: which instance runs which version of a plugin, and where APIs promise what no worker does.
//!
//! Invariant: what is said to drift is what an API that answered offers now, and no worker that answered can run. An
//! instance that does not answer is not there.
//!
//! What it refuses: it judges no versions. Two minor versions beside each other are no fault while each task and route has
//! somebody who runs it.

use cardcage_protocol::presence::{Presence, PresentPlugin, Question};
use cardcage_protocol::{InstanceId, Name, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::output;
use super::session::{Session, age, broker_trouble};
use crate::cli::InstanceListArgs;
use crate::exit::Exit;

/// What one API offers of one plugin, and nobody runs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Drift {
    instance: InstanceId,
    plugin: Name,
    version: String,
    /// Tasks that it accepts.
    tasks: Vec<Name>,
    /// Routes that it forwards, by name.
    routes: Vec<Name>,
}

/// Lists them.
pub async fn run(args: InstanceListArgs) -> Exit {
    let session = match Session::open(args.configuration, "instances list").await {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    let question = Question { routes: true, ..Question::default() };
    let asked = tokio::join!(session.broker.ask_apis(question), session.broker.ask_workers(question));
    let (apis, workers) = match asked {
        (Ok(apis), Ok(workers)) => (apis, workers),
        (Err(error), _) | (_, Err(error)) => return broker_trouble("instances cannot be asked", &error),
    };
    let drift = drift(&apis, &workers);
    if args.json {
        output::json(&json!({ "apis": apis, "workers": workers, "drift": drift }));
    } else if apis.is_empty() && workers.is_empty() {
        output::result("no instance answers");
    } else {
        output::result(&text(&apis, &workers, &drift, session.now(), output::styled()));
    }
    if args.check && !drift.is_empty() { Exit::Unexpected } else { Exit::Success }
}

fn drift(apis: &[Presence], workers: &[Presence]) -> Vec<Drift> {
    let of_api = |api: &Presence| -> Vec<Drift> {
        let plugins = api.plugins.iter().map(|plugin| Drift {
            instance: api.instance.clone(),
            plugin: plugin.name.clone(),
            version: plugin.version.clone(),
            tasks: missing(&plugin.tasks, |task| {
                workers.iter().any(|worker| worker.takes(&plugin.name, plugin.major, Some(task)))
            }),
            routes: missing(&plugin.routes, |route| {
                workers.iter().any(|worker| answers(worker, plugin, route))
            }),
        });
        plugins.filter(|drift| !drift.tasks.is_empty() || !drift.routes.is_empty()).collect()
    };
    // One that drains takes nothing any more.
    apis.iter().filter(|api| api.status == "serving").flat_map(of_api).collect()
}

fn missing(offered: &[Name], is_there: impl Fn(&Name) -> bool) -> Vec<Name> {
    offered.iter().filter(|name| !is_there(name)).cloned().collect()
}

fn answers(worker: &Presence, offered: &PresentPlugin, route: &Name) -> bool {
    worker.takes(&offered.name, offered.major, None)
        && worker.plugins.iter().any(|plugin| plugin.name == offered.name && plugin.routes.contains(route))
}

fn text(apis: &[Presence], workers: &[Presence], drift: &[Drift], now: Timestamp, is_styled: bool) -> String {
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
    for one in drift {
        let list = |names: &[Name]| names.iter().map(Name::to_string).collect::<Vec<_>>().join(", ");
        let (plugin, version) = (&one.plugin, output::shown(&one.version));
        if !one.tasks.is_empty() {
            let (instance, tasks) = (&one.instance, list(&one.tasks));
            text.push_str(&format!(
                "\n{red}no live worker can run {plugin} {version}: {instance} accepts its tasks {tasks}{plain}"
            ));
        }
        if !one.routes.is_empty() {
            let (instance, routes) = (&one.instance, list(&one.routes));
            text.push_str(&format!(
                "\n{red}no live worker can run {plugin} {version}: {instance} serves its routes {routes}{plain}"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn present(instance: &str, version: &str, tasks: &[&str], routes: &[&str], status: &str) -> Presence {
        let major = version.split('.').next().unwrap().parse().unwrap();
        Presence {
            group: None,
            v: 1,
            instance: InstanceId::new(instance).unwrap(),
            host: "h".into(),
            pid: 1,
            version: "0.1.0".into(),
            started_at: Timestamp::from_unix_ms(0),
            status: status.into(),
            consuming: instance.starts_with("worker"),
            busy: 0,
            slots: 0,
            plugins: vec![PresentPlugin {
                name: name("orders"),
                version: version.into(),
                major,
                tasks: tasks.iter().map(|task| name(task)).collect(),
                routes: routes.iter().map(|route| name(route)).collect(),
                busy: 0,
                slots: 0,
                is_previous: false,
                quarantined_at: None,
            }],
            running: Vec::new(),
        }
    }

    #[test]
    fn what_an_api_offers_and_no_worker_of_that_major_runs_drifts() {
        let api = present("api-1", "1.2.0", &["fulfil", "refund"], &["call", "status"], "serving");
        let old = present("worker-1", "1.1.0", &["fulfil"], &["call"], "serving");
        let drifts = drift(std::slice::from_ref(&api), std::slice::from_ref(&old));
        assert_eq!(
            (drifts.len(), &drifts[0].tasks, &drifts[0].routes),
            (1, &vec![name("refund")], &vec![name("status")])
        );
        let new = present("worker-2", "1.2.0", &["fulfil", "refund"], &["call", "status"], "serving");
        assert_eq!(drift(std::slice::from_ref(&api), &[old, new.clone()]), []);
        let next = present("worker-3", "2.0.0", &["fulfil", "refund"], &["call", "status"], "serving");
        assert_eq!(drift(std::slice::from_ref(&api), &[next])[0].tasks.len(), 2, "another major");
        let mut quarantined = new;
        quarantined.plugins[0].quarantined_at = Some(Timestamp::from_unix_ms(1));
        assert_eq!(drift(&[api], &[quarantined])[0].routes.len(), 2);
        let draining = present("api-2", "1.2.0", &["fulfil"], &[], "draining");
        assert_eq!(drift(&[draining], &[]), []);
    }

    #[test]
    fn drift_is_red_where_colours_are_and_only_there() {
        let api = [present("api-1", "1.2.0", &["fulfil"], &["call"], "serving")];
        let (drift, now) = (drift(&api, &[]), Timestamp::from_unix_ms(0));
        let styled = text(&api, &[], &drift, now, true);
        let red: Vec<&str> = styled.lines().filter(|line| line.starts_with("\u{1b}[31m")).collect();
        assert_eq!(red.len(), 2, "{styled:?}");
        assert!(
            red.iter()
                .all(|line| line.ends_with("\u{1b}[0m")
                    && line.contains("no live worker can run orders 1.2.0"))
        );
        assert!(!text(&api, &[], &drift, now, false).contains('\u{1b}'));
    }
}
