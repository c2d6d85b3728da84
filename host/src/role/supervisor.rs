//! A role's supervisor: binds, watches, renews, and starts the child. Loads no plugin.

use super::addresses;
use super::aftermath::BrokerRenewer;
use super::options::broker_options;
use super::reload::{Reconfiguration, Reloader};
use super::seats::{Furniture, chairs};
use super::{pumps, reload};
use crate::admin::{self, Desk, Office};
use crate::broker::Broker;
use crate::config::Settings;
use crate::exit::Exit;
use crate::logging;
use crate::process::control::Role;
use crate::process::{Crew, DutyMetrics, LeaseKeeper, Recruiting, Shelf, Shutdown, members};
use crate::worker::tasks::Sweeper;
use cardcage_protocol::{InstanceId, QuarantinePolicy, Timestamp};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Runs a role until it is told to stop. `shutdown` comes from signals, or from a parent that goes away; `source` is where a
/// reload reads the settings again.
pub async fn run(
    role: Role,
    settings: Settings,
    source: Arc<dyn Reconfiguration>,
    shutdown: Shutdown,
) -> Exit {
    logging::start(&settings.log);
    match start(role, &settings, source, shutdown).await {
        Ok(exit) => exit,
        Err((exit, message)) => {
            tracing::error!(code = exit.code(), "{message}");
            exit
        }
    }
}

type Failure = (Exit, String);

fn unexpected(what: &str, error: impl std::fmt::Display) -> Failure {
    (Exit::Unexpected, format!("{what}: {error}"))
}

async fn start(
    role: Role,
    settings: &Settings,
    source: Arc<dyn Reconfiguration>,
    shutdown: Shutdown,
) -> Result<Exit, Failure> {
    let hangups = reload::hangups().map_err(|error| unexpected("no signal handler", error))?;
    let instance =
        InstanceId::generate(role.as_str()).map_err(|error| unexpected("no instance name", error))?;
    let admin_address = match role {
        Role::Api => settings.api_admin_listen(),
        Role::Worker => settings.worker_admin_listen(),
    };
    let admin_listener = bind(admin_address, "admin.listen")?;
    let api_listener = match role {
        Role::Api => Some(bind(settings.api.listen, "api.listen")?),
        Role::Worker => None,
    };
    let options =
        broker_options(settings, instance.as_str()).map_err(|error| (Exit::Config, error.to_string()))?;
    let started_at = Timestamp::now();
    let mut duties = Duties::default();
    let current = watch::Sender::new(Arc::new(settings.clone()));
    // Also an API's, to answer who asks; without a broker it goes on trying.
    let broker = Broker::connect(options.clone()).await.map_err(|error| (Exit::Config, error.to_string()))?;
    let mut quarantine = None;
    match role {
        Role::Api => {}
        Role::Worker => {
            let renewer = Arc::new(BrokerRenewer::new(options));
            let lease = Duration::from_millis(settings.tasks.lease_ms);
            let keeper = LeaseKeeper::start(lease, renewer);
            duties.leases = Some(keeper.map_err(|error| unexpected("no thread for the leases", error))?);
            let stop = CancellationToken::new();
            let pumps = pumps::run(broker.clone(), current.subscribe(), stop.clone());
            duties.pumps = Some((stop, tokio::spawn(pumps)));
            quarantine = Some(QuarantinePolicy {
                after: settings.tasks.quarantine_after,
                window_ms: settings.tasks.quarantine_window_s.saturating_mul(1_000),
            });
        }
    }
    let bound =
        |listener: &TcpListener| listener.local_addr().map_err(|error| unexpected("no address", error));
    let api_address = api_listener.as_ref().map(bound).transpose()?;
    let admin_address = bound(&admin_listener)?;
    let mut api_listener = api_listener.map(OwnedFd::from);
    let furniture = Furniture {
        role,
        broker: broker.clone(),
        host: instance.clone(),
        quarantine,
        leases: duties.leases.as_ref().map(LeaseKeeper::boards),
        settings: current.subscribe(),
        started_at,
        shelf: Shelf::default(),
        spare: Arc::default(),
    };
    let (recruiting, recruits) = Recruiting::new();
    let mut members = Vec::new();
    for chair in chairs(role, settings) {
        let supervisor = furniture.seat(&chair, settings, api_listener.take());
        let supervisor = supervisor.map_err(|error| unexpected("a child cannot be set up", error))?;
        members.push((chair, recruiting.take_in(supervisor)));
    }
    let mut crew = Crew::new(members.iter().map(|(_, member)| member.handle.clone()).collect());
    if role == Role::Worker {
        crew.duties = duties.start_sweeper(broker);
    }
    let desk = Desk::default();
    let office =
        Office { crew: crew.clone(), desk: desk.clone(), remote_reload: settings.admin.remote_reload };
    let admin = tokio::spawn(admin::serve(admin_listener, office));
    let hangups = tokio::spawn(reload::on_hangup(hangups, desk.clone()));
    let reloader = Reloader { source, desk, role, members, recruiting, furniture, crew, settings: current };
    let reloader = tokio::spawn(reloader.run());
    tracing::info!(
        role = role.as_str(),
        instance = instance.as_str(),
        api = api_address.map(tracing::field::display),
        admin = %admin_address,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    addresses::publish(api_address, admin_address)
        .map_err(|error| unexpected("the addresses file", error))?;
    let exit = members::keep(recruits, shutdown).await;
    for helper in [reloader, hangups] {
        helper.abort();
    }
    admin.abort();
    duties.end().await;
    tracing::info!(code = exit.code(), "stopped");
    Ok(exit)
}

/// What a supervisor does besides watching its child; ends with it. Leases and pumps are a worker's.
#[derive(Default)]
struct Duties {
    leases: Option<LeaseKeeper>,
    pumps: Option<(CancellationToken, JoinHandle<()>)>,
    sweeper: Option<JoinHandle<()>>,
}

impl Duties {
    fn start_sweeper(&mut self, broker: Broker) -> DutyMetrics {
        let sweeper = Sweeper::new(broker);
        let report = sweeper.report();
        self.sweeper = Some(tokio::spawn(sweeper.run()));
        DutyMetrics::new(move || report.text())
    }

    async fn end(self) {
        drop(self.leases);
        // A sweep may be broken off anywhere.
        self.sweeper.iter().for_each(JoinHandle::abort);
        if let Some((stop, running)) = self.pumps {
            stop.cancel();
            // It does not panic; if it did, there is nothing left to wait for.
            let _ = running.await;
        }
    }
}

fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let message =
            format!("{address} cannot be bound ({error}): free the port, or set {option} to another address");
        (Exit::Unavailable, message)
    })
}
