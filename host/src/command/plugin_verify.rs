//! `cardcage plugin verify`: holds the plugin set against its lock and its signatures.
//!
//! Files that are named are held against the same instead of the set, as whatever plugins they say they are: what is
//! asked before a file is put where hosts load it from.
//!
//! Invariants: no plugin code runs; every mismatch is told, and not only the first; exit 70 where a host would refuse a
//! plugin, required or not.
//!
//! What it refuses to do: a set without plugins is not found good.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::inspect::Refused;
use super::output;
use super::plugin_lock::beside_config;
use super::session::{settings, settings_with_plugins};
use crate::cli::VerifyArgs;
use crate::config::{PluginSettings, Settings, Signatures};
use crate::exit::Exit;
use crate::loader::{Inspection, Manifest, Refusal, Trust, inspect, judge_previous};
use crate::signature::Verified;

/// The answer for programs.
#[derive(Serialize)]
struct Answer {
    lock: Option<PathBuf>,
    signatures: Signatures,
    plugins: Vec<Plugin>,
    /// What is locked and not configured.
    unused: Vec<String>,
    /// A lock that lies beside the configuration and was not looked at.
    ignored_lock: Option<PathBuf>,
    /// Of files that were named, instead of the set.
    #[serde(skip)]
    of_files: bool,
}

/// What was found of one plugin.
#[derive(Serialize)]
struct Plugin {
    name: String,
    is_previous: bool,
    library: PathBuf,
    version: Option<String>,
    sha256: Option<String>,
    signed: Option<Verified>,
    mismatches: Vec<Refused>,
    warnings: Vec<Refused>,
}

/// Verifies the set.
#[must_use]
pub fn run(args: VerifyArgs) -> Exit {
    let VerifyArgs { libraries: files, lock, json, configuration } = args;
    let beside = beside_config(configuration.files.first().map(PathBuf::as_path));
    let settings = if files.is_empty() {
        settings_with_plugins(configuration, "verify")
    } else {
        settings(configuration)
    };
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    settings.trust.require_lock = lock.or(settings.trust.require_lock);
    let trust = Trust::read(&settings.trust);
    let plugins: Vec<Plugin> = if files.is_empty() {
        settings.plugins.iter().flat_map(|(name, plugin)| verify_all(&trust, name, plugin)).collect()
    } else {
        files.iter().map(|file| verify_one(&trust, file)).collect()
    };
    let mismatches = plugins.iter().map(|plugin| plugin.mismatches.len()).sum::<usize>();
    let answer = Answer {
        lock: settings.trust.require_lock.clone(),
        signatures: settings.trust.signatures,
        unused: if files.is_empty() { unused(&trust, &settings) } else { Vec::new() },
        ignored_lock: Some(beside).filter(|file| settings.trust.require_lock.is_none() && file.exists()),
        of_files: !files.is_empty(),
        plugins,
    };
    if json {
        output::json(&answer);
    } else {
        output::result(&answer.text(&settings));
    }
    for told in answer.plugins.iter().flat_map(|plugin| &plugin.mismatches) {
        output::trouble(&output::shown(&told.message));
    }
    if mismatches == 0 { Exit::Success } else { Exit::PluginRefused }
}

/// The current library and the previous ones.
fn verify_all(trust: &Trust, name: &str, settings: &PluginSettings) -> Vec<Plugin> {
    let (mut plugins, mut manifests) = (Vec::new(), Vec::new());
    for (generation, library) in settings.libraries().enumerate() {
        let (mut plugin, inspection) = verify(trust, name, library);
        plugin.is_previous = generation > 0;
        if let Some(inspection) = inspection {
            plugin.mismatches.extend(unfit(library, name, &inspection, generation > 0, &manifests));
            manifests.push((library.as_path(), inspection.manifest));
        }
        plugins.push(plugin);
    }
    plugins
}

/// A library by itself, which goes by its own name.
fn verify_one(trust: &Trust, library: &Path) -> Plugin {
    let (mut plugin, inspection) = verify(trust, "-", library);
    if let Some(inspection) = inspection {
        plugin.mismatches.extend(unfit(library, &inspection.manifest.name, &inspection, false, &[]));
        plugin.name = inspection.manifest.name;
    }
    plugin
}

fn verify(trust: &Trust, name: &str, library: &Path) -> (Plugin, Option<Inspection>) {
    let mut plugin = Plugin {
        name: name.to_owned(),
        is_previous: false,
        library: library.to_owned(),
        version: None,
        sha256: None,
        signed: None,
        mismatches: Vec::new(),
        warnings: Vec::new(),
    };
    let told = |refusals: &[Refusal]| refusals.iter().map(Refused::from).collect::<Vec<_>>();
    let (inspection, bytes) = match inspect::file(&plugin.library) {
        Ok(inspected) => inspected,
        Err(refusal) => {
            plugin.mismatches = told(&[refusal]);
            return (plugin, None);
        }
    };
    let judgement = trust.judge(&plugin.library, &inspection, &bytes);
    plugin.mismatches = told(&judgement.refusals);
    plugin.warnings = told(&judgement.warnings);
    plugin.signed = judgement.signed;
    plugin.version = Some(inspection.manifest.version.clone());
    plugin.sha256 = Some(inspect::sha256(&bytes));
    (plugin, Some(inspection))
}

/// What else a host would say before it opens the library; `earlier` are the plugin's libraries before it.
fn unfit(
    library: &Path,
    name: &str,
    inspection: &Inspection,
    is_previous: bool,
    earlier: &[(&Path, Manifest)],
) -> Vec<Refused> {
    let misplaced = match is_previous {
        true => {
            let earlier = earlier.iter().map(|(library, manifest)| (*library, manifest));
            judge_previous(name, library, &inspection.manifest, earlier).err()
        }
        false => (inspection.manifest.name != name).then(|| inspect::misnamed(library, name, inspection)),
    };
    let refusals = inspect::verdict(library, inspection).err().into_iter().chain(misplaced);
    refusals.map(|refusal| Refused::from(&refusal)).collect()
}

fn unused(trust: &Trust, settings: &Settings) -> Vec<String> {
    let Some((_, Ok(lock))) = trust.lock() else { return Vec::new() };
    let idle = lock.plugins.iter().filter(|locked| !settings.plugins.contains_key(&locked.name));
    idle.map(|locked| format!("{} {}", locked.name, locked.version)).collect()
}

impl Answer {
    fn text(&self, settings: &Settings) -> String {
        let mut table = output::table();
        let mut header = vec!["plugin", "version", "sha256", "signed by", "verdict"];
        // What cannot be read has no name but its file's.
        if self.of_files {
            header.insert(0, "file");
        }
        table.set_header(header);
        for plugin in &self.plugins {
            let verdict = match (plugin.mismatches.as_slice(), plugin.warnings.as_slice()) {
                ([], []) => "good".to_owned(),
                ([], [warning, ..]) => format!("warning ({})", warning.code),
                ([first, ..], _) => format!("refused ({})", first.code),
            };
            let signer = match (&plugin.signed, self.signatures) {
                (Some(signed), _) => signed.key.to_string(),
                (None, Signatures::Off) => "not asked".to_owned(),
                (None, _) => "nobody".to_owned(),
            };
            let hash = plugin.sha256.as_deref().map_or("-".to_owned(), |hash| format!("{hash:.12}…"));
            let version = plugin.version.as_deref().unwrap_or("-");
            let name = match plugin.is_previous {
                true => format!("{} (previous)", plugin.name),
                false => plugin.name.clone(),
            };
            let mut row = vec![name, version.to_owned(), hash, signer, verdict];
            if self.of_files {
                row.insert(0, plugin.library.display().to_string());
            }
            table.add_row(row.iter().map(|cell| output::shown(cell)));
        }
        let mut text = table.trim_fmt();
        text.push_str(&match (&self.lock, &self.ignored_lock) {
            (Some(lock), _) => format!("\nlock: {}", lock.display()),
            (None, Some(ignored)) => format!(
                "\nlock: {0} is there and was not looked at, for `plugins.require_lock` is unset; --lock {0} does",
                ignored.display()
            ),
            (None, None) => "\nlock: none is required; `cardcage plugin lock` writes one".to_owned(),
        });
        if settings.trust.signatures == Signatures::Off {
            text.push_str("\nsignatures: not asked for (`plugins.signatures`)");
        }
        for warning in self.plugins.iter().flat_map(|plugin| &plugin.warnings) {
            text.push_str(&format!("\nwarning: {}", output::shown(&warning.message)));
        }
        for unused in &self.unused {
            text.push_str(&format!("\nnote: {} is locked and not configured", output::shown(unused)));
        }
        text
    }
}
