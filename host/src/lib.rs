//! The host as a library. `main.rs` is the binary; ARCHITECTURE.md shows how the rooms hang together.

pub mod admin;
pub mod broker;
pub mod calling;
pub mod cancel;
pub mod cli;
pub mod command;
pub mod config;
pub mod crash;
pub mod deployed;
pub mod edge;
pub mod enqueue;
pub mod exit;
pub mod failpoint;
pub mod follow;
pub mod live_limits;
pub mod loader;
pub mod logging;
pub mod lookup;
pub mod once;
pub mod process;
pub mod quarantine;
pub mod role;
pub mod stream;
pub mod terms;
pub mod unpark;
pub mod worker;
