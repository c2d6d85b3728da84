//! What the rest of the project's tests trust this crate to do.
#![allow(clippy::unwrap_used, reason = "in tests; clippy.toml allows it in the test functions only")]

mod downstream;
mod host_process;
mod nats;
mod wait;
