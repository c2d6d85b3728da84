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
//! With `--against` the plugins are held against what is deployed (`against`); 6 where that breaks.
//!
//! What it refuses to do: it does not start plugins (`init` may open connections and has side effects), and it
//! does not go on to plugins and broker when the settings themselves are in doubt.

mod against;
mod apart;
mod broker;
pub(crate) mod fit;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cli::{Against, Configuration};
use crate::config::{self, Settings};
use crate::describer::{self, Wanted};
use crate::exit::Exit;
use crate::loader::{Description, Refusal};

use super::output;
use against::Candidate;
pub(crate) use against::breaks_itself;
pub(super) use against::first_misfit;
use report::{ConfigurationReport, PluginReport, Report};

/// What is asked for beside the check itself.
#[derive(Debug, Default)]
pub struct Asked {
    /// JSON instead of text.
    pub json: bool,
    /// What the plugins are held against.
    pub against: Option<Against>,
    /// Where their descriptions are written to.
    pub save_manifest: Option<PathBuf>,
}

/// Checks, and writes the report.
pub async fn run(configuration: Configuration, asked: Asked) -> Exit {
    let json = asked.json;
    let sources = configuration.sources();
    let mut report = Report::new(ConfigurationReport::new(&sources.files));
    match config::load(&sources) {
        Ok(settings) => judge(&mut report, &settings, &asked).await,
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

async fn judge(report: &mut Report, settings: &Settings, asked: &Asked) {
    let (mut set, (mut found, broker)) = tokio::join!(fit::judge(settings), broker::probe(settings));
    for (name, refusal) in apart::apart(settings, &set.descriptions) {
        set.refused.entry(name).or_insert(refusal);
    }
    if let Some(broker) = &broker {
        broker::compare(&mut found, broker, settings, set.descriptions.values().chain(set.previous())).await;
    }
    report.broker = Some(found);
    let previous: Vec<&Description> = set.previous().collect();
    // As those that are deployed have told themselves.
    let laid_over = laid_over(settings, &set.descriptions);
    let candidate = Candidate { settings, descriptions: &laid_over, previous: &previous };
    if let Some(against) = &asked.against {
        report.against = Some(against::compare(against, broker.as_ref(), &candidate).await);
    }
    if let Some(path) = &asked.save_manifest
        && let Err(error) = against::save(path, &candidate)
    {
        report.unsaved = Some(format!(
            "{} cannot be written ({error}); check its folder and the permissions there",
            path.display()
        ));
    }
    let plugins = settings.plugins.iter().map(|(name, plugin)| {
        let report = PluginReport::new(name, plugin, set.descriptions.get(name), set.refused.get(name));
        report.with_previous(set.previous.iter().filter(|one| one.plugin == *name))
    });
    report.plugins = Some(plugins.collect());
    report.configuration.overrides = set.overrides;
    report.unexpected = set.unexpected;
}

/// What the plugins declare, with the operator's word over it.
fn laid_over(
    settings: &Settings,
    descriptions: &BTreeMap<String, Description>,
) -> BTreeMap<String, Description> {
    let mut laid_over = descriptions.clone();
    for (name, description) in &mut laid_over {
        if let Some(plugin) = settings.plugins.get(name) {
            description.lay_over(&plugin.tasks);
            description.lay_over_schedules(&plugin.schedules);
        }
    }
    laid_over
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
    let (library, prefix) = (file.to_owned(), format!("/{name}"));
    let wanted = Wanted { name: name.to_owned(), library, prefix, is_previous: false };
    let mut described = describer::describe_these(vec![wanted], settings).await;
    match (described.descriptions.remove(name), described.refused.pop()) {
        (Some(description), _) => Ok(description),
        (None, Some(refusal)) => Err(Ok(refusal)),
        (None, None) => {
            Err(Err(described.unexpected.unwrap_or_else(|| "the plugin did not describe itself".to_owned())))
        }
    }
}
