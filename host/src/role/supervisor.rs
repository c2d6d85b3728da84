//! A role's supervisor: binds, watches, renews, and starts the child. Loads no plugin.

use super::addresses;
use super::aftermath::{BrokerAftermath, BrokerRenewer, NoAftermath};
use super::options::{broker_options, plan};
use super::presence::Present;
use super::reload::{Reconfiguration, Reloader};
use super::seats::{self, Place};
use super::{pumps, reload};
use crate::admin::{self, Desk, Office};
use crate::broker::Broker;
use crate::config::Settings;
use crate::crash::Board;
use crate::exit::Exit;
use crate::logging;
use crate::process::control::Role;
use crate::process::{
    Aftermath, Crew, DutyMetrics, LeaseKeeper, Seat, SelfExecutable, Shutdown, Supervisor, SupervisorOptions,
    crew,
};
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
    let places = places(role, settings, &instance)?;
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
            let boards = places.iter().flat_map(|place| place.boards).collect();
            let keeper = LeaseKeeper::start(boards, lease, renewer);
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
    let mut supervisors = Vec::new();
    for Place { seat, instance, boards } in places {
        let hooks: Arc<dyn Aftermath> = match quarantine {
            None => Arc::new(NoAftermath),
            Some(quarantine) => {
                Arc::new(BrokerAftermath { broker: broker.clone(), instance: instance.clone(), quarantine })
            }
        };
        let of_seat = settings.of_group(seats::group(&seat));
        let supervisor = Supervisor::new(SupervisorOptions {
            role,
            instance: instance.as_str().to_owned(),
            plan: plan(&of_seat).map_err(|error| unexpected("settings", error))?,
            listener: api_listener.take(),
            boards,
            hooks,
            spawn: Arc::new(SelfExecutable),
        });
        let supervisor = supervisor.seated(seat);
        let present = Present {
            role,
            broker: broker.clone(),
            instance,
            boards,
            status: supervisor.handle().status,
            settings: current.subscribe(),
            started_at,
        };
        duties.present.push(tokio::spawn(present.answer()));
        supervisors.push(supervisor);
    }
    let mut crew = Crew::new(supervisors.iter().map(Supervisor::handle).collect());
    if role == Role::Worker {
        crew.duties = duties.start_sweeper(broker);
    }
    let desk = Desk::default();
    let office =
        Office { crew: crew.clone(), desk: desk.clone(), remote_reload: settings.admin.remote_reload };
    let admin = tokio::spawn(admin::serve(admin_listener, office));
    let hangups = reload::on_hangup(desk.clone()).map_err(|error| unexpected("no signal handler", error))?;
    let reloads = supervisors.iter().map(|one| (one.seat(), one.reloads())).collect();
    let reloader = tokio::spawn(Reloader { source, desk, role, reloads, crew, settings: current }.run());
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
    let exit = crew::keep(supervisors, shutdown).await;
    for helper in [reloader, hangups] {
        helper.abort();
    }
    admin.abort();
    duties.end().await;
    tracing::info!(code = exit.code(), "stopped");
    Ok(exit)
}

/// The seats, with what is theirs. Of several each has a name of its own: it is a worker as any other.
fn places(role: Role, settings: &Settings, host: &InstanceId) -> Result<Vec<Place>, Failure> {
    let board = || Board::create().map_err(|error| unexpected("no shared memory for the board", error));
    let place = |seat: Option<Seat>| {
        let instance = match seat {
            None => host.clone(),
            Some(_) => {
                InstanceId::generate(role.as_str()).map_err(|error| unexpected("no instance name", error))?
            }
        };
        Ok(Place { seat, instance, boards: [board()?, board()?] })
    };
    seats::seats(role, settings).into_iter().map(place).collect()
}

/// What a supervisor does besides watching its child; ends with it. Leases and pumps are a worker's.
#[derive(Default)]
struct Duties {
    leases: Option<LeaseKeeper>,
    pumps: Option<(CancellationToken, JoinHandle<()>)>,
    /// Says that it is there, as long as it is.
    present: Vec<JoinHandle<()>>,
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
        self.present.iter().chain(&self.sweeper).for_each(JoinHandle::abort);
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
