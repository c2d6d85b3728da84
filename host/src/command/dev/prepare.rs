//! What comes before the first process of `dev`: the folders of `--plugin` are built once, and the settings read.
//!
//! Invariants: a folder that does not build holds up nothing that can be had without it; what it refuses is told here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::output;
use crate::config::{self, Errors, Settings, Sources};
use crate::exit::Exit;

use super::built::Built;
use super::project::{Project, Trouble};

/// How often a folder is looked at while there are no settings that say it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Builds each folder once, and reads the settings.
pub(super) async fn prepare(
    folders: &[PathBuf],
    sources: &Sources,
    built: &mut Built,
) -> Result<(Vec<Project>, Settings), Exit> {
    let mut projects = Vec::new();
    for folder in folders {
        projects.push(Project::open(folder).map_err(told)?);
    }
    for project in &mut projects {
        if let Some(product) = project.first().await.map_err(told)? {
            built.admit(product).map_err(told)?;
        }
    }
    let settings = match config::load(sources) {
        Ok(settings) => spare(settings, &projects, sources, built)?,
        Err(errors) if projects.iter().any(Project::is_unbuilt) => {
            mistakes(&errors);
            output::trouble(
                "what does not build may be what is missing here: nothing is started before it builds",
            );
            for project in projects.iter_mut().filter(|project| project.is_unbuilt()) {
                built.admit(project.mended(LOOK_EVERY).await).map_err(told)?;
            }
            config::load(sources).map_err(|errors| mistakes(&errors))?
        }
        Err(errors) => return Err(mistakes(&errors)),
    };
    Ok((projects, settings))
}

/// A configuration may name the library that a folder is to build: hosts start without it, where it is not there yet.
fn spare(
    settings: Settings,
    projects: &[Project],
    sources: &Sources,
    built: &mut Built,
) -> Result<Settings, Exit> {
    let Some(unbuilt) = projects.iter().find(|project| project.is_unbuilt()) else { return Ok(settings) };
    let mut spared = BTreeSet::new();
    for (name, plugin) in settings.plugins.iter().filter(|(_, plugin)| plugin.required) {
        if !plugin.library.exists() {
            output::trouble(&format!(
                "the hosts start without {name}: {} is not there, and {} does not build yet",
                plugin.library.display(),
                unbuilt.folder().display()
            ));
            spared.insert(name.clone());
        }
    }
    if spared.is_empty() {
        return Ok(settings);
    }
    built.spare(spared).map_err(told)?;
    config::load(sources).map_err(|errors| mistakes(&errors))
}

fn told((fault, exit): Trouble) -> Exit {
    output::trouble(&fault);
    exit
}

fn mistakes(errors: &Errors) -> Exit {
    output::trouble_as_is(&errors.render(output::trouble_styled()));
    Exit::Config
}
