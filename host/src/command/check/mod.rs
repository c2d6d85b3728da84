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
mod report;

use std::path::Path;

use crate::cli::Configuration;
use crate::config::{self, Loading, PluginSettings, Settings};
use crate::edge::override_faults;
use crate::exit::Exit;
use crate::loader::{Code, Description, Refusal, needs_refusal, schedule_faults, task_faults, unmet};

use super::describe_child::Wanted;
use super::output;
use report::{ConfigurationReport, PluginReport, Report};

/// Faults that are told of one plugin's settings.
const FAULTS_TOLD: usize = 8;

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
    let (described, (mut found, broker)) =
        tokio::join!(describer::describe(settings), broker::probe(settings));
    if let Some(broker) = broker {
        broker::compare(&mut found, &broker, settings, described.descriptions.values()).await;
    }
    report.broker = Some(found);
    let unmet = unmet(described.descriptions.values());
    let plugins = settings.plugins.iter().map(|(name, plugin)| {
        let description = described.descriptions.get(name);
        let refusal = described.refused.iter().find(|refusal| refusal.plugin == *name).cloned();
        let refusal =
            refusal.or_else(|| Some(needs_refusal(name, &plugin.library, unmet.get(name.as_str())?)));
        let refusal = refusal.or_else(|| unfit_settings(name, plugin, description?));
        if let Some(description) = description {
            let faults = override_faults(name, plugin.routes.keys(), description);
            report.configuration.overrides.extend(faults);
            report.configuration.overrides.extend(task_faults(name, &plugin.tasks, description));
            report.configuration.overrides.extend(schedule_faults(name, &plugin.schedules, description));
        }
        PluginReport::new(name, plugin, description, refusal.as_ref())
    });
    report.plugins = Some(plugins.collect());
    report.unexpected = described.unexpected;
}

/// What the plugin's `init` would say to its settings, as far as its schema tells.
fn unfit_settings(name: &str, settings: &PluginSettings, description: &Description) -> Option<Refusal> {
    let schema = jsonschema::validator_for(description.config_schema.as_ref()?).ok()?;
    let config = serde_json::Value::Object(settings.config.expose().clone());
    // Masked: a setting may be a secret.
    let faults = schema.iter_errors(&config).map(|error| {
        let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
        let at = if path.is_empty() { String::new() } else { format!(".{path}") };
        format!("plugins.{name}.config{at}: {}", error.masked())
    });
    let faults: Vec<String> = faults.take(FAULTS_TOLD).collect();
    let fault = format!("could not start with these settings ({})", faults.join("; "));
    let refusal = Refusal::new(&settings.library, Code::InitFailed, fault, "correct the settings");
    (!faults.is_empty()).then(|| refusal.of(name))
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
    loading: &Loading,
) -> Result<Description, Result<Refusal, String>> {
    let wanted = Wanted { name: name.to_owned(), library: file.to_owned(), prefix: format!("/{name}") };
    let mut described = describer::describe_these(vec![wanted], loading).await;
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
