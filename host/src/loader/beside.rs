//! What other processes of this host have of the plugin set: other majors of the plugins that are loaded here, and, for
//! previous libraries, the current plugins that they may need.
//!
//! None of it is opened here. It is known as [`super::Unopened`] knows it: judged by bytes, described by another process.
//!
//! Invariant: what is elsewhere meets needs and can be reached as what is here; all of that goes through the broker anyway.

use super::description::Description;
use super::inspect::Manifest;
use super::previous;
use super::refusal::Refusal;
use super::set::Source;
use super::unopened::Unopened;
use std::path::PathBuf;
use std::sync::Arc;

/// One library that another process has.
#[derive(Debug)]
struct Other {
    generation: usize,
    library: PathBuf,
    manifest: Manifest,
    /// What it declares; `None` where it could not be asked.
    description: Option<Arc<Description>>,
}

/// What other processes have.
#[derive(Debug, Default)]
pub struct Beside {
    /// The generation of what is loaded here.
    generation: usize,
    others: Vec<Other>,
}

impl Beside {
    /// What is known beside the libraries of this generation.
    #[must_use]
    pub fn new(generation: usize, known: Vec<(usize, Unopened)>) -> Self {
        let of = |(generation, unopened): (usize, Unopened)| {
            unopened.into_known().map(move |(library, manifest, description)| {
                let description = description.map(Arc::new);
                Other { generation, library, manifest, description }
            })
        };
        Self { generation, others: known.into_iter().flat_map(of).collect() }
    }

    /// What the others declare, as far as it is known.
    pub(super) fn descriptions(&self) -> impl Iterator<Item = &Arc<Description>> + Clone {
        self.others.iter().filter_map(|other| other.description.as_ref())
    }

    /// Why a library may not be a previous one beside those of the generations before its own.
    pub(super) fn judge(&self, source: &Source, manifest: &Manifest) -> Result<(), Refusal> {
        let earlier = self.others.iter().filter(|other| other.generation < self.generation);
        previous::judge(
            &source.name,
            &source.library,
            manifest,
            earlier.map(|other| (other.library.as_path(), &other.manifest)),
        )
    }
}
