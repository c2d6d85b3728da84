//! The unit level: the plugin's code in the test's process, on a clock that is put forward where something waits.
//!
//! It is a host and a broker in a few hundred lines, so it proves what the plugin does and nothing of what they do:
//! bodies are held against the handler's type and not the schema, and no limit, lease or crash is real.

mod clock;
mod cut;
mod enqueue;
mod held;
mod ledger;
mod routes;
mod run;
mod terms;
mod world;

pub(crate) use clock::rfc3339;

use crate::host_side::lock;
use crate::{Error, Outcome, Reply, Result};
use ledger::{New, State};
use plugin_api::bytes::Bytes;
use plugin_api::http::{HeaderMap, Request, StatusCode};
use plugin_api::{Plugin, testing};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use world::{Refused, World};

/// More awaits than any handler has that is worth testing so.
const AWAITS_MAX: u32 = 1_000;

type Started =
    Pin<Box<dyn Future<Output = std::result::Result<testing::Started, plugin_api::InitError>> + Send>>;

/// Starts the plugin for a host with these settings.
pub(crate) type Start = Box<dyn FnOnce(testing::Host, Value) -> Started + Send>;

pub(crate) fn starter<S: Clone + Send + Sync + 'static>(
    definition: impl FnOnce() -> Plugin<S> + Send + 'static,
) -> Start {
    Box::new(move |host, config| {
        let plugin = definition();
        Box::pin(async move { testing::start(plugin, host.plugin_context(&config)).await })
    })
}

/// A plugin under test.
pub(crate) struct Unit {
    world: Arc<World>,
    patience: Duration,
}

impl Unit {
    pub(crate) async fn start(name: &str, start: Start, config: Value, patience: Duration) -> Result<Self> {
        let world = World::new(name);
        let started = start(world.host(), config).await;
        let started = started.map_err(Error::doing("the plugin does not start"))?;
        world.plugin.get_or_init(|| started);
        Ok(Self { world, patience })
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Reply> {
        let reply = routes::send(&self.world, request, None).await?;
        reply.ok_or_else(|| Error::new("nobody has hung up, and there is no answer"))
    }

    /// See [`crate::Bench::hung_up_at_every_await`].
    pub(crate) async fn hung_up_at_every_await(&self, request: &Request<Bytes>) -> Result<(u32, Reply)> {
        for n in 1..=AWAITS_MAX {
            if let Some(reply) = routes::send(&self.world, request.clone(), Some(n)).await? {
                return Ok((n - 1, reply));
            }
        }
        Err(Error::new(format!("the handler has more than {AWAITS_MAX} awaits, or never answers")))
    }

    /// Holds the body against the handler's type first.
    pub(crate) fn enqueue_fit(&self, task: &str, body: &Value) -> Result<Uuid> {
        let plugin = self.world.plugin.get();
        match plugin.and_then(|plugin| plugin.accepts(task, body.to_string().as_bytes())) {
            Some(Err(fault)) => Err(Error::new(format!("the body does not fit the task `{task}`: {fault}"))),
            _ => self.enqueue(task, body, None),
        }
    }

    pub(crate) fn enqueue(&self, task: &str, body: &Value, cut: Option<u32>) -> Result<Uuid> {
        let body = body.to_string().into_bytes();
        let new = New {
            id: Uuid::now_v7(),
            task: task.to_owned(),
            plugin: None,
            body,
            key: None,
            due: self.world.clock.now(),
            parent: None,
            cut,
        };
        let taken = self.world.take(new);
        taken
            .map(|(id, _)| id)
            .map_err(|refused| Error::new(format!("{} ({})", refused.sentence(), refused.1)))
    }

    pub(crate) fn view(&self, id: Uuid) -> Option<Value> {
        lock(&self.world.ledger).tasks.get(&id).map(|entry| entry.view(&self.world.name))
    }

    pub(crate) async fn outcome(&self, id: Uuid) -> Result<Outcome> {
        let over = self.patiently(id).await;
        let view = self.view(id).ok_or_else(|| Error::new(format!("there is no task {id}")))?;
        Outcome::read(&view).ok_or_else(|| {
            let why = if over { "nothing will end it here" } else { "its handler does not return" };
            Error::new(format!("the task has not ended, and {why}: {view}\n{}", self.logs()))
        })
    }

    /// Whether waiting came to an end by itself. Patience is a matter of the machine's clock: a test whose timers are
    /// tokio's own, paused ones, may let days pass.
    async fn patiently(&self, id: Uuid) -> bool {
        let end = std::time::Instant::now() + self.patience;
        while std::time::Instant::now() < end {
            if tokio::time::timeout(self.patience, self.world.run_until_over(id, None)).await.is_ok() {
                return true;
            }
        }
        false
    }

    pub(crate) fn cancel(&self, id: Uuid) -> Reply {
        let mut ledger = lock(&self.world.ledger);
        let Some(entry) = ledger.tasks.get_mut(&id) else {
            return routes::problem(&Refused(404, "no_such_task", "there is no task with this id".into()));
        };
        if entry.state.is_final() {
            let text = format!("The task ended {}.", entry.state.as_str());
            return routes::problem(&Refused(409, "task_ended", text));
        }
        entry.cancel_requested = true;
        let status = match &entry.cancellation {
            Some(token) => {
                token.cancel();
                StatusCode::ACCEPTED
            }
            // About to start; it will not.
            None if entry.state == State::Running => StatusCode::ACCEPTED,
            None => {
                entry.state = State::Cancelled;
                StatusCode::OK
            }
        };
        let view = entry.view(&self.world.name).to_string();
        drop(ledger);
        self.world.changed();
        Reply { status, headers: HeaderMap::new(), body: Bytes::from(view) }
    }

    pub(crate) fn fire(&self, schedule: &str) -> Result<Uuid> {
        let plugin = self.world.plugin.get().map(testing::Started::description);
        let declared = plugin.and_then(|plugin| plugin.get("schedules")?.as_array());
        let declared = declared
            .and_then(|all| all.iter().find(|one| one.get("name").is_some_and(|name| name == schedule)));
        let declared =
            declared.ok_or_else(|| Error::new(format!("the plugin has no schedule `{schedule}`")))?;
        let task = declared.get("task").and_then(Value::as_str).unwrap_or_default();
        self.enqueue(task, declared.get("body").unwrap_or(&Value::Null), None)
    }

    pub(crate) async fn advance(&self, time: Duration) {
        self.world.advance(time).await;
    }

    pub(crate) fn logs(&self) -> String {
        self.world.logs()
    }

    /// See [`crate::Bench::lost_at_every_await`].
    pub(crate) async fn lost_at_every_await(&self, task: &str, body: &Value) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for n in 1..=AWAITS_MAX {
            let id = self.enqueue(task, body, Some(n))?;
            let outcome = self.outcome(id).await?;
            let lost = lock(&self.world.ledger).tasks.get(&id).is_some_and(|entry| {
                let first = entry.attempts.first().and_then(|first| first.pointer("/error/code"));
                first.is_some_and(|code| code == "lease_lost")
            });
            if !lost {
                return Ok(outcomes);
            }
            outcomes.push(outcome);
        }
        Err(Error::new(format!("the handler has more than {AWAITS_MAX} awaits, or never returns")))
    }
}
