//! Settings: what the operator wants, read at start and for each reload.
//!
//! Why by hand: mistakes must point at the file and line that they came from, also after the layers were
//! merged, and every option must be declared once (`options`). Layers, later ones win: defaults < files <
//! `plugins.d/*.toml` beside the first file < environment `CARDCAGE__SECTION__KEY` < flags `--set key=value` < what `dev`
//! says of plugins that it has built ([`LAST_FILE`]).
//!
//! ```text
//! sources (read, parse) ─▶ tree (merge) ─▶ check, plugins, secrets (meaning) ─▶ Settings
//!                                              └ errors: every mistake, with its place
//! ```
//!
//! Invariants: [`Settings`] is complete and checked, nobody checks it again; all mistakes are told at once;
//! loading reads files and nothing else: it binds no port and connects to nothing.
//!
//! It refuses to say what a running host does with new settings: see `role::reload`.

mod backoff;
mod check;
mod errors;
mod groups;
mod kind;
mod options;
mod own_process;
mod plugin_config;
mod plugins;
mod previous;
pub mod reference;
mod secrets;
mod sources;
mod stores;
mod suggest;
#[cfg(test)]
mod tests;
mod time_scale;
mod tree;
mod trust;

pub use backoff::Backoff;
pub use errors::Errors;
pub use groups::Group;
pub use options::{
    Admin, Api, Broker, Dev, Drain, Loading, Log, LogFormat, OnLost, Placement, PluginSettings, Retry,
    ScheduleOverrides, Settings, Storage, TaskOverrides, Tasks, Worker,
};
pub use plugin_config::PluginConfig;
pub use previous::{Elsewhere, Generation, Part, Share};
pub use sources::{Assignment, LAST_FILE, Sources};
pub use stores::Stores;
pub use time_scale::TimeScale;
pub use trust::{Signatures, Trust};

/// Reads, merges and checks all layers.
///
/// # Errors
/// Every mistake found, each with its place: the operator's to put right (exit code 78).
pub fn load(sources: &Sources) -> Result<Settings, Errors> {
    let layers = sources::read(sources);
    let mut check = check::Check { environment: &sources.environment, mistakes: Vec::new() };
    let settings = check.settings(&layers.table);
    match settings {
        Some(settings) if layers.mistakes.is_empty() => Ok(settings),
        _ => {
            let mut mistakes = layers.mistakes;
            // In a file that is not TOML, what was understood may be in the wrong table: not worth telling.
            mistakes.extend(check.mistakes.into_iter().filter(|mistake| {
                !mistake.position().is_some_and(|(path, _)| layers.broken.iter().any(|broken| broken == path))
            }));
            Err(Errors::new(mistakes, &layers.files))
        }
    }
}
