//! A plugin's folder under `dev --plugin`: built by cargo, and built again when something in it was saved.
//!
//! Invariants:
//! - What is saved while a build runs is built after it.
//! - A build ends with `dev`, also with one that is killed: its guard ([`super::build_guard`]) sees to it.
//! - A build that fails changes nothing: cargo leaves the library that was there.
//! - What it built is offered until it has joined the hosts; from then on the library that a build leaves is noticed as any
//!   other is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::command::cargo_build::{self, Build, Fault};
use crate::command::output;
use crate::exit::Exit;
use crate::loader::inspect;

use super::source_tree::SourceTree;

/// Why `dev` cannot start: a sentence, and how it exits.
pub(super) type Trouble = (String, Exit);

/// What a build left.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) folder: PathBuf,
    /// As its manifest says.
    pub(super) plugin: String,
    pub(super) library: PathBuf,
}

/// A product for hosts that run.
pub(super) struct Offer {
    pub(super) product: Product,
    /// To be told whether it has joined them.
    pub(super) joined: oneshot::Sender<bool>,
}

/// Why there is no product.
enum Obstacle {
    /// The source, as cargo has said.
    Source,
    Other(Trouble),
}

/// A plugin's folder.
#[derive(Debug)]
pub(super) struct Project {
    folder: PathBuf,
    /// What was built, or tried to.
    built: SourceTree,
    /// The plugin, once it is one of the hosts'.
    joined: Option<String>,
}

impl Project {
    pub(super) fn open(folder: &Path) -> Result<Self, Trouble> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            let fault = format!(
                "{} is not there: --plugin takes the folder of a plugin's source",
                manifest.display()
            );
            return Err((fault, Exit::Usage));
        }
        let cannot = |error| (format!("{} cannot be read ({error})", folder.display()), Exit::Usage);
        let folder = folder.canonicalize().map_err(cannot)?;
        Ok(Self { folder, built: SourceTree::default(), joined: None })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it has never been built.
    pub(super) fn is_unbuilt(&self) -> bool {
        self.joined.is_none()
    }

    /// Builds it as it is, before any host runs. `None` where its source is at fault, which was told and may be mended.
    pub(super) async fn first(&mut self) -> Result<Option<Product>, Trouble> {
        self.built = look(&self.folder).await;
        match product(&self.folder).await {
            Ok(product) => {
                self.joined = Some(product.plugin.clone());
                Ok(Some(product))
            }
            Err(Obstacle::Source) => {
                self.tell_waiting();
                Ok(None)
            }
            Err(Obstacle::Other(trouble)) => Err(trouble),
        }
    }

    /// Waits until it builds, before any host runs.
    pub(super) async fn mended(&mut self, every: Duration) -> Product {
        loop {
            if let Some(product) = self.again(every).await {
                self.joined = Some(product.plugin.clone());
                return product;
            }
        }
    }

    /// Builds it whenever something was saved, and offers what came of it until it has joined. Never ends.
    pub(super) async fn keep(mut self, every: Duration, offers: mpsc::Sender<Offer>) {
        while self.joined.is_none() {
            let Some(product) = self.again(every).await else { continue };
            let plugin = product.plugin.clone();
            let (joined, answer) = oneshot::channel();
            // Where nobody is left to take it, `dev` ends.
            let offered = offers.send(Offer { product, joined }).await;
            if offered.is_ok() && answer.await == Ok(true) {
                self.joined = Some(plugin);
            }
        }
        drop(offers);
        loop {
            self.saved(every).await;
            let name = self.name();
            match library(&self.folder).await {
                Ok(_) => {}
                Err(Fault::Source) => output::trouble(&format!(
                    "{name} does not build: the version from before goes on serving"
                )),
                Err(Fault::NoCargo) => output::trouble(&format!(
                    "{name} cannot be built without it: the version from before goes on serving"
                )),
                Err(Fault::Other(sentence)) => output::trouble(&sentence),
            }
        }
    }

    /// Builds it when something was saved; says why it does not build.
    async fn again(&mut self, every: Duration) -> Option<Product> {
        self.saved(every).await;
        match product(&self.folder).await {
            Ok(product) => return Some(product),
            Err(Obstacle::Source) => self.tell_waiting(),
            Err(Obstacle::Other((sentence, _))) => output::trouble(&sentence),
        }
        None
    }

    async fn saved(&mut self, every: Duration) {
        self.built = changed(&self.folder, self.built, every).await;
        output::trouble(&format!("{} was saved: building", self.name()));
    }

    fn name(&self) -> String {
        self.joined.clone().unwrap_or_else(|| self.folder.display().to_string())
    }

    fn tell_waiting(&self) {
        output::trouble(&format!(
            "{} does not build: it is built again when you save something in it",
            self.folder.display()
        ));
    }
}

/// Builds a folder; a library that no host would load is none.
async fn product(folder: &Path) -> Result<Product, Obstacle> {
    let library = library(folder).await.map_err(|fault| match fault {
        Fault::Source => Obstacle::Source,
        Fault::NoCargo => {
            Obstacle::Other((format!("{} cannot be built without it", folder.display()), Exit::Unavailable))
        }
        Fault::Other(sentence) => Obstacle::Other((sentence, Exit::Unexpected)),
    })?;
    let inspected = inspect::file(&library)
        .and_then(|(inspection, _)| inspect::verdict(&library, &inspection).map(|()| inspection));
    match inspected {
        Ok(inspection) => {
            Ok(Product { folder: folder.to_owned(), plugin: inspection.manifest.name, library })
        }
        Err(refusal) => Err(Obstacle::Other((output::refusal_text(&refusal), Exit::PluginRefused))),
    }
}

async fn library(folder: &Path) -> Result<PathBuf, Fault> {
    Build::start(cargo_build::guarded(folder), folder)?.library().await
}

/// Waits until the folder is another than `known`, and nobody is saving in it any more.
async fn changed(folder: &Path, known: SourceTree, every: Duration) -> SourceTree {
    let mut seen = known;
    loop {
        sleep(every).await;
        let now = look(folder).await;
        if now == seen && now != known {
            return now;
        }
        seen = now;
    }
}

async fn look(folder: &Path) -> SourceTree {
    let folder = folder.to_owned();
    // It does not panic; where the runtime ends, whoever waits here ends too.
    tokio::task::spawn_blocking(move || SourceTree::of(&folder)).await.unwrap_or_default()
}
