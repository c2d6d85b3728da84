//! The bench: a plugin under test, at one of the levels, with the same questions at each.

use crate::host::{Broker, Environment, Hosts};
use crate::unit::{self, Start, Unit};
use crate::{Error, Outcome, Reply, Result};
use plugin_api::Plugin;
use plugin_api::bytes::Bytes;
use plugin_api::http::{Method, Request};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How much of what runs in production runs in the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The plugin's code, in the test's process.
    Unit,
    /// The built library, in hosts, with a broker double.
    Plugin,
    /// The built library, in hosts, with a real broker.
    System,
}

enum What {
    Unit(Start),
    Library(PathBuf, Broker),
}

/// A bench in preparation.
pub struct Setup {
    what: What,
    name: String,
    config: Value,
    options: BTreeMap<String, Value>,
    beside: Vec<(PathBuf, Value)>,
    environment: Environment,
    patience: Duration,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Setup {
    fn new(what: What) -> Self {
        Self {
            what,
            name: "plugin".into(),
            config: Value::Object(serde_json::Map::new()),
            options: BTreeMap::new(),
            beside: Vec::new(),
            environment: Environment::new(),
            patience: Duration::from_secs(90),
        }
    }

    /// The plugin's settings.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// The plugin's name, for the unit level, where no library tells it.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// An option of the hosts, such as `tasks.timeout_ms`. The unit level has none.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    /// Another plugin that the hosts load. The unit level has none.
    #[must_use]
    pub fn beside(mut self, library: impl AsRef<Path>, config: Value) -> Self {
        self.beside.push((library.as_ref().to_owned(), config));
        self
    }

    /// An environment variable of the hosts, and of the commands that the bench runs. At the unit level the plugin has that
    /// of the test's process.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// How long to wait for a start, or for an outcome, by the machine's clock; 90 s unless told otherwise.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts what there is to start, and waits until it is ready.
    ///
    /// # Errors
    /// The plugin refuses its settings; or a library, `cardcage` or nats-server is missing or does not start. The error
    /// holds what they wrote.
    pub async fn start(self) -> Result<Bench> {
        let inner = match self.what {
            What::Unit(start) => {
                Inner::Unit(Unit::start(&self.name, start, self.config, self.patience).await?)
            }
            What::Library(library, broker) => {
                let mut plugins = vec![(library, self.config)];
                plugins.extend(self.beside);
                let hosts =
                    Hosts::start(broker, plugins, self.options, self.environment, self.patience).await?;
                Inner::Hosts(Box::new(hosts))
            }
        };
        Ok(Bench { inner })
    }
}

enum Inner {
    Unit(Unit),
    Hosts(Box<Hosts>),
}

/// A plugin under test. Dropping it ends whatever it started.
pub struct Bench {
    inner: Inner,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("level", &self.level()).finish_non_exhaustive()
    }
}

impl Bench {
    /// The plugin's code in this process. No broker, no host: retries and delays pass at once, because the clock that
    /// handlers see is put forward to what comes next whenever the test waits for it. Timers inside a handler are
    /// tokio's: `#[tokio::test(start_paused = true)]` (tokio's feature `test-util`) makes them pass at once too, but not
    /// together with real sockets.
    pub fn unit<S: Clone + Send + Sync + 'static>(
        definition: impl FnOnce() -> Plugin<S> + Send + 'static,
    ) -> Setup {
        Setup::new(What::Unit(unit::starter(definition)))
    }

    /// The built library in a `cardcage api` and a `cardcage worker`, with a [`BrokerDouble`](crate::BrokerDouble) in this
    /// process: for a machine without nats-server. Otherwise as [`system`](Self::system).
    pub fn plugin(library: impl AsRef<Path>) -> Setup {
        Setup::new(What::Library(library.as_ref().to_owned(), Broker::Double))
    }

    /// The built library in a `cardcage api` and a `cardcage worker`, with a real nats-server. Backoffs pass a hundred
    /// times as fast, and leases are short; see `docs/test-a-plugin.md`.
    pub fn system(library: impl AsRef<Path>) -> Setup {
        Setup::new(What::Library(library.as_ref().to_owned(), Broker::NatsServer))
    }

    /// The level.
    pub fn level(&self) -> Level {
        match &self.inner {
            Inner::Unit(_) => Level::Unit,
            Inner::Hosts(hosts) => match hosts.broker() {
                Broker::Double => Level::Plugin,
                Broker::NatsServer => Level::System,
            },
        }
    }

    /// `GET` of a path below the plugin's prefix.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(request(Method::GET, path, Bytes::new(), None)?).await
    }

    /// `POST` of a JSON body to a path below the plugin's prefix.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(request(Method::POST, path, Bytes::from(body.to_string()), Some("application/json"))?).await
    }

    /// Any request, its path below the plugin's prefix.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Reply> {
        match &self.inner {
            Inner::Unit(unit) => unit.send(request).await,
            Inner::Hosts(hosts) => hosts.send(request).await,
        }
    }

    /// Enqueues one of the plugin's tasks, as `cardcage tasks enqueue` does.
    ///
    /// # Errors
    /// There is no such task, the body does not fit it, or it is not taken.
    pub async fn enqueue(&self, task: &str, body: &Value) -> Result<Uuid> {
        match &self.inner {
            Inner::Unit(unit) => unit.enqueue_fit(task, body),
            Inner::Hosts(hosts) => hosts.enqueue(task, body).await,
        }
    }

    /// Enqueues a task with a body that is held against nothing, as another version of the plugin may have done: one that the
    /// handler cannot read is parked.
    ///
    /// # Errors
    /// There is no such task.
    pub async fn enqueue_unchecked(&self, task: &str, body: &Value) -> Result<Uuid> {
        match &self.inner {
            Inner::Unit(unit) => unit.enqueue(task, body, None),
            Inner::Hosts(hosts) => hosts.enqueue_unchecked(task, body).await,
        }
    }

    /// Waits until a task has ended, or is parked.
    ///
    /// # Errors
    /// There is no such task, or it did not end in time; the error says where it stands.
    pub async fn outcome(&self, id: Uuid) -> Result<Outcome> {
        match &self.inner {
            Inner::Unit(unit) => unit.outcome(id).await,
            Inner::Hosts(hosts) => hosts.outcome(id).await,
        }
    }

    /// What `GET /tasks/{id}` says; `None` where there is no such task.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn task(&self, id: Uuid) -> Result<Option<Value>> {
        match &self.inner {
            Inner::Unit(unit) => Ok(unit.view(id)),
            Inner::Hosts(hosts) => hosts.view(id).await,
        }
    }

    /// Waits until a task's handler is at work.
    ///
    /// # Errors
    /// It was not in time, or has ended.
    pub async fn running(&self, id: Uuid) -> Result<()> {
        let last = crate::eventually(Duration::from_secs(60), &format!("task {id} runs"), async || {
            let view = self.task(id).await.ok().flatten()?;
            let state = view.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
            (state == "running" || Outcome::read(&view).is_some()).then_some(state)
        })
        .await?;
        if last == "running" { Ok(()) } else { Err(Error::new(format!("the task is {last} already"))) }
    }

    /// `POST /tasks/{id}/cancel`.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn cancel(&self, id: Uuid) -> Result<Reply> {
        match &self.inner {
            Inner::Unit(unit) => Ok(unit.cancel(id)),
            Inner::Hosts(hosts) => hosts.cancel(id).await,
        }
    }

    /// Starts the task of one of the plugin's schedules, as `cardcage schedules run` does.
    ///
    /// # Errors
    /// There is no such schedule; above the unit level that is known after some seconds, for a worker declares them after
    /// it is ready.
    pub async fn fire(&self, schedule: &str) -> Result<Uuid> {
        match &self.inner {
            Inner::Unit(unit) => unit.fire(schedule),
            Inner::Hosts(hosts) => hosts.fire(schedule).await,
        }
    }

    /// What was logged so far, a line for each event.
    pub fn logs(&self) -> String {
        match &self.inner {
            Inner::Unit(unit) => unit.logs(),
            Inner::Hosts(hosts) => hosts.logs(),
        }
    }

    /// Lets so much time pass at once, with every task that is due in it.
    ///
    /// # Errors
    /// Above the unit level time is the machine's, and nobody moves it.
    pub async fn advance(&self, time: Duration) -> Result<()> {
        match &self.inner {
            Inner::Unit(unit) => {
                unit.advance(time).await;
                Ok(())
            }
            Inner::Hosts(_) => Err(Error::new("only the unit level has a clock that can be put forward")),
        }
    }

    /// Runs a task again and again, each time a new one: the first attempt of the n-th is dropped at its n-th await, as
    /// when its worker dies there, and the task is tried again. Ends when an attempt has fewer awaits than that. An await
    /// that asks the host (an enqueue, a look of `once` and its record) counts twice: it is lost before the host has done
    /// it, and once more after that, before the handler hears of it. The outcomes say how each ended; what it did outside,
    /// once or twice, is for the test to look at.
    ///
    /// # Errors
    /// A task did not end. Above the unit level nobody sees the awaits of a handler.
    pub async fn lost_at_every_await(&self, task: &str, body: &Value) -> Result<Vec<Outcome>> {
        match &self.inner {
            Inner::Unit(unit) => unit.lost_at_every_await(task, body).await,
            Inner::Hosts(_) => Err(Error::new("only the unit level sees the awaits of a handler")),
        }
    }

    /// Sends a request again and again: the n-th time the caller hangs up at the handler's n-th await, and the handler is dropped
    /// there; awaits are counted as in [`lost_at_every_await`](Self::lost_at_every_await). Ends with the time that is answered:
    /// how often the caller has hung up before, and the answer. What the handler left half-done is for the test to look at.
    ///
    /// # Errors
    /// The handler does not answer. Above the unit level nobody sees the awaits of a handler.
    pub async fn hung_up_at_every_await(&self, request: &Request<Bytes>) -> Result<(u32, Reply)> {
        match &self.inner {
            Inner::Unit(unit) => unit.hung_up_at_every_await(request).await,
            Inner::Hosts(_) => Err(Error::new("only the unit level sees the awaits of a handler")),
        }
    }

    /// Stops what was started, in order, as an operator would.
    ///
    /// # Errors
    /// A host did not exit with 0; the error holds what it wrote.
    pub async fn stop(self) -> Result<()> {
        match self.inner {
            Inner::Unit(_) => Ok(()),
            Inner::Hosts(hosts) => hosts.stop().await,
        }
    }
}

fn request(method: Method, path: &str, body: Bytes, media_type: Option<&str>) -> Result<Request<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(media_type) = media_type {
        request = request.header("content-type", media_type);
    }
    request.body(body).map_err(Error::doing(format!("{path} is no path")))
}
