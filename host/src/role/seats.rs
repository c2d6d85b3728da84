//! The seats of a role, and what each is made of: a worker has one for each process of each group, and of each generation of
//! previous libraries; an API has one.
//!
//! Seats come and go with reloads. So what is set up for one (its boards, its answers to who asks who is there) is set up here,
//! also later than at the start; boards of seats that are gone are used again, for memory that is mapped stays mapped.

use super::aftermath::{BrokerAftermath, NoAftermath};
use super::options::plan;
use super::presence::Present;
use crate::broker::Broker;
use crate::config::{Settings, Share};
use crate::crash::{Board, OpenError};
use crate::process::control::Role;
use crate::process::{
    Aftermath, MoreBoards, Seat, SelfExecutable, Shelf, Stage, Supervisor, SupervisorOptions,
};
use cardcage_protocol::{InstanceId, QuarantinePolicy, Timestamp};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// One process of a role, and what it has of the plugin set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chair {
    pub(super) share: Share,
    pub(super) seat: Option<Seat>,
}

/// The chairs that these settings ask for.
pub(super) fn chairs(role: Role, settings: &Settings) -> Vec<Chair> {
    if role == Role::Api {
        return vec![Chair { share: Share::CURRENT, seat: None }];
    }
    let of = |(share, processes): (Share, u32)| {
        (1..=processes).map(move |process| {
            let seat = share.name().map(|group| Seat { group, process });
            Chair { share: share.clone(), seat }
        })
    };
    settings.shares().into_iter().flat_map(of).collect()
}

/// Why a seat could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no instance name ({0})")]
    Name(#[from] cardcage_protocol::IdError),
    #[error("no shared memory for the board ({0})")]
    Board(#[from] OpenError),
    #[error("the settings cannot be passed on ({0})")]
    Settings(#[from] serde_json::Error),
}

/// What all seats of a host are set up with.
#[derive(Debug)]
pub(super) struct Furniture {
    pub(super) role: Role,
    pub(super) broker: Broker,
    /// The host's name, which its only seat without a group has.
    pub(super) host: InstanceId,
    /// When crashes lead to a quarantine; `None`: nobody counts them.
    pub(super) quarantine: Option<QuarantinePolicy>,
    /// Who renews the leases.
    pub(super) leases: Option<MoreBoards>,
    /// What the children that serve were given.
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) started_at: Timestamp,
    /// Where libraries are held.
    pub(super) shelf: Shelf,
    /// Boards of seats that are gone.
    pub(super) spare: Arc<Mutex<Vec<[Board; 2]>>>,
}

impl Furniture {
    /// A supervisor that has not started yet, and answers who asks whether it is there until it has ended.
    pub(super) fn seat(
        &self,
        chair: &Chair,
        settings: &Settings,
        listener: Option<OwnedFd>,
    ) -> Result<Supervisor, Error> {
        let instance = match chair.seat {
            None => self.host.clone(),
            // Of several each has a name of its own: it is a worker as any other.
            Some(_) => InstanceId::generate(self.role.as_str())?,
        };
        let boards = self.boards()?;
        let hooks: Arc<dyn Aftermath> = match self.quarantine {
            None => Arc::new(NoAftermath),
            Some(quarantine) => {
                let (broker, instance) = (self.broker.clone(), instance.clone());
                Arc::new(BrokerAftermath { broker, instance, quarantine })
            }
        };
        let supervisor = Supervisor::new(SupervisorOptions {
            role: self.role,
            instance: instance.as_str().to_owned(),
            seat: chair.seat.clone(),
            plan: plan(self.role, &settings.of_share(&chair.share))?,
            listener,
            boards,
            hooks,
            spawn: Arc::new(SelfExecutable),
            shelf: self.shelf.clone(),
        });
        let status = supervisor.handle().status;
        let present = Present {
            role: self.role,
            broker: self.broker.clone(),
            instance,
            boards,
            status: status.clone(),
            share: chair.share.clone(),
            settings: self.settings.clone(),
            started_at: self.started_at,
        };
        let spare = self.spare.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = present.answer() => {}
                _ = status.wait_for(|now| now.status == Stage::Ended) => {}
            }
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(boards);
        });
        Ok(supervisor)
    }

    fn boards(&self) -> Result<[Board; 2], OpenError> {
        if let Some(boards) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(boards);
        }
        let boards = [Board::create()?, Board::create()?];
        if let Some(leases) = &self.leases {
            boards.into_iter().for_each(|board| leases.watch(board));
        }
        Ok(boards)
    }
}
