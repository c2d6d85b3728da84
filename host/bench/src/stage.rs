//! What one path needs running: a broker, the floor's processes, and cardcage's.
//!
//! Everything of one path runs at once, so that the sides can take turns without a cold start; whoever has no turn is
//! idle.

use std::time::Duration;

use async_nats::jetstream;
use cardcage_harness::{Cardcage, Config, Deadline, Error, Nats, NatsOptions, Port, Result, eventually};

use crate::cli::Settings;
use crate::cpu::Watched;
use crate::envelope::{self, Envelopes, PLUGIN};
use crate::floor::{self, Gateway, NAMESPACE, Responder, TaskWorker, Wire, Work};
use crate::load::{HttpTarget, Load, Measured, Target, TaskTarget};
use crate::part::{Part, Ready, Running};
use crate::path::{Path, Side};
use crate::streams::{self, TASK_CONCURRENCY};

/// How long a process of the bench may take to be ready, or beyond its load's time to be done.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a host's log goes into an error.
const LOG_TAIL_BYTES: usize = 4 * 1024;
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// Everything that runs for one path. Dropping it ends it all.
pub(crate) struct Stage {
    path: Path,
    floor: Floor,
    host: Option<Host>,
    jetstream: jetstream::Context,
    // Last, so that its clients are gone before it is.
    nats: Nats,
    monitor: Port,
}

/// The floor's processes, by name.
#[derive(Default)]
struct Floor {
    processes: Vec<(Side, &'static str, Running)>,
    address: Option<String>,
}

/// Cardcage's processes.
struct Host {
    namespace: String,
    api: Option<Cardcage>,
    worker: Option<Cardcage>,
    address: Option<String>,
}

impl Stage {
    pub(crate) async fn set(path: Path, settings: &Settings) -> Result<Self> {
        let monitor = Port::reserve()?;
        let arguments = vec!["--http_port".to_owned(), monitor.number().to_string()];
        let nats = Nats::start_with(NatsOptions { arguments, ..NatsOptions::default() }).await?;
        let jetstream = jetstream::new(floor::connect(&nats.url()).await?);
        streams::create(&jetstream, &Envelopes::new(NAMESPACE)?).await?;
        let floor = Floor::start(path, &nats.url()).await?;
        let host = if settings.floors_only { None } else { Some(Host::start(path, &nats).await?) };
        Ok(Self { path, floor, host, jetstream, nats, monitor })
    }

    /// Puts so many callers on one side for one turn, and cleans up after them.
    pub(crate) async fn turn(&self, side: Side, callers: usize, settings: &Settings) -> Result<Measured> {
        let load = Load {
            target: self.target(side)?,
            callers,
            warm_up: settings.warm_up,
            measured: settings.measured,
            watched: self.watched(side),
            monitor: self.monitor.address(),
        };
        let measured = Running::start(&Part::Load(load))?
            .says(settings.warm_up + settings.measured + PATIENCE)
            .await
            .map_err(|error| self.explained(side, &error))?;
        self.clean(side).await?;
        Ok(measured)
    }

    /// What makes the comparison less than it seems.
    pub(crate) async fn notes(&self) -> Result<Vec<String>> {
        match &self.host {
            Some(host) if self.path == Path::Task => {
                let (host, floor) = (Envelopes::new(&host.namespace)?, Envelopes::new(NAMESPACE)?);
                streams::differences(&self.jetstream, &host, &floor).await
            }
            _ => Ok(Vec::new()),
        }
    }

    fn explained(&self, side: Side, error: &Error) -> Error {
        let logs = match (side, &self.host) {
            (Side::Cardcage, Some(host)) => host.logs(),
            _ => String::new(),
        };
        Error::new(format!("{}, {}: {error}{logs}", self.path.name(), side.name()))
    }

    fn host(&self) -> Result<&Host> {
        self.host.as_ref().ok_or_else(|| Error::new("cardcage was not started"))
    }

    fn target(&self, side: Side) -> Result<Target> {
        if self.path == Path::Task {
            let namespace = if side == Side::Cardcage { &self.host()?.namespace } else { NAMESPACE };
            let wire = if side == Side::Plain { Wire::Plain } else { Wire::Same };
            let nats_url = self.nats.url();
            return Ok(Target::Task(TaskTarget { nats_url, namespace: namespace.to_owned(), wire }));
        }
        let address = match side {
            Side::Cardcage => self.host()?.address.clone(),
            Side::Floor | Side::Plain => self.floor.address.clone(),
        };
        Ok(Target::Http(http_target(self.path, address.ok_or_else(|| Error::new("nobody listens"))?)))
    }

    fn watched(&self, side: Side) -> Vec<Watched> {
        let mut watched = match (side, &self.host) {
            (Side::Cardcage, Some(host)) => host.watched(),
            _ => self.floor.watched(side),
        };
        watched.push(Watched { name: "nats-server".into(), pid: self.nats.pid() });
        watched
    }

    async fn clean(&self, side: Side) -> Result<()> {
        match (self.path, side) {
            (Path::Inline | Path::Call, _) => Ok(()),
            (_, Side::Plain) => streams::purge_plain(&self.jetstream).await,
            (_, Side::Floor) => streams::purge(&self.jetstream, &Envelopes::new(NAMESPACE)?).await,
            (_, Side::Cardcage) => {
                let envelopes = Envelopes::new(&self.host()?.namespace)?;
                streams::purge(&self.jetstream, &envelopes).await
            }
        }
    }
}

impl Floor {
    async fn start(path: Path, url: &str) -> Result<Self> {
        let nats_url = || url.to_owned();
        let gateway = |work| Part::Gateway(Gateway { nats_url: nats_url(), work });
        let worker = |wire| Part::TaskWorker(TaskWorker { nats_url: nats_url(), wire });
        let parts = match path {
            Path::Inline => vec![(Side::Floor, "gateway", gateway(Work::Greet))],
            Path::Call => vec![
                (Side::Floor, "responder", Part::Responder(Responder { nats_url: nats_url() })),
                (Side::Floor, "gateway", gateway(Work::Call)),
            ],
            Path::Task => vec![
                (Side::Floor, "worker", worker(Wire::Same)),
                (Side::Plain, "worker", worker(Wire::Plain)),
            ],
            Path::Enqueue => vec![(Side::Floor, "gateway", gateway(Work::Enqueue))],
        };
        let mut floor = Self::default();
        for (side, name, part) in parts {
            let mut process = Running::start(&part)?;
            let ready: Ready = process.says(PATIENCE).await?;
            floor.address = floor.address.or(ready.address);
            floor.processes.push((side, name, process));
        }
        Ok(floor)
    }

    fn watched(&self, side: Side) -> Vec<Watched> {
        let of_side = self.processes.iter().filter(|(of, _, _)| *of == side);
        of_side.map(|(_, name, process)| Watched { name: (*name).into(), pid: process.pid() }).collect()
    }
}

/// For a lease after its start a worker reads each task's record first, which is not what is measured.
pub(crate) async fn settled(worker: &Cardcage) -> Result<()> {
    let admin = worker.admin()?;
    eventually(Deadline::seconds(120), "the worker has settled", async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        metrics.lines().any(|line| line == "cardcage_tasks_settling 0").then_some(())
    })
    .await
}

impl Host {
    /// Starts only what the path needs, so that nothing else takes processor time.
    async fn start(path: Path, nats: &Nats) -> Result<Self> {
        let concurrency = i64::try_from(TASK_CONCURRENCY).unwrap_or(i64::MAX);
        let config = Config::new(nats).plugin(PLUGIN)?.set("worker.task_concurrency", concurrency);
        let worker = match path {
            Path::Call | Path::Task => Some(Cardcage::worker(&config).await?),
            Path::Inline | Path::Enqueue => None,
        };
        let api = match path {
            Path::Inline | Path::Call | Path::Enqueue => Some(Cardcage::api(&config).await?),
            Path::Task => None,
        };
        if let (Path::Task, Some(worker)) = (path, &worker) {
            settled(worker).await?;
        }
        let address = match &api {
            Some(api) => Some(answering(api, path).await?),
            None => None,
        };
        Ok(Self { namespace: config.namespace().to_owned(), api, worker, address })
    }

    /// What its processes logged last.
    fn logs(&self) -> String {
        let mut logs = String::new();
        for (role, host) in [("api", &self.api), ("worker", &self.worker)] {
            let log = host.as_ref().map(Cardcage::stderr).unwrap_or_default();
            let from = log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES));
            if let Some(tail) = log.get(from..).filter(|tail| !tail.is_empty()) {
                logs.push_str(&format!("\n--- the {role}'s log ends:\n{tail}"));
            }
        }
        logs
    }

    fn watched(&self) -> Vec<Watched> {
        let mut watched = Vec::new();
        for (role, host) in [("api", &self.api), ("worker", &self.worker)] {
            let Some(host) = host else { continue };
            watched.push(Watched { name: format!("{role} supervisor"), pid: host.pid() });
            let children = host.child_pids().into_iter();
            watched.extend(children.map(|pid| Watched { name: format!("{role} child"), pid }));
        }
        watched
    }
}

/// Waits until the path answers as it should (an API is ready before any worker is), and says where.
async fn answering(api: &Cardcage, path: Path) -> Result<String> {
    let http = api.http()?;
    let address = http.url("").trim_start_matches("http://").to_owned();
    let target = http_target(path, address.clone());
    let method = if target.body.is_some() { http::Method::POST } else { http::Method::GET };
    let body = bytes::Bytes::from(target.body.clone().unwrap_or_default());
    let mut last = "no answer".to_owned();
    let headers = [("content-type", "application/json")];
    eventually(Deadline::after(FIRST_ANSWER), "cardcage answers as it should", async || {
        match http.send(method.clone(), &target.path, &headers, body.clone()).await {
            Ok(reply) if reply.status == target.status => return Some(()),
            Ok(reply) => last = format!("{} {}", reply.status, reply.text()),
            Err(error) => last = error.to_string(),
        }
        None
    })
    .await
    .map_err(|error| Error::new(format!("{error}; last: {last}\n{}", api.stderr())))?;
    Ok(address)
}

fn http_target(path: Path, address: String) -> HttpTarget {
    let body = String::from_utf8_lossy(&envelope::body()).into_owned();
    let (path, body, status, answer) = match path {
        Path::Call => ("/hello/call", Some(body.clone()), 200, Some(body)),
        Path::Enqueue => ("/hello/task", Some(body), 202, None),
        Path::Inline | Path::Task => ("/hello/inline?name=x", None, 200, Some(floor::GREETING.to_owned())),
    };
    HttpTarget { address, body, path: path.to_owned(), status, answer }
}
