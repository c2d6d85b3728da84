//! The SDK from the host's side: a plugin's vtable, called as a host calls it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

mod calls;
mod host;
mod lending;
mod plugin;
mod starting;
mod tasks;
