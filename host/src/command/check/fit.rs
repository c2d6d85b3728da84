//! Whether a plugin set is fit to serve: the one judgement that `check` reports and that a reload hangs on.
//!
//! Invariants: plugin code runs only in a child that may die; a library has one refusal at most, the first that is found.
//!
//! What it refuses: it starts no plugin. What only `init` can tell, the child that would serve tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{PluginSettings, Settings, Share};
use crate::describer;
use crate::edge::override_faults;
use crate::loader::{
    Code, Description, Manifest, Refusal, inspect, judge_previous, needs_refusal, schedule_faults,
    task_faults, unmet,
};

/// Faults that are told of one plugin's settings.
const FAULTS_TOLD: usize = 8;

/// What was found of a plugin set.
#[derive(Debug, Default)]
pub(crate) struct SetVerdict {
    /// What the plugins declare, by name; also of one that is refused for its settings.
    pub(crate) descriptions: BTreeMap<String, Description>,
    /// Those that would not be loaded, by name.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// The previous libraries of plugins that have some, in the order of their plugins.
    pub(crate) previous: Vec<Previous>,
    /// Overrides of routes, tasks and schedules that mean nothing: mistakes in the configuration, a sentence each.
    pub(crate) overrides: Vec<String>,
    /// What went wrong and is no plugin's fault.
    pub(crate) unexpected: Option<String>,
}

impl SetVerdict {
    /// What the previous libraries declare that would be loaded.
    pub(crate) fn previous(&self) -> impl Iterator<Item = &Description> {
        let fit = self.previous.iter().filter(|one| one.refusal.is_none());
        fit.filter_map(|one| one.description.as_ref())
    }
}

/// What was found of one previous library.
#[derive(Debug)]
pub(crate) struct Previous {
    pub(crate) plugin: String,
    pub(crate) library: PathBuf,
    generation: usize,
    /// What it declares, where it could be asked.
    pub(crate) description: Option<Description>,
    /// Why it would not be loaded.
    pub(crate) refusal: Option<Refusal>,
}

/// Looks at every plugin of the settings, and at all of them together.
pub(crate) async fn judge(settings: &Settings) -> SetVerdict {
    let described = describer::describe(settings).await;
    let mut verdict = SetVerdict { unexpected: described.unexpected, ..SetVerdict::default() };
    let mut previous = describe_previous(settings, &mut verdict.unexpected).await;
    let needs =
        unmet(described.descriptions.values(), previous.iter().filter_map(|one| one.description.as_ref()));
    for (name, plugin) in &settings.plugins {
        let description = described.descriptions.get(name);
        let refusal = described.refused.iter().find(|refusal| refusal.plugin == *name).cloned();
        let needs = || Some(needs_refusal(name, &plugin.library, needs.get(name.as_str())?));
        let refusal = refusal.or_else(needs);
        let refusal = refusal.or_else(|| unfit_settings(name, &plugin.library, plugin, description?));
        if let Some(refusal) = refusal {
            verdict.refused.insert(name.clone(), refusal);
        }
        if let Some(description) = description {
            verdict.overrides.extend(override_faults(name, plugin.routes.keys(), description));
            verdict.overrides.extend(task_faults(name, &plugin.tasks, description));
            verdict.overrides.extend(schedule_faults(name, &plugin.schedules, description));
        }
    }
    judge_previous_needs(settings, &described.descriptions, &mut previous);
    (verdict.descriptions, verdict.previous) = (described.descriptions, previous);
    verdict
}

/// Judges the previous libraries by their manifests, and has those described that may stand beside the current ones.
async fn describe_previous(settings: &Settings, unexpected: &mut Option<String>) -> Vec<Previous> {
    let of_plugins = settings.clone();
    // Reading and hashing block.
    let inspecting = tokio::task::spawn_blocking(move || inspect_previous(&of_plugins));
    let mut previous = match inspecting.await {
        Ok(previous) => previous,
        Err(error) => {
            unexpected
                .get_or_insert(format!("the previous libraries could not be read ({error}): try again"));
            return Vec::new();
        }
    };
    let last = previous.iter().map(|one| one.generation).max().unwrap_or(0);
    for generation in 1..=last {
        let mut own: Vec<&mut Previous> =
            previous.iter_mut().filter(|one| one.generation == generation).collect();
        let mut part = settings.of_share(&Share { group: None, generation });
        part.plugins.retain(|name, _| own.iter().any(|one| one.plugin == *name && one.refusal.is_none()));
        let mut described = describer::describe(&part).await;
        for one in &mut own {
            one.description = described.descriptions.remove(&one.plugin);
            let refused = described.refused.iter().find(|refusal| refusal.plugin == one.plugin);
            one.refusal = one.refusal.take().or(refused.cloned());
        }
        *unexpected = unexpected.take().or(described.unexpected);
    }
    previous
}

fn inspect_previous(settings: &Settings) -> Vec<Previous> {
    let mut previous = Vec::new();
    for (name, plugin) in settings.plugins.iter().filter(|(_, plugin)| !plugin.previous.is_empty()) {
        let mut earlier: Vec<(&Path, Manifest)> = Vec::new();
        for (generation, library) in plugin.libraries().enumerate() {
            // What cannot be read is told by who is to describe it.
            let manifest = inspect::file(library).ok().map(|(inspection, _)| inspection.manifest);
            let judge = |manifest: &Manifest| {
                let earlier = earlier.iter().map(|(library, manifest)| (*library, manifest));
                judge_previous(name, library, manifest, earlier).err()
            };
            if generation > 0 {
                let refusal = manifest.as_ref().and_then(judge);
                let (plugin, library) = (name.clone(), library.clone());
                previous.push(Previous { plugin, library, generation, description: None, refusal });
            }
            earlier.extend(manifest.map(|manifest| (library.as_path(), manifest)));
        }
    }
    previous
}

/// What only all libraries together, or the settings, say against previous ones.
fn judge_previous_needs(
    settings: &Settings,
    current: &BTreeMap<String, Description>,
    previous: &mut [Previous],
) {
    let refusals: Vec<Option<Refusal>> = previous
        .iter()
        .map(|one| {
            let (description, plugin) = (one.description.as_ref()?, settings.plugins.get(&one.plugin)?);
            let others = previous.iter().filter(|other| !std::ptr::eq(*other, one));
            let others = others.filter_map(|other| other.description.as_ref());
            let unmet = unmet([description], current.values().chain(others));
            let needs = unmet.get(one.plugin.as_str());
            let needs = needs.map(|fault| needs_refusal(&one.plugin, &one.library, fault));
            needs.or_else(|| unfit_settings(&one.plugin, &one.library, plugin, description))
        })
        .collect();
    for (one, refusal) in previous.iter_mut().zip(refusals) {
        one.refusal = one.refusal.take().or(refusal);
    }
}

/// What the plugin's `init` would say to its settings, as far as its schema tells.
fn unfit_settings(
    name: &str,
    library: &Path,
    settings: &PluginSettings,
    description: &Description,
) -> Option<Refusal> {
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
    let refusal = Refusal::new(library, Code::InitFailed, fault, "correct the settings");
    (!faults.is_empty()).then(|| refusal.of(name))
}
