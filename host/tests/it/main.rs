//! One integration-test binary, one module per feature.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

mod acceptance;
mod broker;
mod calls;
mod cancel;
mod command;
mod config;
mod containment;
mod crashes;
mod declarations;
mod dev;
mod docs;
mod drain;
mod edge;
mod follow;
mod in_flight;
mod isolation;
mod keys;
mod killed_between_writes;
mod lifecycle;
mod loading;
mod operators;
mod orders;
mod parked;
mod payments;
mod priorities;
mod promises;
mod quarantine;
mod recycling;
mod repeats;
mod serving;
mod streams;
mod tasks;
mod webhooks;
mod wire;
