//! One integration-test binary, one module per feature.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

mod broker;
mod calls;
mod command;
mod config;
mod crashes;
mod dev;
mod edge;
mod isolation;
mod lifecycle;
mod loading;
mod orders;
mod promises;
mod recycling;
mod serving;
mod streams;
mod tasks;
