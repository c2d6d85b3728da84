//! The levels above the unit: a built library in real hosts, seen from outside as callers and operators see it.

mod http;
mod locate;
mod nats;
mod process;
mod settings;

pub(crate) use http::send as exchange;
pub use locate::library;

use crate::{BrokerDouble, Error, Outcome, Reply, Result, eventually};
use nats::Nats;
use nix::sys::signal::Signal;
use plugin_api::bytes::Bytes;
use plugin_api::http::{Method, Request, StatusCode, Uri};
use process::{Folder, Process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Says what of the programs is missing.
pub(crate) fn programs(broker: Broker) -> Result<()> {
    locate::cardcage()?;
    match broker {
        Broker::Double => Ok(()),
        Broker::NatsServer => locate::nats_server().map(drop),
    }
}

/// The programs run in a folder of their own.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// How long a command of an operator may take.
const COMMAND: Duration = Duration::from_secs(60);

/// How long a worker may take from being ready to having declared its schedules.
const DECLARED: Duration = Duration::from_secs(5);

/// Which broker the hosts get.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Broker {
    /// A double in the test's process.
    Double,
    /// A real one.
    NatsServer,
}

/// A broker at work.
#[derive(Debug)]
enum Running {
    Double(BrokerDouble),
    Nats(Nats),
}

impl Running {
    fn url(&self) -> &str {
        match self {
            Self::Double(double) => double.url(),
            Self::Nats(nats) => &nats.url,
        }
    }

    /// The end of what it wrote; a double writes nothing.
    fn tail(&self) -> String {
        match self {
            Self::Double(_) => String::new(),
            Self::Nats(nats) => nats.tail(),
        }
    }
}

/// Environment variables that programs get beside those of the test.
pub(crate) type Environment = BTreeMap<String, String>;

/// A `cardcage api` or `cardcage worker`.
#[derive(Debug)]
struct Host {
    process: Process,
    api: Option<String>,
    admin: String,
}

/// Hosts, and the broker between them.
#[derive(Debug)]
pub(crate) struct Hosts {
    name: String,
    level: Broker,
    patience: Duration,
    environment: Environment,
    // In the order in which they are to end.
    api: Host,
    worker: Host,
    broker: Running,
    folder: Folder,
}

impl Hosts {
    pub(crate) async fn start(
        broker: Broker,
        plugins: Vec<(PathBuf, Value)>,
        options: BTreeMap<String, Value>,
        environment: Environment,
        patience: Duration,
    ) -> Result<Self> {
        let folder = Folder::new()?;
        let level = broker;
        let broker = match broker {
            Broker::Double => Running::Double(BrokerDouble::start().await?),
            Broker::NatsServer => Running::Nats(Nats::start(folder.path()).await?),
        };
        let mut all = settings::quick(broker.url());
        let broker_only = folder.path().join("broker.toml");
        let written = std::fs::write(&broker_only, settings::toml(&all));
        written.map_err(Error::doing(format!("cannot write {}", broker_only.display())))?;
        let mut names = Vec::new();
        for (library, config) in plugins {
            let library = absolute(&library);
            let name = name(&library, folder.path()).await?;
            all.insert(format!("plugins.{name}.library"), library.display().to_string().into());
            all.insert(format!("plugins.{name}.config"), config);
            names.push(name);
        }
        all.extend(options);
        let file = folder.path().join("cardcage.toml");
        let written = std::fs::write(&file, settings::toml(&all));
        written.map_err(Error::doing(format!("cannot write {}", file.display())))?;
        let (api, worker) = tokio::try_join!(
            Host::start("api", folder.path(), &environment, patience),
            Host::start("worker", folder.path(), &environment, patience)
        )
        .map_err(|error| Error::new(format!("{error}\n{}", broker.tail())))?;
        let name = names.into_iter().next().unwrap_or_default();
        Ok(Self { name, level, patience, environment, api, worker, broker, folder })
    }

    pub(crate) fn broker(&self) -> Broker {
        self.level
    }

    fn address(&self) -> Result<&str> {
        self.api.api.as_deref().ok_or_else(|| Error::new("the api wrote no address"))
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Reply> {
        let (address, request) = self.addressed(request)?;
        http::send(&address, request).await
    }

    /// Where a request goes, and with the plugin's prefix before its path.
    pub(crate) fn addressed(&self, request: Request<Bytes>) -> Result<(String, Request<Bytes>)> {
        let (mut parts, body) = request.into_parts();
        let below = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = format!("/{}{}", self.name, if below == "/" { "" } else { below });
        parts.uri = path.parse::<Uri>().map_err(Error::doing(format!("{path} is no path")))?;
        Ok((self.address()?.to_owned(), Request::from_parts(parts, body)))
    }

    async fn own(&self, method: Method, path: &str) -> Result<Reply> {
        let request = Request::builder().method(method).uri(path).body(Bytes::new());
        http::send(self.address()?, request.map_err(Error::doing("the path is none"))?).await
    }

    pub(crate) async fn view(&self, id: Uuid) -> Result<Option<Value>> {
        let reply = self.own(Method::GET, &format!("/tasks/{id}")).await?;
        match reply.status {
            StatusCode::OK => Ok(Some(reply.json())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(Error::new(format!("/tasks/{id} answers {status} {}", reply.text()))),
        }
    }

    pub(crate) async fn outcome(&self, id: Uuid) -> Result<Outcome> {
        let end = Instant::now() + self.patience;
        loop {
            // A parked task has not ended, so nobody who waits for its end would hear of it.
            let view = self.view(id).await?.ok_or_else(|| Error::new(format!("there is no task {id}")))?;
            if let Some(outcome) = Outcome::read(&view) {
                return Ok(outcome);
            }
            if Instant::now() >= end {
                let tails = format!("{}\n{}", self.worker.process.tail(), self.broker.tail());
                return Err(Error::new(format!("the task has not ended: {view}\n{tails}")));
            }
            self.own(Method::GET, &format!("/tasks/{id}?wait=1s")).await?;
        }
    }

    pub(crate) async fn cancel(&self, id: Uuid) -> Result<Reply> {
        self.own(Method::POST, &format!("/tasks/{id}/cancel")).await
    }

    pub(crate) async fn enqueue(&self, task: &str, body: &Value) -> Result<Uuid> {
        let target = format!("{}.{task}", self.name);
        // In a file: an argument has a length that it may have.
        let file = self.folder.path().join(format!("{}.json", Uuid::new_v4().simple()));
        let written = std::fs::write(&file, body.to_string());
        written.map_err(Error::doing(format!("cannot write {}", file.display())))?;
        let body = format!("@{}", file.display());
        self.receipt(&["tasks", "enqueue", &target, "--json", &body]).await
    }

    /// The same past the task's schema, as a version that has another one enqueues: the file names no plugin.
    pub(crate) async fn enqueue_unchecked(&self, task: &str, body: &Value) -> Result<Uuid> {
        let target = format!("{}.{task}", self.name);
        let body = body.to_string();
        let arguments = ["tasks", "enqueue", &target, "--json", &body, "--config", "broker.toml"];
        let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
        task_id(&command(&arguments, self.folder.path()).await?)
    }

    /// Handlers at work in the worker, as its metrics tell.
    pub(crate) async fn in_flight(&self) -> u64 {
        self.worker.sum(&["cardcage_calls_in_flight", "cardcage_tasks_in_flight"]).await
    }

    /// Requests that the api has not answered.
    pub(crate) async fn requests_in_flight(&self) -> u64 {
        self.api.sum(&["cardcage_http_requests_in_flight"]).await
    }

    /// Whether both hosts are ready.
    pub(crate) async fn is_ready(&self) -> bool {
        for host in [&self.api, &self.worker] {
            let Ok(request) = Request::builder().uri("/readyz").body(Bytes::new()) else { return false };
            let reply = http::send(&host.admin, request).await;
            if !reply.is_ok_and(|reply| reply.status == StatusCode::OK) {
                return false;
            }
        }
        true
    }

    /// Stops the worker in order.
    pub(crate) async fn stop_worker(&mut self, at_most: Duration) -> Result<()> {
        self.worker.stop(at_most).await
    }

    /// Starts it again.
    pub(crate) async fn start_worker(&mut self) -> Result<()> {
        self.worker = Host::start("worker", self.folder.path(), &self.environment, self.patience).await?;
        Ok(())
    }

    /// Stops the api in order.
    pub(crate) async fn stop_api(&mut self, at_most: Duration) -> Result<()> {
        self.api.stop(at_most).await
    }

    /// Starts it again, at another address.
    pub(crate) async fn start_api(&mut self) -> Result<()> {
        self.api = Host::start("api", self.folder.path(), &self.environment, self.patience).await?;
        Ok(())
    }

    pub(crate) async fn fire(&self, schedule: &str) -> Result<Uuid> {
        let target = format!("{}.{schedule}", self.name);
        let what = format!("the schedule {target} is declared");
        let mut last = None;
        let fired = eventually(DECLARED, &what, async || {
            match self.receipt(&["schedules", "run", &target, "--json"]).await {
                Err(error) if error.to_string().contains("there is no schedule") => {
                    last = Some(error);
                    None
                }
                fired => Some(fired),
            }
        });
        fired.await.map_err(|error| last.unwrap_or(error))?
    }

    /// Runs a command that answers with a task's id.
    async fn receipt(&self, arguments: &[&str]) -> Result<Uuid> {
        let config = self.folder.path().join("cardcage.toml");
        let mut arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
        arguments.extend([Path::new("--config"), &config]);
        task_id(&command_in(&arguments, self.folder.path(), &self.environment).await?)
    }

    pub(crate) fn logs(&self) -> String {
        self.api.process.stderr() + &self.worker.process.stderr()
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        for host in [&mut self.api, &mut self.worker] {
            host.stop(self.patience).await?;
        }
        Ok(())
    }
}

fn task_id(answer: &Value) -> Result<Uuid> {
    let id = answer.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.ok_or_else(|| Error::new(format!("cardcage answered {answer}")))
}

impl Host {
    async fn stop(&mut self, at_most: Duration) -> Result<()> {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(at_most).await?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(format!("a host ended with {status}\n{}", self.process.tail())))
    }

    /// The sum of these counts in its metrics; those with labels count as well.
    async fn sum(&self, names: &[&str]) -> u64 {
        let Ok(request) = Request::builder().uri("/metrics").body(Bytes::new()) else { return 0 };
        let text = http::send(&self.admin, request).await.map(|reply| reply.text()).unwrap_or_default();
        let count = |line: &str| {
            let (sample, count) = line.rsplit_once(' ')?;
            let name = sample.split_once('{').map_or(sample, |(name, _)| name);
            names.contains(&name).then(|| count.trim().parse::<u64>().ok()).flatten()
        };
        text.lines().filter_map(count).sum()
    }

    async fn start(
        role: &'static str,
        folder: &Path,
        environment: &Environment,
        patience: Duration,
    ) -> Result<Self> {
        let addresses = folder.join(format!("{role}.addresses"));
        // Those of one that ran before.
        let _ = std::fs::remove_file(&addresses);
        let mut command = Command::new(locate::cardcage()?);
        command.arg(role).arg("--config").arg(folder.join("cardcage.toml"));
        command.envs(environment).env("CARDCAGE_ADDRESSES_FILE", &addresses);
        let mut process = Process::start(role, command, folder)?;
        let mut last = json!("no answer");
        let what = format!("the {role} is ready");
        let ready = eventually(patience, &what, async || {
            if let Some(status) = process.exited() {
                return Some(Err(Error::new(format!("the {role} exited before it was ready ({status})"))));
            }
            let bound: Value = serde_json::from_slice(&std::fs::read(&addresses).ok()?).ok()?;
            let admin = bound.get("admin")?.as_str()?;
            let request = Request::builder().uri("/readyz?verbose").body(Bytes::new()).ok()?;
            let reply = http::send(admin, request).await.ok()?;
            last = reply.json();
            let api = bound.get("api").and_then(Value::as_str).map(str::to_owned);
            (reply.status == StatusCode::OK).then(|| Ok((api, admin.to_owned())))
        });
        match ready.await.and_then(|ready| ready) {
            Ok((api, admin)) => Ok(Self { process, api, admin }),
            Err(error) => Err(Error::new(format!("{error}; /readyz said: {last}\n{}", process.tail()))),
        }
    }
}

/// Runs `cardcage` to its end; what it wrote as JSON.
async fn command(arguments: &[&Path], folder: &Path) -> Result<Value> {
    command_in(arguments, folder, &Environment::new()).await
}

async fn command_in(arguments: &[&Path], folder: &Path, environment: &Environment) -> Result<Value> {
    let own = Folder::new()?;
    let mut command = Command::new(locate::cardcage()?);
    command.args(arguments).current_dir(folder).envs(environment);
    let mut process = Process::start("cardcage", command, own.path())?;
    let status = process.wait(COMMAND).await?;
    if !status.success() {
        return Err(Error::new(format!("cardcage ended with {status}\n{}", process.tail())));
    }
    serde_json::from_str(&process.stdout()).map_err(Error::doing("cardcage wrote no JSON"))
}

/// What a library declares; `cardcage plugin describe` loads it in a process of its own.
pub(crate) async fn describe(library: &Path, environment: &Environment) -> Result<Value> {
    let folder = Folder::new()?;
    let describe = ["plugin", "describe", "--json"].map(Path::new);
    let arguments: Vec<&Path> = describe.into_iter().chain([library]).collect();
    command_in(&arguments, folder.path(), environment).await
}

/// The name in a library's manifest, which `cardcage plugin inspect` reads without running it.
async fn name(library: &Path, folder: &Path) -> Result<String> {
    let inspect = ["plugin", "inspect", "--json"].map(Path::new);
    let arguments: Vec<&Path> = inspect.into_iter().chain([library]).collect();
    let answer = command(&arguments, folder).await?;
    let name = answer.pointer("/manifest/name").and_then(Value::as_str).map(str::to_owned);
    name.ok_or_else(|| Error::new(format!("{} has no name in its manifest", library.display())))
}
