//! Loads a plugin set: one library after the other, then what they say of each other.

use super::description::Description;
use super::inspect;
use super::lending::Lending;
use super::plugin::{InitOptions, Opened, Plugin};
use super::refusal::{Code, Refusal};
use super::services::Services;
use super::{copy, open};
use crate::crash::Board;
use std::collections::HashMap;
use std::path::PathBuf;
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
}

/// What loading needs besides the libraries.
#[derive(Clone)]
pub struct LoadOptions {
    /// Where private copies go.
    pub cache_dir: Option<PathBuf>,
    /// The log filter, as in `RUST_LOG`.
    pub log_filter: String,
    /// Threads of each plugin's runtime.
    pub threads: u32,
    /// What the host does for plugins.
    pub services: Arc<dyn Services>,
    /// The host's runtime.
    pub runtime: tokio::runtime::Handle,
    /// For crash reports.
    pub board: Option<Board>,
    /// The threads that plugins may be lent.
    pub lending: Arc<Lending>,
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions").field("cache_dir", &self.cache_dir).finish_non_exhaustive()
    }
}

/// Called before each step that runs plugin code: plugin, version, step (`open`, `describe`, `init`), and with
/// `None` when none runs any more.
pub type OnStep<'a> = &'a mut dyn FnMut(Option<(&str, &str, &'static str)>);

/// What was loaded and what was not.
#[derive(Debug, Default)]
pub struct PluginSet {
    /// Started plugins with their source.
    pub plugins: Vec<(Source, Arc<Plugin>)>,
    /// The others.
    pub refused: Vec<Refusal>,
}

fn open_one(source: &Source, cache_dir: Option<&PathBuf>, on_step: OnStep<'_>) -> Result<Opened, Refusal> {
    let (inspection, bytes) = inspect::file(&source.library).map_err(|refusal| refusal.of(&source.name))?;
    // The name in the configuration, not the manifest's: `required` is looked up by it.
    inspect::verdict(&source.library, &inspection).map_err(|refusal| refusal.of(&source.name))?;
    let manifest = inspection.manifest;
    if manifest.name != source.name {
        let fault = format!("is the plugin `{}`, but is configured as `{}`", manifest.name, source.name);
        let remedy = format!("write [plugins.{}] or point `library` at the right file", manifest.name);
        return Err(Refusal::new(&source.library, Code::NameMismatch, fault, remedy).of(&source.name));
    }
    let dir = cache_dir.cloned().unwrap_or_else(copy::default_dir);
    let copy =
        copy::private(&dir, &source.library, &inspection.sha256, &bytes).map_err(|r| r.of(&source.name))?;
    drop(bytes);
    on_step(Some((&manifest.name, &manifest.version, "open")));
    let root = open::open(&copy, &source.library).map_err(|refusal| refusal.of(&source.name))?;
    on_step(Some((&manifest.name, &manifest.version, "describe")));
    let opened = Opened::describe(root, manifest, &source.library);
    on_step(None);
    opened
}

/// What two plugins may not both have. Keeps the first and refuses the second, naming both.
fn conflicts(opened: Vec<(Source, Opened)>, refused: &mut Vec<Refusal>) -> Vec<(Source, Opened)> {
    let mut names: HashMap<(String, Option<u32>), PathBuf> = HashMap::new();
    let mut routes: HashMap<String, String> = HashMap::new();
    let mut kept = Vec::new();
    for (source, plugin) in opened {
        let name = &plugin.manifest.name;
        let key = (name.clone(), plugin.manifest.major());
        if let Some(other) = names.get(&key) {
            let fault = format!("is the plugin `{name}` of a major that {} is already", other.display());
            let refusal = Refusal::new(&source.library, Code::Duplicate, fault, "keep one of the two");
            refused.push(refusal.of(&source.name));
            continue;
        }
        match own_routes(&source, &plugin.description, &routes) {
            Ok(own) => {
                routes.extend(own);
                names.insert(key, source.library.clone());
                kept.push((source, plugin));
            }
            Err(refusal) => refused.push(refusal),
        }
    }
    kept
}

/// The plugin's routes by method and shape, or the conflict. Templates that differ only in their parameters' names
/// match the same paths.
fn own_routes(
    source: &Source,
    description: &Description,
    others: &HashMap<String, String>,
) -> Result<HashMap<String, String>, Refusal> {
    let mut own = HashMap::new();
    for route in &description.routes {
        let full = format!("{}{}", source.prefix.trim_end_matches('/'), route.path);
        let shape: Vec<_> =
            full.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
        let key = format!("{} {}", route.method, shape.join("/"));
        let other = others.get(&key).map(String::as_str).or_else(|| own.get(&key).map(String::as_str));
        if let Some(other) = other {
            let fault = format!("serves {} {full}, which the plugin `{other}` serves already", route.method);
            let remedy = "give one of them another `prefix`";
            return Err(Refusal::new(&source.library, Code::RouteConflict, fault, remedy).of(&source.name));
        }
        own.insert(key, description.name.clone());
    }
    Ok(own)
}

fn open_all(
    sources: &[Source],
    cache_dir: Option<&PathBuf>,
    refused: &mut Vec<Refusal>,
    on_step: OnStep<'_>,
) -> Vec<(Source, Opened)> {
    let mut opened = Vec::new();
    for source in sources {
        match open_one(source, cache_dir, on_step) {
            Ok(plugin) => opened.push((source.clone(), plugin)),
            Err(refusal) => refused.push(refusal),
        }
        on_step(None);
    }
    conflicts(opened, refused)
}

/// Opens, describes and starts every plugin. Blocks: call it from a thread that serves nothing.
pub fn load_all(sources: &[Source], options: &LoadOptions, on_step: OnStep<'_>) -> PluginSet {
    let mut set = PluginSet::default();
    let opened = open_all(sources, options.cache_dir.as_ref(), &mut set.refused, on_step);
    for (source, plugin) in opened {
        on_step(Some((&plugin.manifest.name.clone(), &plugin.manifest.version.clone(), "init")));
        let started = plugin.init(&InitOptions {
            // Its place among those that start, which is how the supervisor finds its name after a crash.
            index: u32::try_from(set.plugins.len() + 1).unwrap_or(0),
            config: &source.config,
            log_filter: &options.log_filter,
            threads: options.threads,
            services: options.services.clone(),
            runtime: options.runtime.clone(),
            board: options.board,
            lending: options.lending.clone(),
        });
        on_step(None);
        match started {
            Ok(plugin) => set.plugins.push((source, Arc::new(plugin))),
            Err(refusal) => set.refused.push(refusal),
        }
    }
    set
}

/// Opens and describes every plugin without starting any.
pub fn describe_all(
    sources: &[Source],
    cache_dir: Option<&PathBuf>,
    on_step: OnStep<'_>,
) -> (Vec<(Source, Arc<Description>)>, Vec<Refusal>) {
    let mut refused = Vec::new();
    let opened = open_all(sources, cache_dir, &mut refused, on_step);
    (opened.into_iter().map(|(source, plugin)| (source, plugin.description)).collect(), refused)
}
