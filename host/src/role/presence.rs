//! A worker's supervisor, and an API's, answers who asks whether it is there.
//!
//! The supervisor answers and not the child, because it runs no plugin code: it answers while every handler blocks its
//! thread, while the child is being replaced, and while it drains.
//!
//! It survives messages without a reply subject, and what is no question.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cardcage_protocol::presence::{Presence, PresentPlugin, Question, RunningTask};
use cardcage_protocol::{InstanceId, Name, TaskId, Timestamp};

use tokio::sync::watch;

use crate::broker::{Broker, Incoming};
use crate::config::{Settings, Share};
use crate::crash::{Board, Entry};
use crate::process::control::Role;
use crate::process::{Snapshot, Stage, Status};
use crate::worker::tasks::slots_per_plugin;

/// Pause before listening again.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest answer that tells all that was asked for; the broker takes messages of 1 MiB with their headers.
const ANSWER_MAX_BYTES: usize = 900 * 1024;

/// What a supervisor knows of its host.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) role: Role,
    pub(super) broker: Broker,
    pub(super) instance: InstanceId,
    pub(super) boards: [Board; 2],
    pub(super) status: Status,
    /// What its child has of the plugin set.
    pub(super) share: Share,
    /// What the children that serve were given.
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) started_at: Timestamp,
}

/// The name of the machine, or of the container.
pub(crate) fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

impl Present {
    /// Answers until it is dropped.
    pub(super) async fn answer(self) {
        let host = machine();
        let subjects = self.broker.subjects();
        let subject = match self.role {
            Role::Api => subjects.api_presence(),
            Role::Worker => subjects.presence(),
        };
        loop {
            match self.broker.subscribe(subject.clone()).await {
                Ok(mut questions) => {
                    while let Some(question) = questions.next().await {
                        self.reply(&host, &question).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot listen for who asks who is there yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn reply(&self, host: &str, message: &Incoming) {
        let Some(asker) = message.reply() else { return };
        let body = message.payload();
        let question = if body.is_empty() { Ok(Question::default()) } else { serde_json::from_slice(&body) };
        let Ok(question) = question else { return };
        let sent = match encode(self.presence(host, question, &self.status.snapshot())) {
            Ok(json) => self.broker.publish(asker.to_owned(), Bytes::from(json)).await,
            Err(error) => return tracing::error!(%error, "the presence cannot be written"),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a question after who is there could not be answered");
        }
    }

    fn presence(&self, host: &str, question: Question, snapshot: &Snapshot) -> Presence {
        let held: Vec<Entry> =
            self.boards.iter().flat_map(Board::live).filter(|entry| entry.kind.is_task()).collect();
        // The others wait there for their turn.
        let under_way = |entry: &&Entry| entry.attempt > 0;
        let takes_tasks = self.role == Role::Worker;
        let group = snapshot.seat.as_ref().map(|seat| seat.group.clone());
        let settings = self.settings.borrow().of_share(&self.share);
        let all = slots_per_plugin(settings.worker.task_concurrency, snapshot.plugins.len());
        let slots = |plugin: &str| {
            let own = settings.plugins.get(plugin).and_then(|plugin| plugin.task_concurrency);
            own.map_or(all, |own| own.min(all))
        };
        let plugins: Vec<PresentPlugin> = snapshot
            .plugins
            .iter()
            .filter_map(|plugin| {
                Some(PresentPlugin {
                    name: Name::new(&plugin.name).ok()?,
                    major: plugin.version.split('.').next()?.parse().ok()?,
                    version: plugin.version.clone(),
                    routes: if question.routes { names(&plugin.called) } else { Vec::new() },
                    paths: if question.routes { plugin.paths.clone() } else { Vec::new() },
                    bodies: if question.bodies { plugin.bodies.clone() } else { Vec::new() },
                    tasks: names(&plugin.task_names),
                    busy: held.iter().filter(under_way).filter(|entry| entry.plugin == plugin.name).count(),
                    slots: if plugin.task_names.is_empty() || !takes_tasks { 0 } else { slots(&plugin.name) },
                    is_previous: self.share.generation > 0,
                    quarantined_at: snapshot
                        .quarantined
                        .iter()
                        .find(|one| one.plugin == plugin.name && one.version == plugin.version)
                        .map(|one| one.since),
                })
            })
            .collect();
        Presence {
            v: 1,
            instance: self.instance.clone(),
            group,
            host: host.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            status: match snapshot.status {
                Stage::Starting => "starting",
                Stage::Serving => "serving",
                Stage::Draining => "draining",
                Stage::Ended => "ended",
            }
            .to_owned(),
            consuming: snapshot.status == Stage::Serving
                && snapshot.consuming == Some(true)
                && snapshot.responding,
            busy: held.iter().filter(under_way).count(),
            slots: plugins.iter().map(|plugin| plugin.slots).sum(),
            plugins,
            running: if question.running { held.iter().filter_map(running).collect() } else { Vec::new() },
        }
    }
}

/// An answer that fits a message: one that would not goes without what is of use only to whoever compares.
fn encode(mut presence: Presence) -> serde_json::Result<Vec<u8>> {
    let whole = serde_json::to_vec(&presence)?;
    if whole.len() <= ANSWER_MAX_BYTES {
        return Ok(whole);
    }
    for plugin in &mut presence.plugins {
        (plugin.bodies, plugin.paths) = (Vec::new(), Vec::new());
    }
    serde_json::to_vec(&presence)
}

fn names(names: &[String]) -> Vec<Name> {
    names.iter().filter_map(|name| Name::new(name).ok()).collect()
}

fn running(entry: &Entry) -> Option<RunningTask> {
    Some(RunningTask {
        id: TaskId::from_bytes(entry.id).ok()?,
        plugin: Name::new(&entry.plugin).ok()?,
        task: Name::new(&entry.name).ok()?,
        attempt: entry.attempt,
        until: Timestamp::from_unix_ms(entry.hard_deadline_unix_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardcage_protocol::presence::{PresentBody, PresentPath};

    fn with_tasks(count: usize) -> Presence {
        let tasks: Vec<Name> = (0..count).map(|n| Name::new(&format!("task{n}")).unwrap()).collect();
        let body = |task: &Name| PresentBody { task: task.clone(), schema: "0".repeat(64), upcasts: false };
        Presence {
            v: 1,
            instance: InstanceId::new("worker-1").unwrap(),
            group: None,
            host: "h".into(),
            pid: 1,
            version: "0.1.0".into(),
            started_at: Timestamp::from_unix_ms(0),
            status: "serving".into(),
            consuming: true,
            busy: 0,
            slots: 1,
            plugins: vec![PresentPlugin {
                name: Name::new("orders").unwrap(),
                version: "1.0.0".into(),
                major: 1,
                bodies: tasks.iter().map(body).collect(),
                tasks,
                routes: vec![Name::new("call").unwrap()],
                paths: vec![PresentPath { route: Name::new("call").unwrap(), at: "GET /".into() }],
                busy: 0,
                slots: 1,
                is_previous: false,
                quarantined_at: None,
            }],
            running: Vec::new(),
        }
    }

    #[test]
    fn an_answer_that_fits_no_message_tells_names_and_not_how_bodies_are_read() {
        let few = with_tasks(2);
        assert_eq!(serde_json::from_slice::<Presence>(&encode(few.clone()).unwrap()).unwrap(), few);
        let many = with_tasks(10_000);
        let json = encode(many.clone()).unwrap();
        assert!(json.len() <= ANSWER_MAX_BYTES, "{}", json.len());
        let read: Presence = serde_json::from_slice(&json).unwrap();
        let (read, many) = (&read.plugins[0], &many.plugins[0]);
        assert_eq!((&read.tasks, &read.routes), (&many.tasks, &many.routes));
        assert_eq!((read.bodies.len(), read.paths.len()), (0, 0));
    }
}
