//! The two roles, put together from the other rooms.
//!
//! ```text
//! cardcage api|worker ── supervisor.rs ──▶ child (cardcage child) ── child.rs ──▶ api.rs or worker.rs
//! ```
//!
//! Here is where rooms that know nothing of each other meet: settings become options, plugins become routes and
//! consumers, a dead child's board becomes answers. No rule of its own belongs here.

mod addresses;
mod aftermath;
mod api;
mod batch;
mod blocked;
mod child;
mod elsewhere;
mod inline_only;
mod metrics;
mod options;
mod presence;
mod pumps;
mod quarantine;
mod reload;
mod seats;
mod services;
mod supervisor;
mod worker;

pub use child::run as run_child;
pub use options::broker_options;
pub(crate) use presence::machine;
pub use reload::{Judgement, Reconfiguration};
pub use supervisor::run as run_supervisor;
pub use worker::consumers;
