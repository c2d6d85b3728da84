//! A supervisor for each child, and what passes between them.
//!
//! Plugins can crash, hang and exit. So no process that must survive loads one: the supervisor owns the
//! sockets, the admin listener and the leases, and starts the same executable again as a child, which
//! loads the plugins and does the work.
//!
//! ```text
//! supervisor ── Start, Drain, Metrics ──▶ child        (control channel: a Unix socket, child's stdin)
//!            ◀─ Phase, Ready, … ─────────
//!            ◀─ board (shared memory): what is in flight
//! ```
//!
//! A worker with groups or previous libraries has several such pairs in one host, its `crew`.
//!
//! Invariants:
//! - The supervisor outlives any child, unless a required plugin is refused or the child says it cannot
//!   start. It never runs plugin code.
//! - A child never outlives its supervisor for longer than the grace.
//! - A plugin that took its child down while loading is not loaded again by this supervisor; one that crashes its children
//!   by itself is left out for a while.
//!
//! What it refuses to do: it knows nothing of NATS or HTTP. What a child held is answered by an
//! [`Aftermath`], leases are renewed by a [`Renewer`]; both are given from outside.

mod aftermath;
mod assent;
mod backoff;
mod birth;
pub mod child;
mod connected;
pub mod control;
mod crash_loops;
mod crash_report;
pub mod crew;
pub(crate) mod culprit;
mod death;
mod fate;
mod grave;
mod held;
mod lease;
mod life;
pub mod members;
mod oom;
mod overdue;
mod pulse;
mod reload;
mod replacement;
mod retiree;
mod shutdown;
mod spawn;
mod started;
mod status;
mod supervisor;
mod watchdog;
mod wear;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use aftermath::{Aftermath, Deceased};
pub use crash_report::{Cause, CrashReport, Work};
pub use crew::{Crew, Seat};
pub use death::Death;
pub use fate::{Fate, Scene};
pub use held::Shelf;
pub use lease::{LeaseKeeper, MoreBoards, Renewer};
pub use members::{Member, Recruiting};
pub use reload::{Plan, Reloads, Unfit};
pub use shutdown::{Shutdown, ShutdownHandle, hangup_stops};
#[cfg(debug_assertions)]
pub(crate) use spawn::SUBCOMMAND;
pub use spawn::{Process, SelfExecutable, Spawn};
pub use started::Begun;
pub use status::{
    BlockedPlugin, ChildMetrics, DutyMetrics, Handle, QuarantinedPlugin, Snapshot, Stage, Status,
};
pub use supervisor::{Supervisor, SupervisorOptions};
pub use wear::Limits;
