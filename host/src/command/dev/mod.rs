//! `cardcage dev`: everything on this machine, as separate processes, for writing plugins.
//!
//! ```text
//! cardcage dev ─┬─ dev-build-guard ── cargo build        (for each --plugin, whenever its source is saved)
//!               ├─ dev-broker-guard ── nats-server      (unless dev.broker_managed = false)
//!               ├─ cardcage worker ── its child
//!               └─ cardcage api ── its child
//! ```
//!
//! Invariants:
//! - Each process has a process group of its own, so that Ctrl-C reaches `dev` alone, and stopping has an order:
//!   api, worker, nats-server. Each drains before the next is told.
//! - Each has a pipe from `dev` as stdin and ends when it closes, so that also `kill -9` of `dev` leaves nothing.
//! - A plugin whose folder does not build yet holds nothing up; when it builds it is taken over in the same way.
//! - A process that dies is started again; one that would end the same way (plugin refused, bad configuration)
//!   waits for a changed library.
//! - A changed library is taken over by reload: no request is refused and what runs is finished; a broken one
//!   changes nothing, nor does a file that is written anew with the bytes from before.
//!
//! What it refuses to do: it is no supervisor for production (no limits, no log files), and changed configuration
//! files alone are no reason for a reload.

mod addresses;
mod broker;
pub mod build_guard;
mod built;
mod content;
mod folder;
pub mod guard;
mod managed;
mod prepare;
mod project;
mod ready;
mod roll;
mod source_tree;
mod watch;

use std::ffi::OsString;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::DevArgs;
use crate::config::{self, Settings, Sources};
use crate::exit::Exit;
use crate::process::Shutdown;

use super::output;
use addresses::{Addresses, Bound};
use built::Built;
use folder::Folder;
use managed::Managed;
use project::{Offer, Product};
use ready::{Unready, begin};
use roll::{Rolled, restart, take_over};
use watch::Watch;

/// How long nats-server may take to stop.
const BROKER_GRACE: Duration = Duration::from_secs(10);
/// What a host may take beyond its own grace.
const HOST_MARGIN: Duration = Duration::from_secs(5);

/// Runs everything until Ctrl-C or SIGTERM. Call it inside a tokio runtime.
pub async fn run(args: DevArgs) -> Exit {
    let started = Shutdown::on_signals().and_then(|shutdown| {
        let folder = Folder::create()?;
        let built = Built::new(folder.built())?;
        Ok((shutdown, folder, built))
    });
    let (mut shutdown, folder, mut built) = match started {
        Ok(started) => started,
        Err(error) => {
            output::trouble(&format!("`dev` cannot start ({error}): make room in the temporary directory"));
            return Exit::Unexpected;
        }
    };
    let typed = args.configuration.arguments();
    let sources = Sources { last_file: Some(folder.built()), ..args.configuration.sources() };
    let prepared = tokio::select! {
        () = shutdown.drain() => return Exit::Success,
        prepared = prepare::prepare(&args.plugins, &sources, &mut built) => prepared,
    };
    let (projects, settings) = match prepared {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let broker = match broker::of(&settings, &folder) {
        Ok(broker) => broker,
        Err((fault, exit)) => {
            output::trouble(&fault);
            return exit;
        }
    };
    let interval = Duration::from_millis(settings.dev.watch_interval_ms);
    let mut dev = Dev::new(settings, sources, &typed, broker, built, folder);
    let exit = match dev.start(&mut shutdown).await {
        Ok(()) => {
            // Ends with this function, and the builds with it.
            let mut building = JoinSet::new();
            let (offers, offered) = mpsc::channel(1);
            for project in projects {
                building.spawn(project.keep(interval, offers.clone()));
            }
            drop(offers);
            dev.keep(offered, &mut shutdown).await;
            Exit::Success
        }
        Err(Unready::Asked) => Exit::Success,
        Err(Unready::Ended(change)) => change.exit(),
    };
    dev.stop(&shutdown).await;
    exit
}

struct Dev {
    settings: Settings,
    /// Where they come from.
    sources: Sources,
    built: Built,
    broker: Option<Managed>,
    worker: Managed,
    api: Managed,
    watch: Watch,
    /// Whether both hosts run, as far as is known, with what they were last told of.
    settled: bool,
    // Last: the processes write to it.
    folder: Folder,
}

impl Dev {
    fn new(
        settings: Settings,
        sources: Sources,
        typed: &[OsString],
        broker: Option<Managed>,
        built: Built,
        folder: Folder,
    ) -> Self {
        let grace = Duration::from_millis(settings.drain.grace_ms) + HOST_MARGIN;
        let host = |role: &'static str, more: Vec<OsString>| {
            let mut arguments: Vec<OsString> = vec![role.into()];
            arguments.extend(typed.iter().cloned().chain(more));
            let mut host = Managed::new(role, arguments, grace);
            host.environment(addresses::VARIABLE, folder.addresses_of(role));
            host.environment(config::LAST_FILE, folder.built());
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
            settled: true,
            settings,
            sources,
            built,
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
    async fn keep(&mut self, mut offered: mpsc::Receiver<Offer>, shutdown: &mut Shutdown) {
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
                Some(offer) = offered.recv() => self.join(offer, shutdown).await,
                change = self.worker.change() => self.worker.follow(change),
                change = self.api.change() => self.api.follow(change),
                change = self.watch.changed() => match change {
                    watch::Change::Same(plugins) if self.is_settled() => output::trouble(&format!(
                        "a library was written anew with the bytes from before, and nothing is rolled: {}",
                        plugins.join(", ")
                    )),
                    // What was refused may be taken now: somebody may have mended what it needs beside the library.
                    watch::Change::Same(plugins) | watch::Change::Other(plugins) => {
                        self.roll(&plugins, shutdown).await;
                    }
                },
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.settled && self.worker.is_running() && self.api.is_running()
    }

    /// Has the hosts take over changed libraries.
    async fn roll(&mut self, plugins: &[String], shutdown: &mut Shutdown) {
        if let Some(refusal) = self.watch.first_refusal(plugins).await {
            let refusal = output::refusal_text(&refusal);
            output::trouble(&format!("{refusal} (the hosts go on with the library that they have)"));
            self.settled = false;
            return;
        }
        output::trouble(&format!("a library changed: rolling {}", plugins.join(", ")));
        let before = self.addresses();
        if self.take_over(shutdown).await && self.addresses() != before {
            output::result(&self.addresses().text(&self.settings));
        }
    }

    /// Takes in a plugin that builds at last.
    async fn join(&mut self, Offer { product, joined }: Offer, shutdown: &mut Shutdown) {
        let plugin = product.plugin.clone();
        let is_one = self.admit(product);
        // Whoever built it hears of nothing else before.
        let _ = joined.send(is_one);
        if !is_one {
            return;
        }
        output::trouble(&format!("{plugin} builds: taking it in"));
        if let Some(settings) = self.settings.plugins.get(&plugin) {
            self.watch.follow(&plugin, settings.libraries().cloned());
        }
        if self.take_over(shutdown).await {
            output::result(&self.addresses().text(&self.settings));
        }
    }

    /// Makes a product one of those that hosts are told of; says why not.
    fn admit(&mut self, product: Product) -> bool {
        let plugin = product.plugin.clone();
        if let Err((fault, _)) = self.built.admit(product) {
            output::trouble(&format!("{fault} (the hosts go on with what they have)"));
            return false;
        }
        match config::load(&self.sources) {
            Ok(settings) => {
                self.settings.plugins = settings.plugins;
                true
            }
            Err(errors) => {
                output::trouble_as_is(&errors.render(output::trouble_styled()));
                output::trouble(&format!(
                    "{plugin} is not taken in: mend the configuration, and save its source again"
                ));
                if let Err((fault, _)) = self.built.withdraw(&plugin) {
                    output::trouble(&fault);
                }
                false
            }
        }
    }

    /// Has the hosts read again what there is, the worker first, so that what the new api enqueues finds its handler; false
    /// where one of them has not taken it.
    async fn take_over(&mut self, shutdown: &mut Shutdown) -> bool {
        self.settled = false;
        for host in [&mut self.worker, &mut self.api] {
            let addresses = self.folder.addresses_of(host.name());
            let admin = Bound::read(&addresses).and_then(|bound| bound.admin?.parse().ok());
            let rolled = match admin {
                Some(admin) if host.is_running() => take_over(host, admin, shutdown).await,
                _ => Rolled::Restart,
            };
            match rolled {
                Rolled::Done => {}
                Rolled::Stop => return false,
                Rolled::Restart => {
                    if !restart(host, ready::host(addresses), shutdown).await {
                        return false;
                    }
                }
            }
        }
        self.settled = true;
        true
    }

    async fn stop(&mut self, shutdown: &Shutdown) {
        self.api.stop(shutdown).await;
        self.worker.stop(shutdown).await;
        if let Some(broker) = &mut self.broker {
            broker.stop(shutdown).await;
        }
    }
}
