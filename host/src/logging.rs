//! Logs on standard error, as text for people or JSON for machines.
//!
//! Messages are static sentences, data goes into fields. ERROR: something is lost or a human is needed; WARN:
//! unexpected, nothing lost; INFO: what an operator wants to see once.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts logging. A second call changes nothing.
pub fn start(log: &Log) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(&log.filter))
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    // Fails only where a subscriber is set already.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
