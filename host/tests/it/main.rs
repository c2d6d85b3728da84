//! One integration-test binary, one module per feature.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

mod abi;
mod acceptance;
mod against;
mod appointed;
mod back_pressure;
mod batches;
mod blocked;
mod broker;
mod budgets;
mod calls;
mod cancel;
mod children;
mod command;
mod config;
mod containment;
mod crash_loops;
mod crash_reports;
mod crashes;
mod declarations;
mod delayed;
mod dev;
mod docs;
mod double;
mod drain;
mod drift;
mod due_again;
mod edge;
mod errors;
mod exhausted;
mod follow;
mod full_queue;
mod fuzzed;
mod groups;
mod hangup;
mod hops;
mod in_flight;
mod isolation;
mod keys;
mod killed_between_writes;
mod killed_for_memory;
mod killed_with_keys;
mod kit;
mod lifecycle;
mod live_limits;
mod loading;
mod neighbours;
mod once;
mod one_letter;
mod operators;
mod orders;
mod parked;
mod payments;
mod previous;
mod priorities;
mod promises;
mod quarantine;
mod recycling;
mod reload;
mod repeats;
mod rubbish;
mod schedules;
mod scripts;
mod serving;
mod soft_limit;
mod stores;
mod strange_entries;
mod streams;
mod sweeper;
mod tasks;
mod unloaded;
mod upcast;
mod waiting;
mod webhooks;
mod wire;
mod worn;
