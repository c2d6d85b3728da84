//! `cardcage check`: would a host start with this configuration? Everything that speaks against it is told at once.
//!
//! ```text
//! configuration ─▶ settings ─┬▶ describer: each plugin describes itself, in a child ─▶ conflicts, overrides
//!                            └▶ broker: version, JetStream, the streams' echoed options
//! ```
//!
//! Invariants: it serves nothing, creates nothing on the broker that a host would not create, and runs plugin
//! code only in a child that may die. The report goes to stdout; the exit code is the first of 78, 70, 69 that
//! applies. A refusal of a plugin with `required = false` is a warning, as it is for a host.
//!
//! What it refuses to do: it does not start plugins (`init` may open connections and has side effects), and it
//! does not go on to plugins and broker when the settings themselves are in doubt.

mod broker;
mod describer;
pub(crate) mod fit;
mod report;

use std::path::Path;

use crate::cli::Configuration;
use crate::config::{self, Settings};
use crate::exit::Exit;
use crate::loader::{Description, Refusal};

use super::describe_child::Wanted;
use super::output;
use report::{ConfigurationReport, PluginReport, Report};

/// Checks, and writes the report.
pub async fn run(configuration: Configuration, json: bool) -> Exit {
    let sources = configuration.sources();
    let mut report = Report::new(ConfigurationReport::new(&sources.files));
    match config::load(&sources) {
        Ok(settings) => judge(&mut report, &settings).await,
        Err(errors) => report.configuration.mistakes(&errors, output::styled() && !json),
    }
    report.exit_code = report.exit().code();
    if json {
        output::json(&report);
    } else {
        output::result(&report.text());
    }
    report.exit()
}

async fn judge(report: &mut Report, settings: &Settings) {
    let (set, (mut found, broker)) = tokio::join!(fit::judge(settings), broker::probe(settings));
    if let Some(broker) = broker {
        broker::compare(&mut found, &broker, settings, set.descriptions.values()).await;
    }
    report.broker = Some(found);
    let plugins = settings.plugins.iter().map(|(name, plugin)| {
        PluginReport::new(name, plugin, set.descriptions.get(name), set.refused.get(name))
    });
    report.plugins = Some(plugins.collect());
    report.configuration.overrides = set.overrides;
    report.unexpected = set.unexpected;
}

/// Lets one plugin of the configuration describe itself, with what the operator has laid over it. `None`: it is not in
/// the configuration.
pub(super) async fn describe_one(settings: &Settings, name: &str) -> Option<Result<Description, String>> {
    let mut settings = settings.clone();
    settings.plugins.retain(|plugin, _| plugin == name);
    let tasks = settings.plugins.get(name)?.tasks.clone();
    let mut described = describer::describe(&settings).await;
    let refused = described.refused.first().map(ToString::to_string).or(described.unexpected);
    let description = described.descriptions.remove(name).map(|mut description| {
        description.lay_over(&tasks);
        description
    });
    Some(
        description.ok_or_else(|| refused.unwrap_or_else(|| "the plugin did not describe itself".to_owned())),
    )
}

/// Lets the plugin of one file describe itself, whatever the configuration has.
///
/// # Errors
/// A refusal, or a sentence about what is no plugin's fault.
pub(super) async fn describe_file(
    name: &str,
    file: &Path,
    settings: &Settings,
) -> Result<Description, Result<Refusal, String>> {
    let wanted = Wanted { name: name.to_owned(), library: file.to_owned(), prefix: format!("/{name}") };
    let mut described = describer::describe_these(vec![wanted], settings).await;
    match (described.descriptions.remove(name), described.refused.pop()) {
        (Some(description), _) => Ok(description),
        (None, Some(refusal)) => Err(Ok(refusal)),
        (None, None) => {
            Err(Err(described.unexpected.unwrap_or_else(|| "the plugin did not describe itself".to_owned())))
        }
    }
}

/// What came of describing.
#[derive(Debug, Default)]
struct Described {
    descriptions: std::collections::BTreeMap<String, Description>,
    refused: Vec<Refusal>,
    /// What went wrong and is no plugin's fault.
    unexpected: Option<String>,
}
