//! An API's child loads only plugins of which a route runs inline; of the others it knows what they declare.
//!
//! Who declares it is a process that may die ([`crate::describer`]), asked once for each library in a supervisor's life: so no
//! code of those plugins runs beside the HTTP edge.
//!
//! Invariant: a plugin that dies or hangs while it declares is refused by the codes that it would get here, and the others
//! are not.

use super::child::{Context, Failure, report};
use super::options;
use crate::describer;
use crate::edge::placement_of;
use crate::exit::Exit;
use crate::loader::{Description, Placement, PluginSet, Services, Source, Unopened};
use crate::process::control::ToSupervisor;
use std::sync::Arc;
use std::time::Duration;

/// How often the supervisor is told that others are waited for. Shorter than its patience with a silent start.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

fn early(error: tokio::task::JoinError) -> Failure {
    (Exit::Unexpected, format!("loading ended early: {error}"))
}

impl Context {
    /// Loads the plugins of which something runs in an API instance, and learns what the others declare.
    pub(super) async fn load_what_runs_here(
        &self,
        services: Arc<dyn Services>,
    ) -> Result<PluginSet, Failure> {
        let (sources, mut options) = (self.sources(), self.load_options(services));
        let mut tell = self.teller(&sources);
        let (keeper, inspecting) = (self.instance.as_str().to_owned(), options.clone());
        // Reading and hashing block.
        let inspecting = tokio::task::spawn_blocking(move || {
            let unopened = Unopened::inspect(&sources, &keeper, &inspecting, &mut tell);
            (unopened, tell)
        });
        let (mut unopened, mut tell) = inspecting.await.map_err(early)?;
        let unknown = unopened.unknown();
        let mut learnt = describer::Described::default();
        if !unknown.is_empty() {
            learnt = self.wait_for(unknown).await;
        }
        if let Some(fault) = learnt.unexpected {
            return Err((Exit::Unexpected, fault));
        }
        let learning = tokio::task::spawn_blocking(move || {
            unopened.learn(&learnt.declared, learnt.refused);
            unopened
        });
        let unopened = learning.await.map_err(early)?;
        // Previous libraries are no business of an API's, unless somebody here reaches for one.
        if unopened.reaches_elsewhere() {
            options.beside = self.look_elsewhere(&options).await?;
        }
        let settings = self.settings.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let runs_here = |source: &Source, description: &Description| {
                let (placement, routes) = options::placements(&settings, &source.name);
                let mut placed =
                    description.routes.iter().map(|route| placement_of(route, placement, &routes));
                placed.any(|placement| placement == Placement::Inline)
            };
            unopened.load(runs_here, &options, &mut tell)
        });
        let set = loading.await.map_err(early)?;
        self.settle(&set)?;
        Ok(set)
    }

    pub(super) async fn wait_for(&self, unknown: Vec<crate::loader::Vetted>) -> describer::Described {
        let limit = Duration::from_millis(self.settings.loading.timeout_ms);
        let mut declaring = std::pin::pin!(describer::declare(unknown, limit));
        loop {
            tokio::select! {
                described = &mut declaring => return described,
                // The limits of the others are kept by the describer.
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    report(&self.outbox, &ToSupervisor::Phase { entered: None });
                }
            }
        }
    }
}
