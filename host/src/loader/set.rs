//! Loads a plugin set: one library after the other, then what they say of each other.

use super::beside::Beside;
use super::copy::{self, Folder};
use super::description::Description;
use super::inspect::{self, Manifest};
use super::lending::Lending;
use super::neighbours::{self, Neighbour, Neighbours};
use super::plugin::{Opened, Plugin};
use super::refusal::Refusal;
use super::served::{Judged, Served};
use super::services::Services;
use super::step::{LoadStep, OnStep};
use super::trust::Trust;
use super::{conflict, open, side_by_side, start};
use crate::config::{ScheduleOverrides, TaskOverrides};
use crate::crash::Board;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One plugin of the configuration.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name in the configuration.
    pub name: String,
    /// The library.
    pub library: PathBuf,
    /// Where its routes are mounted, as in `/orders`.
    pub prefix: String,
    /// The plugin's settings.
    pub config: serde_json::Value,
    /// Threads of its runtime; `None`: as many as of the others.
    pub threads: Option<u32>,
    /// The operator's limits of its tasks.
    pub tasks: BTreeMap<String, TaskOverrides>,
    /// The operator's word on its schedules.
    pub schedules: BTreeMap<String, ScheduleOverrides>,
    /// It is a previous library of the plugin: it is not mounted, and has no schedules.
    pub is_previous: bool,
}

/// What loading needs besides the libraries.
#[derive(Clone)]
pub struct LoadOptions {
    /// Where private copies go.
    pub cache_dir: Option<PathBuf>,
    /// What is asked of libraries.
    pub trust: Trust,
    /// The log filter, as in `RUST_LOG`.
    pub log_filter: String,
    /// Threads of each plugin's runtime, where its source does not say.
    pub threads: u32,
    /// What the host does for plugins.
    pub services: Arc<dyn Services>,
    /// The host's runtime.
    pub runtime: tokio::runtime::Handle,
    /// For crash reports.
    pub board: Option<Board>,
    /// The threads that plugins may be lent.
    pub lending: Arc<Lending>,
    /// One plugin is loaded on purpose without those that it needs: they are not asked for, and what it wants of those
    /// that it declares goes to the services as it is.
    pub is_alone: bool,
    /// What other processes of the host have of the plugin set.
    pub beside: Arc<Beside>,
    /// What a child before this one had of the libraries.
    pub served: Served,
}

impl LoadOptions {
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { cache_dir: self.cache_dir.as_deref(), trust: &self.trust, served: Some(&self.served) }
    }
}

/// Where libraries come from, and what is asked of them.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    cache_dir: Option<&'a Path>,
    trust: &'a Trust,
    served: Option<&'a Served>,
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions").field("cache_dir", &self.cache_dir).finish_non_exhaustive()
    }
}

/// What was loaded and what was not.
#[derive(Debug, Default)]
pub struct PluginSet {
    /// Started plugins with their source.
    pub plugins: Vec<(Source, Arc<Plugin>)>,
    /// Plugins of which nothing runs here: what their libraries declare is known, and no more is needed.
    pub declared: Vec<(Source, Arc<Description>)>,
    /// The others.
    pub refused: Vec<Refusal>,
    /// How many were begun: each has a number of its own, also one that did not start, for its library and its threads stay.
    pub begun: u32,
    /// A started plugin needs one that did not start, and what is to be said of it: this process is of no use.
    pub stranded: Option<String>,
}

impl PluginSet {
    /// What its plugins declare: first those that run here, in the order in which they were started.
    pub fn descriptions(&self) -> impl Iterator<Item = (&Source, &Arc<Description>)> {
        let loaded = self.plugins.iter().map(|(source, plugin)| (source, &plugin.description));
        loaded.chain(self.declared.iter().map(|(source, description)| (source, description)))
    }
}

/// A library that may run here, as a private copy.
pub(super) struct Inspected {
    pub(super) manifest: Manifest,
    pub(super) copy: PathBuf,
    pub(super) digest: String,
}

/// All that is judged before a library is opened is judged of the bytes that are read here.
fn inspect_one(
    source: &Source,
    folder: &Folder,
    from: Origin<'_>,
    bytes: &mut Vec<u8>,
) -> Result<Inspected, Refusal> {
    let Origin { trust, served, .. } = from;
    if let Some(judged) = served.and_then(|served| served.of(&source.library)) {
        let inspection = judged.read_into(bytes)?;
        let copy = folder.private(&source.library, &judged.digest, bytes)?;
        return Ok(Inspected { manifest: inspection.manifest, copy, digest: judged.digest.clone() });
    }
    let inspection = inspect::file_into(&source.library, bytes)?;
    let judgement = trust.judge(&source.library, &inspection, bytes);
    if let Some(refusal) = judgement.refusals.into_iter().next() {
        return Err(refusal);
    }
    for warning in judgement.warnings {
        tracing::warn!(plugin = %source.name, code = warning.code.as_str(), reason = %warning, "a plugin is not signed as it should be");
    }
    inspect::verdict(&source.library, &inspection)?;
    let digest = inspect::digest(bytes);
    let copy = folder.private(&source.library, &digest, bytes)?;
    if let Some(served) = served {
        let (library, copy, digest) = (source.library.clone(), copy.clone(), digest.clone());
        served.tell(Judged { library, copy, digest });
    }
    Ok(Inspected { manifest: inspection.manifest, copy, digest })
}

/// Inspects every library, and judges their names before any of them runs.
pub(super) fn inspect_all<'a>(
    sources: &'a [Source],
    from: Origin<'_>,
    refused: &mut Vec<Refusal>,
    on_step: OnStep<'_>,
) -> Vec<(&'a Source, Inspected)> {
    let folder = Folder::open(from.cache_dir.map_or_else(copy::default_dir, Path::to_owned));
    let mut inspected: Vec<(&Source, Inspected)> = Vec::new();
    let mut rightly_named = Vec::new();
    // A sign of life after each: hashing and copying large libraries takes its time.
    let inspect = |source: &Source, bytes: &mut Vec<u8>| inspect_one(source, &folder, from, bytes);
    let results = side_by_side::map(sources, inspect, || on_step(None));
    for (source, result) in sources.iter().zip(results) {
        match result {
            Ok(one) => inspected.push((source, one)),
            // The name in the configuration, not the manifest's: `required` is looked up by it.
            Err(refusal) => refused.push(refusal.of(&source.name)),
        }
    }
    for (nth, (source, one)) in inspected.iter().enumerate() {
        let earlier = inspected.iter().take(nth).map(|(source, one)| (*source, &one.manifest));
        match conflict::name(source, &one.manifest, sources, earlier) {
            Ok(()) => rightly_named.push(source.name.as_str()),
            Err(refusal) => refused.push(refusal),
        }
    }
    inspected.retain(|(source, _)| rightly_named.contains(&source.name.as_str()));
    inspected
}

pub(super) fn open_one(
    source: &Source,
    inspected: Inspected,
    on_step: OnStep<'_>,
) -> Result<Opened, Refusal> {
    let Inspected { manifest, copy, .. } = inspected;
    on_step(Some(LoadStep::before("open", &manifest.name, &manifest.version)));
    let root = open::open(&copy, &source.library).map_err(|refusal| refusal.of(&source.name))?;
    on_step(Some(LoadStep::before("describe", &manifest.name, &manifest.version)));
    let opened = Opened::describe(root, manifest, &source.library, source);
    on_step(None);
    opened
}

fn open_all(
    sources: &[Source],
    from: Origin<'_>,
    beside: &Beside,
    refused: &mut Vec<Refusal>,
    on_step: OnStep<'_>,
) -> Vec<(Source, Opened)> {
    let mut opened: Vec<(Source, Opened)> = Vec::new();
    for (source, inspected) in inspect_all(sources, from, refused, on_step) {
        let plugin = beside.judge(source, &inspected.manifest);
        let plugin = plugin.and_then(|()| open_one(source, inspected, on_step));
        on_step(None);
        let judged = plugin.and_then(|plugin| {
            // Nobody mounts it.
            if source.is_previous {
                return Ok(plugin);
            }
            let others = opened.iter().map(|(source, plugin)| (source, &*plugin.description));
            conflict::routes(source, &plugin.description, others).map(|()| plugin)
        });
        match judged {
            Ok(plugin) => opened.push((source.clone(), plugin)),
            Err(refusal) => refused.push(refusal),
        }
    }
    opened
}

/// Opens, describes and starts every plugin. Blocks: call it from a thread that serves nothing.
pub fn load_all(sources: &[Source], options: &LoadOptions, on_step: OnStep<'_>) -> PluginSet {
    let mut set = PluginSet::default();
    let mut opened = open_all(sources, options.origin(), &options.beside, &mut set.refused, on_step);
    if !options.is_alone {
        let own = opened.iter().map(|(source, plugin)| (source, &*plugin.description));
        let unmet = unmet(own, &options.beside);
        opened.retain(|(source, _)| !unmet.iter().any(|refusal| refusal.plugin == source.name));
        set.refused.extend(unmet);
    }
    let known = opened.iter().map(|(_, plugin)| &plugin.description).chain(options.beside.descriptions());
    let known = known.map(|description| Neighbour::new(description.clone())).collect();
    let neighbours = Arc::new(Neighbours::new(known, options.is_alone));
    start::all(&mut set, opened, neighbours, options, on_step);
    set
}

/// The refusals of those whom another one is missing for.
pub(super) fn unmet<'a>(
    own: impl Iterator<Item = (&'a Source, &'a Description)> + Clone,
    beside: &'a Beside,
) -> Vec<Refusal> {
    let elsewhere = beside.descriptions().map(|description| &**description);
    let unmet = neighbours::unmet(own.clone().map(|(_, description)| description), elsewhere);
    let refusal = |(source, _): (&Source, &Description)| {
        Some(neighbours::refusal(&source.name, &source.library, unmet.get(source.name.as_str())?))
    };
    own.filter_map(refusal).collect()
}

/// Opens and describes every plugin without starting any.
pub fn describe_all(
    sources: &[Source],
    cache_dir: Option<&PathBuf>,
    trust: &Trust,
    on_step: OnStep<'_>,
) -> (Vec<(Source, Arc<Description>)>, Vec<Refusal>) {
    let mut refused = Vec::new();
    // Whoever asks has judged majors, and judges needs.
    let from = Origin { cache_dir: cache_dir.map(PathBuf::as_path), trust, served: None };
    let opened = open_all(sources, from, &Beside::default(), &mut refused, on_step);
    (opened.into_iter().map(|(source, plugin)| (source, plugin.description)).collect(), refused)
}
