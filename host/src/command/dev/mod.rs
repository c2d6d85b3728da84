//! `cardcage dev`: everything on this machine, as separate processes, for writing plugins.
//!
//! ```text
//! cardcage dev ─┬─ cargo build                          (for each --plugin, whenever its source is saved)
//!               ├─ dev-broker-guard ── nats-server      (unless dev.broker_managed = false)
//!               ├─ cardcage worker ── its child
//!               └─ cardcage api ── its child
//! ```
//!
//! Invariants:
//! - Each process has a process group of its own, so that Ctrl-C reaches `dev` alone, and stopping has an order:
//!   api, worker, nats-server. Each drains before the next is told.
//! - Each has a pipe from `dev` as stdin and ends when it closes, so that also `kill -9` of `dev` leaves nothing.
//! - A process that dies is started again; one that would end the same way (plugin refused, bad configuration)
//!   waits for a changed library.
//! - A changed library is taken over by reload: no request is refused and what runs is finished; a broken one
//!   changes nothing.
//!
//! What it refuses to do: it is no supervisor for production (no limits, no log files), and changed configuration
//! files alone are no reason for a reload.

mod addresses;
mod broker;
mod folder;
pub mod guard;
mod managed;
mod project;
mod ready;
mod source_tree;
mod watch;

use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cli::{Configuration, DevArgs};
use crate::config::{self, Settings};
use crate::exit::Exit;
use crate::process::Shutdown;

use super::{output, reload};
use addresses::{Addresses, Bound};
use folder::Folder;
use managed::{Change, Managed};
use project::Project;
use watch::Watch;

/// The longest that a restart waits for readiness before it goes on to the next process.
const RESTART_READY: Duration = Duration::from_secs(60);
/// How long nats-server may take to stop.
const BROKER_GRACE: Duration = Duration::from_secs(10);
/// What a host may take beyond its own grace.
const HOST_MARGIN: Duration = Duration::from_secs(5);

/// Runs everything until Ctrl-C or SIGTERM. Call it inside a tokio runtime.
pub async fn run(args: DevArgs) -> Exit {
    let started = Shutdown::on_signals().and_then(|shutdown| Ok((shutdown, Folder::create()?)));
    let (mut shutdown, folder) = match started {
        Ok(started) => started,
        Err(error) => {
            output::trouble(&format!("`dev` cannot start ({error}): make room in the temporary directory"));
            return Exit::Unexpected;
        }
    };
    let mut configuration = args.configuration;
    let built = tokio::select! {
        () = shutdown.drain() => return Exit::Success,
        built = build(&args.plugins, &mut configuration) => built,
    };
    let projects = match built {
        Ok(projects) => projects,
        Err((fault, exit)) => {
            output::trouble(&fault);
            return exit;
        }
    };
    let settings = match config::load(&configuration.clone().sources()) {
        Ok(settings) => settings,
        Err(errors) => {
            output::trouble_as_is(&errors.render(output::trouble_styled()));
            return Exit::Config;
        }
    };
    let broker = match broker::of(&settings, &folder) {
        Ok(broker) => broker,
        Err((fault, exit)) => {
            output::trouble(&fault);
            return exit;
        }
    };
    let interval = Duration::from_millis(settings.dev.watch_interval_ms);
    let mut dev = Dev::new(settings, &configuration.arguments(), broker, folder);
    let exit = match dev.start(&mut shutdown).await {
        Ok(()) => {
            // Ends with this function, and the builds with it.
            let mut building = JoinSet::new();
            projects.into_iter().for_each(|project| drop(building.spawn(project.keep(interval))));
            dev.keep(&mut shutdown).await;
            Exit::Success
        }
        Err(Unready::Asked) => Exit::Success,
        Err(Unready::Ended(change)) => change.exit(),
    };
    dev.stop(&shutdown).await;
    exit
}

/// Builds these folders, and has the settings name what came of them.
async fn build(
    folders: &[PathBuf],
    configuration: &mut Configuration,
) -> Result<Vec<Project>, project::Trouble> {
    let mut projects = Vec::new();
    for folder in folders {
        let project = Project::build(folder).await?;
        configuration.assignments.push(project.assignment()?);
        projects.push(project);
    }
    Ok(projects)
}

/// Why a process that was started did not become ready.
enum Unready {
    /// A stop was asked for.
    Asked,
    /// It ended.
    Ended(Change),
}

struct Dev {
    settings: Settings,
    broker: Option<Managed>,
    worker: Managed,
    api: Managed,
    watch: Watch,
    // Last: the processes write to it.
    folder: Folder,
}

impl Dev {
    fn new(settings: Settings, typed: &[OsString], broker: Option<Managed>, folder: Folder) -> Self {
        let grace = Duration::from_millis(settings.drain.grace_ms) + HOST_MARGIN;
        let host = |role: &'static str, more: Vec<OsString>| {
            let mut arguments: Vec<OsString> = vec![role.into()];
            arguments.extend(typed.iter().cloned().chain(more));
            let mut host = Managed::new(role, arguments, grace);
            host.environment(addresses::VARIABLE, folder.addresses_of(role));
            host
        };
        // A stated address can be bound once: the worker, which only people look at, moves on by one.
        let moved = settings.admin.listen.map(|mut listen| {
            listen.set_port(if listen.port() == 0 { 0 } else { listen.port().checked_add(1).unwrap_or(0) });
            format!("admin.listen={listen}")
        });
        let moved = moved.into_iter().flat_map(|moved| ["--set".into(), moved.into()]).collect();
        let libraries = settings
            .plugins
            .iter()
            .flat_map(|(name, plugin)| plugin.libraries().map(|library| (name.clone(), library.clone())));
        let interval = Duration::from_millis(settings.dev.watch_interval_ms);
        Self {
            broker,
            worker: host("worker", moved),
            api: host("api", Vec::new()),
            watch: Watch::new(interval, libraries),
            settings,
            folder,
        }
    }

    /// Starts nats-server, worker and api, each when the one before is ready.
    async fn start(&mut self, shutdown: &mut Shutdown) -> Result<(), Unready> {
        if let Some(broker) = &mut self.broker {
            let address = broker::address(&self.settings.broker.url);
            let began = begin(broker, ready::broker(address), shutdown).await;
            if let Err(Unready::Ended(_)) = &began {
                output::trouble_as_is(&output::shown_lines(&self.folder.broker_log_tail()));
            }
            began?;
        }
        begin(&mut self.worker, ready::host(self.folder.addresses_of("worker")), shutdown).await?;
        begin(&mut self.api, ready::host(self.folder.addresses_of("api")), shutdown).await?;
        let addresses = self.addresses();
        output::result(&addresses.text(&self.settings));
        if let Err(error) = addresses.write() {
            output::trouble(&format!("the addresses cannot be written ({error})"));
        }
        Ok(())
    }

    fn addresses(&self) -> Addresses {
        Addresses::read(&self.folder.addresses_of("api"), &self.folder.addresses_of("worker"))
    }

    /// Keeps all running until a stop is asked for.
    async fn keep(&mut self, shutdown: &mut Shutdown) {
        loop {
            let broker = async {
                match &mut self.broker {
                    Some(broker) => broker.change().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.drain() => return,
                change = broker => if let Some(broker) = &mut self.broker { broker.follow(change) },
                change = self.worker.change() => self.worker.follow(change),
                change = self.api.change() => self.api.follow(change),
                plugins = self.watch.changed() => self.roll(&plugins, shutdown).await,
            }
        }
    }

    /// Has the hosts take over changed libraries: the worker first, so that what the new api enqueues finds its
    /// handler.
    async fn roll(&mut self, plugins: &[String], shutdown: &mut Shutdown) {
        if let Some(refusal) = self.watch.first_refusal(plugins).await {
            let refusal = output::shown(&refusal.to_string());
            output::trouble(&format!("{refusal} (the hosts go on with the library that they have)"));
            return;
        }
        output::trouble(&format!("a library changed: rolling {}", plugins.join(", ")));
        let before = self.addresses();
        for host in [&mut self.worker, &mut self.api] {
            let addresses = self.folder.addresses_of(host.name());
            let admin = Bound::read(&addresses).and_then(|bound| bound.admin?.parse().ok());
            let rolled = match admin {
                Some(admin) if host.is_running() => take_over(host, admin, shutdown).await,
                _ => Rolled::Restart,
            };
            match rolled {
                Rolled::Done => {}
                Rolled::Stop => return,
                Rolled::Restart => {
                    if !restart(host, ready::host(addresses), shutdown).await {
                        return;
                    }
                }
            }
        }
        let after = self.addresses();
        if after != before {
            output::result(&after.text(&self.settings));
        }
    }

    async fn stop(&mut self, shutdown: &Shutdown) {
        self.api.stop(shutdown).await;
        self.worker.stop(shutdown).await;
        if let Some(broker) = &mut self.broker {
            broker.stop(shutdown).await;
        }
    }
}

/// What came of a host's reload.
enum Rolled {
    /// It serves the new libraries.
    Done,
    /// The next host must not be told: it refused, or a stop was asked for.
    Stop,
    /// It cannot be asked.
    Restart,
}

/// Has a host that runs reload.
async fn take_over(host: &mut Managed, admin: SocketAddr, shutdown: &mut Shutdown) -> Rolled {
    let told = tokio::select! {
        () = shutdown.drain() => return Rolled::Stop,
        change = host.change() => {
            host.follow(change);
            // It is started again with what is there.
            return Rolled::Done;
        }
        told = reload::host(admin) => told,
    };
    let name = host.name();
    match told {
        Ok(result) if result.exit_code == 0 => {
            output::trouble(&format!("{name} took over: {}", output::shown(&result.plugins.join(", "))));
            for refused in &result.refused {
                output::trouble(&format!("{name} does not load {}", output::shown(refused)));
            }
            Rolled::Done
        }
        Ok(result) => {
            let reasons = result.reasons.join("\n  ");
            output::trouble(&format!("{name} goes on with what it has, for it refused:"));
            output::trouble_as_is(&format!("  {}", output::shown_lines(&reasons)));
            Rolled::Stop
        }
        Err(error) => {
            output::trouble(&format!("{name} cannot be asked to reload ({error}): restarting it"));
            Rolled::Restart
        }
    }
}

/// Stops a host, where it runs, and starts it again; false where a stop was asked for.
async fn restart(host: &mut Managed, ready: impl Future<Output = ()>, shutdown: &mut Shutdown) -> bool {
    host.stop(shutdown).await;
    if shutdown.requested() {
        return false;
    }
    match tokio::time::timeout(RESTART_READY, begin(host, ready, shutdown)).await {
        Ok(Ok(())) => output::trouble(&format!("{} runs again", host.name())),
        Ok(Err(Unready::Asked)) => return false,
        Ok(Err(Unready::Ended(change))) => host.follow(change),
        Err(_) => output::trouble(&format!("{} is not ready yet; going on", host.name())),
    }
    true
}

/// Starts a process and waits until it is ready.
async fn begin(
    process: &mut Managed,
    ready: impl Future<Output = ()>,
    shutdown: &mut Shutdown,
) -> Result<(), Unready> {
    process.start();
    tokio::select! {
        () = shutdown.drain() => Err(Unready::Asked),
        change = process.change() => {
            if let Change::Ended(death) = &change {
                output::trouble(&format!("{} {death} before it was ready", process.name()));
            }
            Err(Unready::Ended(change))
        }
        () = ready => Ok(()),
    }
}
