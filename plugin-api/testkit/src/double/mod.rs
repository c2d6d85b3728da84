//! A broker double: a small NATS server with as much of JetStream as hosts use, in the test's process.
//!
//! Real hosts run against it unchanged, over TCP, with the real envelope. It keeps everything in memory and forgets it when
//! it is dropped. `host/tests/it/double.rs` holds it and a real nats-server against one suite.
//!
//! What it refuses: clusters, accounts, push consumers, limits of connections.

mod api;
mod batch;
mod consumer;
mod core;
mod cron;
mod direct;
mod schedule;
mod store;
mod stream;
mod subject;
mod time;
mod wire;

use crate::{Error, Result};
use core::Core;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How often what is due is looked for: leases, pulls that end, schedules, messages whose time is over.
const TICK: Duration = Duration::from_millis(5);

/// A running double; see the module. Dropping it cuts every connection.
#[derive(Debug)]
pub struct BrokerDouble {
    url: String,
    serving: JoinHandle<()>,
}

impl BrokerDouble {
    /// Starts one on a free port of 127.0.0.1. It lives on the caller's runtime, which must not block.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(Error::doing("the broker double cannot listen"))?;
        let address = listener.local_addr().map_err(Error::doing("the broker double has no address"))?;
        let core = Arc::new(Mutex::new(Core::default()));
        let serving = tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            // Connections end with this future.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(wire::serve(stream, core.clone(), address.port()));
                    },
                    _ = tick.tick() => crate::host_side::lock(&core).tick(),
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Ok(Self { url: format!("nats://{address}"), serving })
    }

    /// Where it listens, as `broker.url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for BrokerDouble {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
