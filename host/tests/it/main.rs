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
mod command;
mod config;
mod dev;
mod edge;
mod isolation;
mod lifecycle;
mod loading;
mod orders;
mod promises;
mod repeats;
mod serving;
mod streams;
mod tasks;
