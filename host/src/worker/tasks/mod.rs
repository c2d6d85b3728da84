//! Durable tasks on the worker's side: from a delivery to a recorded outcome.
//!
//! A delivery is not a task started, an acknowledgement is no fence, and a worker may be killed between any two of its
//! writes. So what is known about a task stands in its record, and every step is decided from that record by pure
//! functions (`arrival`, `ending`, `unreadable`) and carried out in one order (`carry_out`): the fenced record,
//! then the publishes that it owes, the acknowledgement last. Whoever gets the redelivery redoes what is missing.
//!
//! The way of a task: `consumer` pulls as many deliveries as there are free slots (`slots`), at the task's rate
//! (`meter`); `attempt` receives, runs (`handling`) and ends each, `note` puts it on the board, `waiting` has what it waits for before, `held` knows which ones are here, `find` says so when asked, `staging` keeps what a handler enqueues
//! and `children` publishes it, `engine` starts and drains.
//!
//! # Invariants
//! * The happy path costs one record and one acknowledgement; nothing is read.
//! * A handler runs only while its claim is on the board, so that the supervisor renews its lease or hands it back.
//! * One process never runs the same task twice at once: a redelivery of what is held here is ignored, a copy of its message is
//!   dropped, the message of its next attempt waits.
//! * An outcome is written with the fence of its own attempt or not at all; a refused one is dropped with its follow-ups.
//! * Nothing is acknowledged before its record, and the publishes that the record owes, are stored; but where those find the
//!   message's own queue full, they are noted, and it makes room first (`place`).
//! * No lock is held over an await.
//!
//! # What it refuses
//! It renews no lease (the supervisor does), moves no due task (the pump does), delays nothing by NAK (that would hold
//! up other tasks), and prefetches nothing beyond free slots.

mod arrival;
mod attempt;
mod cancellations;
mod carry_out;
mod children;
mod consumer;
mod counters;
mod ending;
mod engine;
mod exhausted;
mod find;
mod handling;
mod held;
mod history;
mod keys;
mod limits;
mod meter;
mod note;
pub mod obituary;
mod outcome;
mod parked;
mod payer;
mod place;
mod plan;
mod progress;
mod slots;
mod staging;
mod sweeper;
mod unit;
mod unreadable;
mod waiting;

#[cfg(test)]
mod tests;

pub use counters::TaskCounters;
pub use engine::{TaskEngine, TaskEngineOptions, slots_per_plugin};
pub use held::Held;
pub use progress::ProgressReports;
pub use staging::Staging;
pub use sweeper::{SweepReport, Sweeper};
