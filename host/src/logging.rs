//! Logs on standard error, as text for people or JSON for machines.
//!
//! Messages are static sentences, data goes into fields. ERROR: something is lost or a human is needed; WARN:
//! unexpected, nothing lost; INFO: what an operator wants to see once.

mod mark;

use crate::config::{Log, LogFormat};
use crate::process::Seat;
use mark::{Mark, Marked};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The target of plugins' events.
const PLUGIN: &str = "plugin";

/// Starts logging. A second call changes nothing.
pub fn start(log: &Log) {
    start_in(log, None);
}

/// The same in a child, of whose host there may be others in other worker groups: each line says whose it is.
pub(crate) fn start_in(log: &Log, seat: Option<&Seat>) {
    let mark = Mark::new(log.format, seat);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.filter))
        .with_writer(move || Marked { mark: mark.clone(), to: std::io::stderr() })
        // It would say on stderr that stderr cannot be written, and panic in whoever logs: a closed terminal, a full disk or
        // a dead reader of the pipe costs log lines and nothing else.
        .log_internal_errors(false)
        .with_span_events(FmtSpan::NONE);
    // Fails only where a subscriber is set already.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// The host's own filter. Plugins hold their events against the same directives with targets of their own, and all
/// that they send has one target here: what `info,orders=debug` let through there passes here too.
fn filter(directives: &str) -> EnvFilter {
    let filter = EnvFilter::builder().parse_lossy(directives);
    let mut targets =
        directives.split(',').map(|one| one.split(['=', '[']).next().unwrap_or_default().trim());
    if targets.any(|target| target == PLUGIN) {
        // The operator has said how much of it is wanted.
        return filter;
    }
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    match format!("{PLUGIN}={most}").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_directive_lets_through_in_a_plugin_passes_in_the_host() {
        for (directives, wanted) in [
            ("info", "plugin=info"),
            ("info,cardcage_plugin_orders=debug", "plugin=debug"),
            ("warn,plugin=error,orders=trace", "plugin=error"),
            ("info,plugin[{plugin=orders}]=debug", "plugin[{plugin=orders}]=debug"),
        ] {
            let shown = filter(directives).to_string();
            assert!(shown.split(',').any(|one| one == wanted), "{wanted} in {shown}");
        }
    }
}
