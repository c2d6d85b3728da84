//! Starts what was opened: those first that others need, and nobody without what it needs.
//!
//! # Invariants
//! * A plugin whose `init` fails is nobody's neighbour: what others enqueue for it or call of it is refused, as of one that
//!   is not configured.
//! * Where plugins need each other in a circle one has started before another fails. It cannot be unloaded: the set is
//!   [`PluginSet::stranded`], and whoever loads begins anew in another process, without the one that failed.

use super::description::Description;
use super::inspect::Manifest;
use super::neighbours::{self, Neighbours};
use super::plugin::{InitOptions, Opened};
use super::refusal::{Code, Refusal};
use super::set::{LoadOptions, PluginSet, Source};
use super::step::{LoadStep, OnStep};
use std::sync::Arc;

/// Starts them, and tells of those that do not start.
pub(super) fn all(
    set: &mut PluginSet,
    opened: Vec<(Source, Opened)>,
    neighbours: Arc<Neighbours>,
    options: &LoadOptions,
    on_step: OnStep<'_>,
) {
    let mut waiting = opened;
    while !waiting.is_empty() {
        let (source, plugin) = waiting.remove(first(&waiting));
        let description = plugin.description.clone();
        let own = waiting.iter().map(|(_, plugin)| &*plugin.description).chain([&*description]);
        if let Some(refusal) = without_what_it_needs(set, own, &source, options) {
            neighbours.lose(&description);
            set.refused.push(refusal);
            continue;
        }
        // How the supervisor finds its name after a crash.
        set.begun += 1;
        let index = set.begun;
        let Manifest { name, version, .. } = &plugin.manifest;
        on_step(Some(LoadStep { index: Some(index), ..LoadStep::before("init", name, version) }));
        let started = plugin.init(&InitOptions {
            index,
            config: &source.config,
            neighbours: neighbours.clone(),
            log_filter: &options.log_filter,
            threads: source.threads.unwrap_or(options.threads),
            services: options.services.clone(),
            runtime: options.runtime.clone(),
            board: options.board,
            lending: options.lending.clone(),
        });
        on_step(None);
        match started {
            Ok(plugin) => set.plugins.push((source, Arc::new(plugin))),
            Err(refusal) => {
                neighbours.lose(&description);
                set.refused.push(refusal);
            }
        }
    }
    if !options.is_alone {
        let unmet = neighbours::unmet(set.descriptions().map(|(_, one)| &**one), beside(options));
        let stranded = unmet.iter().next().map(|(plugin, fault)| format!("{plugin} {fault}"));
        set.stranded = stranded;
    }
}

/// The place of the first one that needs none of the others, or of the first.
fn first(waiting: &[(Source, Opened)]) -> usize {
    let is_free = |one: &Description| {
        let mut needs = one.needs.iter().filter(|need| !need.optional);
        let is_it = |need: &neighbours::Need, other: &Description| {
            other.name == need.plugin && other.name != one.name && other.major() == need.major
        };
        needs.all(|need| !waiting.iter().any(|(_, other)| is_it(need, &other.description)))
    };
    waiting.iter().position(|(_, plugin)| is_free(&plugin.description)).unwrap_or(0)
}

fn beside(options: &LoadOptions) -> impl Iterator<Item = &Description> {
    options.beside.descriptions().map(|description| &**description)
}

/// The refusal of a plugin that needs one which did not start; `own` are those that are still to start, and itself.
fn without_what_it_needs<'a>(
    set: &'a PluginSet,
    own: impl Iterator<Item = &'a Description>,
    source: &Source,
    options: &'a LoadOptions,
) -> Option<Refusal> {
    if options.is_alone {
        return None;
    }
    let there = own.chain(set.descriptions().map(|(_, one)| &**one));
    let unmet = neighbours::unmet(there, beside(options));
    let fault = unmet.get(source.name.as_str())?;
    let remedy = "mend that one, which is refused too, or remove this one";
    Some(Refusal::new(&source.library, Code::NeedsPlugin, fault.clone(), remedy).of(&source.name))
}
