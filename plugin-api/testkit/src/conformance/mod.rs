//! What any plugin must stand, looked at from outside: the built library in real hosts, with a real broker unless told
//! otherwise.
//!
//! The check knows nothing of what a plugin is for, so it sends what callers and old versions send by mistake to
//! everything that the plugin declares, and then what its author says is good. It finds a plugin that panics, crashes,
//! hangs or answers more than hosts pass on; that a plugin does the right thing is for its own tests.
//!
//! It runs the plugin's handlers, also with bodies that happen to fit: give it settings that lead nowhere.

mod plan;
mod probe;
mod report;
mod stop;

pub use report::{Finding, Report, Rule};

use crate::host::{Broker, Environment, Hosts, absolute, describe};
use crate::{Error, Result, eventually};
use plan::Declared;
use plugin_api::http::Method;
use probe::Probe;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How long a handler may take with whatever it was given.
const HANDLER: Duration = Duration::from_secs(20);
/// How long a host that lost its child may take to be ready again.
const READY: Duration = Duration::from_secs(60);

/// A request or a body that the plugin's author says is good.
#[derive(Debug, Clone)]
enum Sample {
    Call(Method, String, Value),
    Task(String, Value),
}

/// The check in preparation; made by [`conformance`].
#[derive(Debug)]
#[must_use = "nothing is looked at before `run`"]
pub struct Conformance {
    library: PathBuf,
    config: Value,
    options: BTreeMap<String, Value>,
    environment: Environment,
    samples: Vec<Sample>,
    broker: Broker,
}

/// Looks whether a plugin stands what any plugin must.
///
/// ```no_run
/// # use serde_json::json;
/// # async fn test() -> testkit::Result<()> {
/// let library = testkit::library(env!("CARGO_PKG_NAME"))?;
/// let report = testkit::conformance(library).task("fulfil", json!({ "order_id": "o1" })).run().await?;
/// report.assert_clean();
/// # Ok(())
/// # }
/// ```
pub fn conformance(library: impl AsRef<Path>) -> Conformance {
    Conformance {
        library: absolute(library.as_ref()),
        config: json!({}),
        options: BTreeMap::new(),
        environment: Environment::new(),
        samples: Vec::new(),
        broker: Broker::NatsServer,
    }
}

impl Conformance {
    /// The plugin's settings.
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// An option of the hosts.
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    /// An environment variable of the hosts, and of the process in which the library describes itself.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// With a [`BrokerDouble`](crate::BrokerDouble) instead of nats-server, for a machine that has none.
    pub fn with_double(mut self) -> Self {
        self.broker = Broker::Double;
        self
    }

    /// A good request, its path below the plugin's prefix.
    pub fn call(mut self, method: Method, path: &str, body: Value) -> Self {
        self.samples.push(Sample::Call(method, path.to_owned(), body));
        self
    }

    /// A good body of a task.
    pub fn task(mut self, task: &str, body: Value) -> Self {
        self.samples.push(Sample::Task(task.to_owned(), body));
        self
    }

    /// Starts hosts with the plugin and looks.
    ///
    /// # Errors
    /// `cardcage` or nats-server is missing or does not start. What the plugin does wrong stands in the report, also that
    /// it is refused.
    pub async fn run(self) -> Result<Report> {
        // What is missing on this machine is no fault of the plugin's.
        crate::host::programs(self.broker)?;
        let mut report = Report::default();
        let first = match describe(&self.library, &self.environment).await {
            Ok(first) => first,
            Err(error) => {
                report.fault(Rule::Describes, "describe", error.to_string());
                return Ok(report);
            }
        };
        let fault = match describe(&self.library, &self.environment).await {
            Ok(second) => plan::difference(&first, &second),
            Err(error) => Some(format!("it described itself once, and then no more: {error}")),
        };
        report.look(Rule::Describes, "describe", fault);
        let declared = Declared::read(&first);
        let mut options = plan::options(&declared);
        options.extend(self.options);
        let plugin = vec![(self.library, self.config)];
        let hosts = Hosts::start(self.broker, plugin, options, self.environment, READY).await;
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(error) => {
                report.fault(Rule::Starts, "start", error.to_string());
                return Ok(report);
            }
        };
        report.look(Rule::Starts, "start", None);
        let mut probe = Probe { hosts, report };
        probe.garbage(&declared).await?;
        probe.samples(&declared, &self.samples).await?;
        probe.stop_worker_while_busy(&self.samples).await?;
        probe.stop_api_while_busy(&self.samples).await?;
        probe.stop_idle().await;
        Ok(probe.report)
    }
}

impl Probe {
    /// Waits until the worker is ready after it may have lost its child.
    async fn recovered(&self) -> Result<()> {
        eventually(READY, "the hosts are ready again", async || self.hosts.is_ready().await.then_some(()))
            .await
    }

    /// Enqueues a task past every check. Nobody knows it while the worker is down, as by the doing of the one before it.
    async fn enqueue(&self, task: &str, body: &Value) -> Result<Uuid> {
        eventually(READY, "a live worker has the task", async || {
            let enqueued = self.hosts.enqueue_unchecked(task, body).await;
            let is_down = |error: &Error| error.to_string().contains("no live worker has it");
            (!enqueued.as_ref().is_err_and(is_down)).then_some(enqueued)
        })
        .await?
    }

    /// Enqueues tasks past every check, all at once, and looks how they end.
    async fn tasks(&mut self, rule: Rule, tasks: &[(String, Value)]) -> Result<()> {
        let mut ids: Vec<(Uuid, String)> = Vec::new();
        for (task, body) in tasks {
            let subject = format!("{task} {}", report::short(&body.to_string()));
            match self.enqueue(task, body).await {
                Ok(id) => ids.push((id, subject)),
                Err(error) => self.report.fault(rule, subject, error.to_string()),
            }
        }
        for (id, subject) in ids {
            let fault = match self.hosts.outcome(id).await {
                Ok(outcome) => plan::fault_of_outcome(&outcome),
                Err(error) => Some(error.to_string()),
            };
            let rule = if fault.as_deref().is_some_and(plan::is_about_size) { Rule::Size } else { rule };
            self.report.look(rule, subject, fault);
        }
        self.recovered().await
    }
}
