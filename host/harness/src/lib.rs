//! Starts the real thing for whoever wants to look at it from outside: tests, `demo` and `bench`.
//!
//! A test that fakes the broker or the process boundary proves little about a plugin host, so this crate starts
//! real `nats-server` and `cardcage` processes on ports of their own, waits for conditions, and takes everything
//! down again.
//!
//! Invariants:
//! - Nothing started here outlives its handle: dropping one kills its processes and removes its folder, and a
//!   `cardcage` process that survives that fails the test.
//! - Any number of tests may run at once: ports are reserved before they are used, namespaces are random.
//! - Waiting is for a condition with a deadline ([`eventually`]), never for a time.
//! - A failure carries what the process wrote.
//!
//! It refuses to build what it starts (`cargo build --workspace` does that) and to download anything
//! (`./justw fetch-tools` does that); where something is missing, the error names the command.

mod cardcage;
mod config;
pub mod downstream;
mod error;
mod http;
mod locate;
mod nats;
mod port;
mod process;
pub mod stripe;
mod wait;

pub use cardcage::{Addresses, Cardcage, Launch, Output};
pub use config::Config;
pub use error::{Error, Result};
pub use http::{Http, Reply};
pub use locate::{cardcage_binary, nats_server_binary, plugin_library, workspace_root};
pub use nats::{Nats, Options as NatsOptions};
pub use port::Port;
pub use process::Signal;
pub use wait::{Deadline, eventually};
