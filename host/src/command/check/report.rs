//! The report of `check`: one section each for configuration, plugins and broker, for people or programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::against::AgainstReport;
use super::fit::Previous;
use crate::command::inspect::Refused;
use crate::command::output;
use crate::config::{Errors, PluginSettings};
use crate::exit::Exit;
use crate::loader::{Description, Placement, Refusal};

/// All that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) exit_code: u8,
    pub(super) configuration: ConfigurationReport,
    /// `None`: not looked at, because the configuration is in doubt.
    pub(super) plugins: Option<Vec<PluginReport>>,
    /// `None`: not looked at, because the configuration is in doubt.
    pub(super) broker: Option<BrokerReport>,
    /// What would break of what is deployed; `None`: nobody asked, or it was not looked at.
    pub(super) against: Option<AgainstReport>,
    /// Why the manifest that was asked for was not written.
    pub(super) unsaved: Option<String>,
    /// What went wrong and is nobody's fault but ours or the machine's.
    pub(super) unexpected: Option<String>,
}

/// What was found in the configuration.
#[derive(Debug, Serialize)]
pub(super) struct ConfigurationReport {
    files: Vec<PathBuf>,
    mistakes: usize,
    /// The mistakes with their places, for people.
    text: Option<String>,
    /// Overrides of routes and tasks that mean nothing, a sentence each.
    pub(super) overrides: Vec<String>,
}

/// What was found of one plugin.
#[derive(Debug, Serialize)]
pub(super) struct PluginReport {
    name: String,
    version: Option<String>,
    library: PathBuf,
    required: bool,
    routes: Vec<Route>,
    tasks: Vec<String>,
    refused: Option<Refused>,
    previous: Vec<PreviousReport>,
}

/// What was found of a previous library.
#[derive(Debug, Serialize)]
struct PreviousReport {
    version: Option<String>,
    library: PathBuf,
    tasks: Vec<String>,
    refused: Option<Refused>,
}

#[derive(Debug, Serialize)]
struct Route {
    method: String,
    /// With the prefix.
    path: String,
    /// As it would be, with the overrides.
    placement: &'static str,
}

/// What was found at the broker.
#[derive(Debug, Serialize)]
pub(super) struct BrokerReport {
    pub(super) url: String,
    pub(super) namespace: String,
    /// The server's version, once it was reached.
    pub(super) server_version: Option<String>,
    /// What speaks against it, a sentence each.
    pub(super) faults: Vec<String>,
    /// Where its streams and consumers differ from the settings, a sentence each.
    pub(super) differences: Vec<String>,
    /// What is worth knowing.
    pub(super) notes: Vec<String>,
}

impl ConfigurationReport {
    pub(super) fn new(files: &[PathBuf]) -> Self {
        Self { files: files.to_vec(), mistakes: 0, text: None, overrides: Vec::new() }
    }

    pub(super) fn mistakes(&mut self, errors: &Errors, styled: bool) {
        self.mistakes = errors.len();
        self.text = Some(errors.render(styled));
    }

    fn faults(&self) -> usize {
        self.mistakes + self.overrides.len()
    }
}

impl PluginReport {
    pub(super) fn new(
        name: &str,
        settings: &PluginSettings,
        description: Option<&Description>,
        refusal: Option<&Refusal>,
    ) -> Self {
        let prefix = settings.prefix.trim_end_matches('/');
        let routes = description.into_iter().flat_map(|description| &description.routes);
        let routes = routes.map(|route| Route {
            method: route.method.clone(),
            path: format!("{prefix}{}", route.path),
            placement: placement(settings, &format!("{} {}", route.method, route.path), route.placement),
        });
        let tasks = description.into_iter().flat_map(|description| &description.tasks);
        Self {
            name: name.to_owned(),
            version: description.map(|description| description.version.clone()),
            library: settings.library.clone(),
            required: settings.required,
            routes: routes.collect(),
            tasks: tasks.map(|task| task.name.clone()).collect(),
            refused: refusal.map(Refused::from),
            previous: Vec::new(),
        }
    }

    /// The same, with what was found of its previous libraries.
    pub(super) fn with_previous<'a>(mut self, previous: impl Iterator<Item = &'a Previous>) -> Self {
        let report = |one: &Previous| PreviousReport {
            version: one.description.as_ref().map(|description| description.version.clone()),
            library: one.library.clone(),
            tasks: one.description.iter().flat_map(|one| &one.tasks).map(|task| task.name.clone()).collect(),
            refused: one.refusal.as_ref().map(Refused::from),
        };
        self.previous = previous.map(report).collect();
        self
    }

    /// Every refusal: of the current library, and of previous ones.
    fn refusals(&self) -> impl Iterator<Item = &Refused> {
        self.refused.iter().chain(self.previous.iter().filter_map(|one| one.refused.as_ref()))
    }
}

fn verdict(refused: Option<&Refused>, is_required: bool) -> &'static str {
    match (refused, is_required) {
        (None, _) => "good",
        (Some(_), true) => "refused",
        (Some(_), false) => "refused, not required",
    }
}

/// Where the route would run: the single override before the plugin's, before what the author declared.
fn placement(settings: &PluginSettings, route: &str, declared: Placement) -> &'static str {
    use crate::config::Placement as Wanted;
    match (declared, settings.routes.get(route).or(settings.placement.as_ref())) {
        (Placement::Enqueue, _) | (_, None) => declared.as_str(),
        (_, Some(Wanted::Worker)) => Placement::Worker.as_str(),
        (_, Some(Wanted::Inline)) => Placement::Inline.as_str(),
    }
}

impl Report {
    pub(super) fn new(configuration: ConfigurationReport) -> Self {
        Self {
            exit_code: 0,
            configuration,
            plugins: None,
            broker: None,
            against: None,
            unsaved: None,
            unexpected: None,
        }
    }

    /// The worst of what was found.
    pub(super) fn exit(&self) -> Exit {
        let refused = |plugin: &PluginReport| plugin.required && plugin.refusals().next().is_some();
        let found = [
            (self.configuration.faults() > 0, Exit::Config),
            (self.broker.as_ref().is_some_and(|broker| !broker.differences.is_empty()), Exit::Config),
            (self.plugins.iter().flatten().any(refused), Exit::PluginRefused),
            (self.broker.as_ref().is_some_and(|broker| !broker.faults.is_empty()), Exit::Unavailable),
            (self.unexpected.is_some(), Exit::Unexpected),
        ];
        let found = found.into_iter().filter(|(found, _)| *found).map(|(_, exit)| exit);
        let against = self.against.as_ref().map_or(Exit::Success, AgainstReport::exit);
        match found.fold(against, Exit::or_worse) {
            // What was found is worth more than that it was not saved.
            Exit::Success if self.unsaved.is_some() => Exit::Usage,
            found => found,
        }
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = self.configuration.section();
        match &self.plugins {
            None => text.push_str("\nPlugins: not checked, because the configuration must be right first.\n"),
            Some(plugins) => text.push_str(&plugins_section(plugins)),
        }
        match &self.broker {
            None => text.push_str("\nBroker: not checked, because the configuration must be right first.\n"),
            Some(broker) => text.push_str(&broker.section()),
        }
        if let Some(against) = &self.against {
            text.push_str(&against.section());
        }
        if let Some(fault) = &self.unsaved {
            let _ = writeln!(text, "\nThe manifest was not saved: {}", output::shown(fault));
        }
        if let Some(fault) = &self.unexpected {
            let _ = writeln!(text, "\nThe check itself failed: {}", output::shown(fault));
        }
        let exit = self.exit();
        let without = self.plugins.iter().flatten().filter(|plugin| plugin.refusals().next().is_some());
        let verdict = match (exit, without.count()) {
            (Exit::Success, 0) => "All is in order.".to_owned(),
            (Exit::Success, 1) => {
                "A host would start degraded, without 1 plugin that it does not require.".to_owned()
            }
            (Exit::Success, more) => {
                format!("A host would start degraded, without {more} plugins that it does not require.")
            }
            _ => format!("Exit code {}: {}", exit.code(), reason(exit)),
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }
}

fn reason(exit: Exit) -> &'static str {
    match exit {
        Exit::Config => "the configuration is wrong, or differs from what is on the broker.",
        Exit::PluginRefused => "a required plugin would be refused.",
        Exit::Unavailable => "the broker is unreachable or unfit.",
        Exit::Breaks => "something that is deployed would break.",
        _ => exit.sentence(),
    }
}

impl ConfigurationReport {
    fn section(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|file| shown_path(file)).collect();
        let from =
            if files.is_empty() { "defaults, environment and flags".to_owned() } else { files.join(", ") };
        let mut text = match self.faults() {
            0 => format!("Configuration: good ({from})\n"),
            1 => format!("Configuration: 1 mistake ({from})\n"),
            more => format!("Configuration: {more} mistakes ({from})\n"),
        };
        if let Some(rendered) = &self.text {
            let _ = writeln!(text, "\n{rendered}");
        }
        for fault in &self.overrides {
            let _ = writeln!(text, "  error: {}", output::shown(fault));
        }
        text
    }
}

fn plugins_section(plugins: &[PluginReport]) -> String {
    if plugins.is_empty() {
        return "\nPlugins: none configured\n".to_owned();
    }
    let refused = plugins.iter().flat_map(PluginReport::refusals).count();
    let mut text = format!("\nPlugins: {} configured, {refused} refused\n", plugins.len());
    let mut table = output::table();
    table.set_header(["plugin", "version", "routes", "tasks", "verdict"]);
    for plugin in plugins {
        let count = |version: &Option<String>, length: usize| {
            if version.is_some() { length.to_string() } else { "-".to_owned() }
        };
        let version = |version: &Option<String>| output::shown(version.as_deref().unwrap_or("-"));
        table.add_row([
            plugin.name.clone(),
            version(&plugin.version),
            count(&plugin.version, plugin.routes.len()),
            count(&plugin.version, plugin.tasks.len()),
            verdict(plugin.refused.as_ref(), plugin.required).to_owned(),
        ]);
        for one in &plugin.previous {
            table.add_row([
                format!("{} (previous)", plugin.name),
                version(&one.version),
                "-".to_owned(),
                count(&one.version, one.tasks.len()),
                verdict(one.refused.as_ref(), plugin.required).to_owned(),
            ]);
        }
    }
    for line in table.trim_fmt().lines() {
        let _ = writeln!(text, " {line}");
    }
    for plugin in plugins {
        for refused in plugin.refusals() {
            let level = if plugin.required { "error" } else { "warning" };
            let (code, sentence) = (refused.code, output::shown(&refused.message));
            let _ = writeln!(text, "  {level}: plugin `{}` ({code}): {sentence}", plugin.name);
        }
    }
    text
}

impl BrokerReport {
    fn section(&self) -> String {
        let verdict = match (self.faults.is_empty(), self.differences.is_empty()) {
            (false, _) => "unfit",
            (true, false) => "differs from the settings",
            (true, true) => "good",
        };
        let version = self
            .server_version
            .as_deref()
            .map_or_else(String::new, |version| format!(", nats-server {version}"));
        let mut text = format!(
            "\nBroker: {verdict} ({}{}, namespace `{}`)\n",
            output::shown(&self.url),
            output::shown(&version),
            self.namespace
        );
        for fault in self.faults.iter().chain(&self.differences) {
            let _ = writeln!(text, "  error: {}", output::shown(fault));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note: {}", output::shown(note));
        }
        text
    }
}

fn shown_path(path: &Path) -> String {
    output::shown(&path.display().to_string())
}
