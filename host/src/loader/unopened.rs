//! Plugins that are known without being opened here: an API instance loads only those of which it runs something.
//!
//! ```text
//! Unopened::inspect ─▶ what was kept ─▶ the rest is declared by a child ─▶ Unopened::load: judged together, few opened
//! ```
//!
//! # Invariants
//! * Lock, signature and machine are judged of every library, opened or not, and of the bytes of the private copy that
//!   describes itself.
//! * Conflicts and needs are judged over all plugins together, in the order of the configuration, as where all are opened.
//!
//! # What it refuses
//! It starts no process: who describes libraries elsewhere is the caller's choice.

use super::description::Description;
use super::inspect::Manifest;
use super::neighbours::{Need, Neighbour, Neighbours};
use super::plugin::Opened;
use super::refusal::{Code, Refusal};
use super::set::{self, Inspected, LoadOptions, PluginSet, Source};
use super::step::{LoadStep, OnStep};
use super::{conflict, copy, kept, open, start};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A library that was inspected and judged, on its way to the process that describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vetted {
    /// Where it came from, for sentences.
    pub library: PathBuf,
    copy: PathBuf,
    manifest: Manifest,
}

impl Vetted {
    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Opens it in this process and answers what it declares, as it wrote it.
    ///
    /// # Errors
    /// The refusal of what cannot be opened, or describes itself wrongly.
    pub fn declare(&self, on_step: OnStep<'_>) -> Result<String, Refusal> {
        let (name, version) = (&self.manifest.name, &self.manifest.version);
        on_step(Some(LoadStep::before("open", name, version)));
        let declared = open::open(&self.copy, &self.library).map_err(|refusal| refusal.of(name));
        let declared = declared.and_then(|root| {
            on_step(Some(LoadStep::before("describe", name, version)));
            Opened::declared(root.plugin(), &self.manifest, &self.library)
        });
        on_step(None);
        declared.map(|(json, _)| json)
    }
}

/// A plugin set whose libraries may run here, and of which none was opened yet.
pub struct Unopened {
    all: Vec<(Source, Inspected)>,
    refused: Vec<Refusal>,
    /// What they declare, by name, as far as it is known.
    declared: BTreeMap<String, Description>,
    dir: PathBuf,
    /// For whom declarations are kept.
    keeper: String,
}

impl std::fmt::Debug for Unopened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unopened").field("declared", &self.declared.keys()).finish_non_exhaustive()
    }
}

impl Unopened {
    /// Inspects the libraries, and remembers what they declared to `keeper`. Blocks.
    pub fn inspect(sources: &[Source], keeper: &str, options: &LoadOptions, on_step: OnStep<'_>) -> Self {
        let mut refused = Vec::new();
        let all = set::inspect_all(sources, options.origin(), &mut refused, on_step);
        let all: Vec<(Source, Inspected)> =
            all.into_iter().map(|(source, one)| (source.clone(), one)).collect();
        let dir = options.cache_dir.clone().unwrap_or_else(copy::default_dir);
        let mut unopened = Self { all, refused, declared: BTreeMap::new(), dir, keeper: keeper.to_owned() };
        for (source, one) in &unopened.all {
            let json = kept::read(&unopened.dir, &one.digest, keeper);
            if let Some(Ok(description)) = json.map(|json| understood(&json, one, source)) {
                unopened.declared.insert(source.name.clone(), description);
            }
        }
        unopened
    }

    /// Those of which nothing is known yet.
    #[must_use]
    pub fn unknown(&self) -> Vec<Vetted> {
        let unknown = self.all.iter().filter(|(source, _)| !self.declared.contains_key(&source.name));
        let vetted = |(source, one): &(Source, Inspected)| Vetted {
            library: source.library.clone(),
            copy: one.copy.clone(),
            manifest: one.manifest.clone(),
        };
        unknown.map(vetted).collect()
    }

    /// Takes what they declared elsewhere, and keeps it for the next start. Blocks.
    pub fn learn(&mut self, declared: &BTreeMap<String, String>, refused: Vec<Refusal>) {
        self.refused.extend(refused);
        if !declared.is_empty() {
            kept::tidy(&self.dir);
        }
        for (source, one) in &self.all {
            let Some(json) = declared.get(&source.name) else { continue };
            match understood(json.as_bytes(), one, source) {
                Ok(description) => {
                    kept::write(&self.dir, &one.digest, &self.keeper, json.as_bytes());
                    self.declared.insert(source.name.clone(), description);
                }
                Err(refusal) => self.refused.push(refusal),
            }
        }
    }

    /// Whether one of them needs or wants a plugin that is not among them in that major.
    #[must_use]
    pub fn reaches_elsewhere(&self) -> bool {
        let is_here =
            |need: &Need| self.declared.get(&need.plugin).is_some_and(|other| other.major() == need.major);
        self.declared.values().flat_map(|one| &one.needs).any(|need| !is_here(need))
    }

    /// The libraries that may run, each with what it declares as far as that is known.
    pub(super) fn into_known(mut self) -> impl Iterator<Item = (PathBuf, Manifest, Option<Description>)> {
        self.all.into_iter().map(move |(source, one)| {
            let description = self.declared.remove(&source.name);
            (source.library, one.manifest, description)
        })
    }

    /// Judges the set, and opens and starts those plugins of which something `runs_here`. Blocks: call it from a thread that
    /// serves nothing.
    #[must_use]
    pub fn load(
        mut self,
        runs_here: impl Fn(&Source, &Description) -> bool,
        options: &LoadOptions,
        on_step: OnStep<'_>,
    ) -> PluginSet {
        let mut set = PluginSet { refused: self.refused, ..PluginSet::default() };
        let mut known: Vec<(Source, Inspected, Arc<Description>)> = Vec::new();
        for (source, one) in self.all {
            // Of the others it is told already why not.
            let Some(description) = self.declared.remove(&source.name) else { continue };
            let others = known.iter().map(|(source, _, description)| (source, &**description));
            match conflict::routes(&source, &description, others) {
                Ok(()) => known.push((source, one, Arc::new(description))),
                Err(refusal) => set.refused.push(refusal),
            }
        }
        let own = known.iter().map(|(source, _, description)| (source, &**description));
        let unmet = set::unmet(own, &options.beside);
        known.retain(|(source, ..)| !unmet.iter().any(|refusal| refusal.plugin == source.name));
        set.refused.extend(unmet);
        // Also of those that do not run here: a plugin that does may enqueue their tasks and call their routes.
        let neighbours =
            known.iter().map(|(_, _, description)| description).chain(options.beside.descriptions());
        let neighbours = neighbours.map(|description| Neighbour::new(description.clone())).collect();
        let neighbours = Arc::new(Neighbours::new(neighbours, options.is_alone));
        let mut opened = Vec::new();
        for (source, one, description) in known {
            if !runs_here(&source, &description) {
                set.declared.push((source, description));
                continue;
            }
            match set::open_one(&source, one, on_step) {
                Ok(plugin) => opened.push((source, plugin)),
                Err(refusal) => {
                    neighbours.lose(&description);
                    set.refused.push(refusal);
                }
            }
            on_step(None);
        }
        start::all(&mut set, opened, neighbours, options, on_step);
        set
    }
}

/// What a library declared, with the operator's word over it.
fn understood(json: &[u8], one: &Inspected, source: &Source) -> Result<Description, Refusal> {
    let Manifest { name, version, .. } = &one.manifest;
    let refuse = |fault: String| {
        Refusal::new(&source.library, Code::BadDescription, fault, "mend the plugin").of(&source.name)
    };
    let mut description = Description::parse(json).map_err(refuse)?;
    if description.name != *name || description.version != *version {
        return Err(refuse(format!("is {name} {version}, and what is kept of it is another plugin's")));
    }
    description.lay_over_all(source);
    Ok(description)
}
