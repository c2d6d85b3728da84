//! Whether a plugin set is fit to serve: the one judgement that `check` reports and that a reload hangs on.
//!
//! Invariants: plugin code runs only in a child that may die; a plugin has one refusal at most, the first that is found.
//!
//! What it refuses: it starts no plugin. What only `init` can tell, the child that would serve tells.

use std::collections::BTreeMap;

use crate::config::{PluginSettings, Settings};
use crate::describer;
use crate::edge::override_faults;
use crate::loader::{Code, Description, Need, Refusal, needs_refusal, schedule_faults, task_faults, unmet};

/// Faults that are told of one plugin's settings.
const FAULTS_TOLD: usize = 8;

/// What was found of a plugin set.
#[derive(Debug, Default)]
pub(crate) struct SetVerdict {
    /// What the plugins declare, by name; also of one that is refused for its settings.
    pub(crate) descriptions: BTreeMap<String, Description>,
    /// Those that would not be loaded, by name.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Overrides of routes, tasks and schedules that mean nothing: mistakes in the configuration, a sentence each.
    pub(crate) overrides: Vec<String>,
    /// What went wrong and is no plugin's fault.
    pub(crate) unexpected: Option<String>,
}

/// Looks at every plugin of the settings, and at all of them together.
pub(crate) async fn judge(settings: &Settings) -> SetVerdict {
    let described = describer::describe(settings).await;
    let unmet = unmet(described.descriptions.values());
    let mut verdict = SetVerdict { unexpected: described.unexpected, ..SetVerdict::default() };
    for (name, plugin) in &settings.plugins {
        let description = described.descriptions.get(name);
        let refusal = described.refused.iter().find(|refusal| refusal.plugin == *name).cloned();
        let needs = || Some(needs_refusal(name, &plugin.library, unmet.get(name.as_str())?));
        let refusal = refusal.or_else(needs).or_else(|| unfit_settings(name, plugin, description?));
        if let Some(refusal) = refusal {
            verdict.refused.insert(name.clone(), refusal);
        }
        if let Some(description) = description {
            verdict.overrides.extend(override_faults(name, plugin.routes.keys(), description));
            verdict.overrides.extend(task_faults(name, &plugin.tasks, description));
            verdict.overrides.extend(schedule_faults(name, &plugin.schedules, description));
        }
    }
    verdict.descriptions = described.descriptions;
    verdict
}

/// The refusals that only a worker with groups has, by name: of plugins that need one that is in another group.
pub(crate) fn apart(
    settings: &Settings,
    descriptions: &BTreeMap<String, Description>,
) -> BTreeMap<String, Refusal> {
    let mut refused = BTreeMap::new();
    for group in &settings.groups {
        let there = settings.of_group(Some(&group.name)).plugins;
        for (name, plugin) in &there {
            let mut needs = descriptions.get(name).into_iter().flat_map(|description| &description.needs);
            let is_apart = |need: &&Need| {
                !need.optional
                    && !there.contains_key(&need.plugin)
                    && settings.plugins.contains_key(&need.plugin)
            };
            if let Some(Need { plugin: other, major, .. }) = needs.find(is_apart) {
                let fault = format!(
                    "needs the plugin `{other}` v{major}, which is not in the worker group `{}`",
                    group.name
                );
                refused.insert(name.clone(), needs_refusal(name, &plugin.library, &fault));
            }
        }
    }
    refused
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
