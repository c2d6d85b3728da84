//! A plugin's folder under `dev --plugin`: built by cargo, and built again when something in it was saved.
//!
//! Invariants:
//! - What is saved while a build runs is built after it.
//! - A build ends with `dev`: cargo leads a process group of its own, which is killed with it.
//! - A build that fails changes nothing: cargo leaves the library that was there.
//!
//! What it refuses to do: it takes nothing over. The library that a build leaves is noticed as any other is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::sleep;

use crate::command::cargo_build::{self, Build, Fault};
use crate::command::output;
use crate::config::Assignment;
use crate::exit::Exit;
use crate::loader::inspect;

use super::source_tree::SourceTree;

/// How often the folder is looked at before the settings say it.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a project cannot be had: a sentence, and how `dev` exits.
pub(super) type Trouble = (String, Exit);

/// A plugin's folder that has been built.
#[derive(Debug)]
pub(super) struct Project {
    folder: PathBuf,
    /// As its manifest says.
    plugin: String,
    library: PathBuf,
    /// What the library was built from.
    built: SourceTree,
}

impl Project {
    /// Builds it, again and again until it builds: whoever starts `dev` may be about to mend it.
    pub(super) async fn build(folder: &Path) -> Result<Self, Trouble> {
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
        loop {
            let built = look(&folder).await;
            match library(&folder).await {
                Ok(library) => {
                    let (inspection, _) = inspect::file(&library)
                        .map_err(|refusal| (output::shown(&refusal.to_string()), Exit::PluginRefused))?;
                    return Ok(Self { plugin: inspection.manifest.name, folder, library, built });
                }
                Err(Fault::Other(sentence)) => return Err((sentence, Exit::Unexpected)),
                Err(Fault::Source) => {
                    output::trouble(&format!(
                        "{} does not build: it is built again when you save something in it",
                        folder.display()
                    ));
                    changed(&folder, built, FIRST_LOOK_EVERY).await;
                }
            }
        }
    }

    /// What the settings must say for it.
    pub(super) fn assignment(&self) -> Result<Assignment, Trouble> {
        let library = toml::Value::String(self.library.display().to_string());
        format!("plugins.{}.library={library}", self.plugin)
            .parse()
            .map_err(|fault: &str| (format!("{}: {fault}", self.folder.display()), Exit::Unexpected))
    }

    /// Builds it again whenever something was saved. Never ends.
    pub(super) async fn keep(mut self, every: Duration) {
        loop {
            self.built = changed(&self.folder, self.built, every).await;
            output::trouble(&format!("{} was saved: building", self.plugin));
            match library(&self.folder).await {
                Ok(_) => {}
                Err(Fault::Source) => output::trouble(&format!(
                    "{} does not build: the version from before goes on serving",
                    self.plugin
                )),
                Err(Fault::Other(sentence)) => output::trouble(&sentence),
            }
        }
    }
}

async fn library(folder: &Path) -> Result<PathBuf, Fault> {
    let mut command = cargo_build::command(&[], folder);
    command.process_group(0);
    let build = Build::start(command, folder)?;
    let group = Group(build.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw));
    let built = build.library().await;
    group.disarm();
    built
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

/// Cargo and the compilers that it started; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    /// The build is over: the number may be another's by now.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It fails where none of them is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
