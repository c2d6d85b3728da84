//! The host as a library.

pub mod crash;
pub mod cli;
pub mod config;
pub mod exit;
pub mod loader;
pub mod process;
