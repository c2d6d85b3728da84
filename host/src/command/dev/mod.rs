//! `cardcage dev`: everything on this machine, as separate processes, for writing plugins.
//!
//! ```text
//! cardcage dev ─┬─ dev-broker-guard ── nats-server      (unless dev.broker_managed = false)
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
//! - A changed library is looked at before anything is restarted for it; a broken one changes nothing.
//!
//! What it refuses to do: it is no supervisor for production (no limits, no log files), builds nothing, and takes
//! no notice of changed configuration files.

mod addresses;
mod broker;
mod folder;
pub mod guard;
mod managed;
mod ready;
mod watch;

use std::ffi::OsString;
use std::future::Future;
use std::time::Duration;

use crate::cli::Configuration;
use crate::config::{self, Settings};
use crate::exit::Exit;
use crate::process::Shutdown;

use super::output;
use addresses::Addresses;
use folder::Folder;
use managed::{Change, Managed};
use watch::Watch;

/// The longest that a restart waits for readiness before it goes on to the next process.
const RESTART_READY: Duration = Duration::from_secs(60);
/// How long nats-server may take to stop.
const BROKER_GRACE: Duration = Duration::from_secs(10);
/// What a host may take beyond its own grace.
const HOST_MARGIN: Duration = Duration::from_secs(5);

/// Runs everything until Ctrl-C or SIGTERM. `typed` is what stood on the command line after `dev`: the hosts get
/// the same. Call it inside a tokio runtime.
pub async fn run(configuration: Configuration, typed: Vec<OsString>) -> Exit {
    let settings = match config::load(&configuration.sources()) {
        Ok(settings) => settings,
        Err(errors) => {
            output::trouble_as_is(&errors.render(output::trouble_styled()));
            return Exit::Config;
        }
    };
    let started = Shutdown::on_signals().and_then(|shutdown| Ok((shutdown, Folder::create()?)));
    let (mut shutdown, folder) = match started {
        Ok(started) => started,
        Err(error) => {
            output::trouble(&format!("`dev` cannot start ({error}): make room in the temporary directory"));
            return Exit::Unexpected;
        }
    };
    let broker = match broker::of(&settings, &folder) {
        Ok(broker) => broker,
        Err((fault, exit)) => {
            output::trouble(&fault);
            return exit;
        }
    };
    let mut dev = Dev::new(settings, typed, broker, folder);
    let exit = match dev.start(&mut shutdown).await {
        Ok(()) => {
            dev.keep(&mut shutdown).await;
            Exit::Success
        }
        Err(Unready::Asked) => Exit::Success,
        Err(Unready::Ended(change)) => change.exit(),
    };
    dev.stop(&shutdown).await;
    exit
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
    fn new(settings: Settings, typed: Vec<OsString>, broker: Option<Managed>, folder: Folder) -> Self {
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
                plugins = self.watch.changed() => self.restart(&plugins, shutdown).await,
            }
        }
    }

    /// Restarts the hosts for changed libraries: the worker first, so that what the new api enqueues finds its
    /// handler.
    async fn restart(&mut self, plugins: &[String], shutdown: &mut Shutdown) {
        if let Some(refusal) = self.watch.first_refusal(plugins).await {
            let refusal = output::shown(&refusal.to_string());
            output::trouble(&format!("{refusal} (the hosts go on with the library that they have)"));
            return;
        }
        output::trouble(&format!("a library changed: restarting for {}", plugins.join(", ")));
        let before = self.addresses();
        for host in [&mut self.worker, &mut self.api] {
            let ready = ready::host(self.folder.addresses_of(host.name()));
            host.stop(shutdown).await;
            if shutdown.requested() {
                return;
            }
            let waited = tokio::time::timeout(RESTART_READY, begin(host, ready, shutdown)).await;
            match waited {
                Ok(Ok(())) => output::trouble(&format!("{} runs again", host.name())),
                Ok(Err(Unready::Asked)) => return,
                Ok(Err(Unready::Ended(change))) => host.follow(change),
                Err(_) => output::trouble(&format!("{} is not ready yet; going on", host.name())),
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
