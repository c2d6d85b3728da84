//! What a child knows of the libraries that other processes of its host have: other majors of its plugins, and, in a process of
//! previous libraries, the current plugins that those may need.
//!
//! They are described as an API's libraries are that nothing runs of there, by a process that may die, and kept. What cannot be
//! described is not known here, and told by the process that is to load it.

use super::child::{Context, Failure};
use super::options;
use crate::describer::Described;
use crate::exit::Exit;
use crate::loader::{Beside, LoadOptions, Source, Unopened};
use std::sync::Arc;

impl Context {
    /// Learns it.
    pub(super) async fn look_elsewhere(&self, options: &LoadOptions) -> Result<Arc<Beside>, Failure> {
        let part = &self.settings.part;
        let mut known = Vec::new();
        for generation in &part.elsewhere {
            let sources = options::sources_elsewhere(generation);
            known.push((generation.number, self.learn(sources, options).await?));
        }
        Ok(Arc::new(Beside::new(part.generation, known)))
    }

    /// What these libraries declare, as far as they do.
    async fn learn(&self, sources: Vec<Source>, options: &LoadOptions) -> Result<Unopened, Failure> {
        let (keeper, options) = (self.instance.as_str().to_owned(), options.clone());
        let mut tell = self.teller(&[]);
        let mut unopened =
            blocking(move || Unopened::inspect(&sources, &keeper, &options, &mut tell)).await?;
        let unknown = unopened.unknown();
        if unknown.is_empty() {
            return Ok(unopened);
        }
        let Described { declared, refused, unexpected, .. } = self.wait_for(unknown).await;
        for fault in refused.iter().map(ToString::to_string).chain(unexpected) {
            tracing::warn!(fault, "a library that this process does not load could not be described");
        }
        blocking(move || {
            unopened.learn(&declared, refused);
            unopened
        })
        .await
    }
}

/// Reading and hashing block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| (Exit::Unexpected, format!("loading ended early: {error}")))
}
