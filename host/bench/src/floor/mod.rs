//! The floors: what bare hyper and bare async-nats do with the same work on the wire.
//!
//! A floor must be as good as a competent person would write it in an afternoon, or the ratio to it flatters. It holds
//! no code of the host and none of a plugin, reads no more of a message than it must, and keeps no promise beyond the
//! happy path.

mod gateway;
mod record;
mod responder;
mod task_worker;

pub(crate) use gateway::{GREETING, Gateway, Work};
pub(crate) use responder::Responder;
pub(crate) use task_worker::{TaskWorker, Wire};

use cardcage_harness::{Error, Result};

/// The namespace of the floor that does the same work on the wire.
pub(crate) const NAMESPACE: &str = "floor";

/// Connects as people do who change nothing.
pub(crate) async fn connect(url: &str) -> Result<async_nats::Client> {
    async_nats::connect(url).await.map_err(Error::doing("cannot connect to nats-server"))
}
