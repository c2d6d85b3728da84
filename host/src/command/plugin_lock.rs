//! `cardcage plugin lock`: writes down which files the plugin set is, by hash.
//!
//! Invariants: no plugin code runs; where one library would be refused, nothing is written and all refusals are told
//! (exit 70), with `--json` as `{"refused": [{…}]}` too; what is no lock is never replaced
//! (exit 2, `lock_file.rs`). Entries for other targets of configured plugins are kept, so that machines of different kinds can
//! share one lock.
//!
//! What it refuses to do: it does not put an unsigned library into a lock where signatures are required, and it writes no lock of a
//! set without plugins.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::inspect::Refused;
use super::lock_file::LockFile;
use super::output;
use super::session::settings_with_plugins;
use crate::cli::LockArgs;
use crate::config::{self, PluginSettings, Settings, Signatures};
use crate::exit::Exit;
use crate::loader::{Locked, PluginsLock, Refusal, Trust, inspect};

const FILE_NAME: &str = "plugins.lock";

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a Path,
    plugins: &'a [Locked],
    changes: &'a [String],
}

/// The same where nothing is written.
#[derive(Serialize)]
struct Unwritten<'a> {
    file: &'a Path,
    /// All of them.
    refused: Vec<Refused>,
}

/// Writes the lock.
#[must_use]
pub fn run(args: LockArgs) -> Exit {
    let LockArgs { out, json, configuration } = args;
    let beside = configuration.files.first().cloned();
    let settings = match settings_with_plugins(configuration, "lock") {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let file = out.or_else(|| settings.trust.require_lock.clone());
    let file = file.unwrap_or_else(|| beside_config(beside.as_deref()));
    let place = match LockFile::find(&file) {
        Ok(place) => place,
        Err(sentence) => {
            output::trouble(&output::shown(&sentence));
            return Exit::Usage;
        }
    };
    let chosen = match choose(&settings) {
        Ok(chosen) => chosen,
        Err(refusals) => {
            if json {
                let refused = refusals.iter().map(Refused::from).collect();
                output::json(&Unwritten { file: &file, refused });
            }
            refusals.iter().for_each(output::refusal);
            output::trouble(&format!("{} is not written", file.display()));
            return Exit::PluginRefused;
        }
    };
    let lock = PluginsLock::new(with_other_targets(chosen, &place.before));
    let text = match lock.text() {
        Ok(text) => text,
        Err(error) => {
            output::trouble(&format!("the lock cannot be written ({error}): a fault of cardcage"));
            return Exit::Unexpected;
        }
    };
    if let Err(error) = place.replace(&text) {
        output::trouble(&format!(
            "{} cannot be written ({error}); check the folder and its permissions",
            file.display()
        ));
        return Exit::Unexpected;
    }
    let changes = changes(&place.before, &lock.plugins);
    if json {
        output::json(&Answer { file: &file, plugins: &lock.plugins, changes: &changes });
    } else {
        output::result(&report(&file, &lock, &changes));
    }
    Exit::Success
}

/// Where the lock is when nobody says so.
pub(super) fn beside_config(config: Option<&Path>) -> PathBuf {
    config.map_or_else(|| PathBuf::from(FILE_NAME), |config| config.with_file_name(FILE_NAME))
}

/// What every configured library is, previous ones too, or why some cannot be chosen.
fn choose(settings: &Settings) -> Result<Vec<Locked>, Vec<Refusal>> {
    // Who signed a file is written down whether or not hosts ask today.
    let signatures = match settings.trust.signatures {
        Signatures::Off => Signatures::Warn,
        asked => asked,
    };
    let trust = Trust::read(&config::Trust { require_lock: None, signatures, ..settings.trust.clone() });
    let (mut chosen, mut refusals) = (Vec::new(), Vec::new());
    let libraries = |(name, plugin): (&'_ String, &'_ PluginSettings)| {
        plugin.libraries().map(|file| (name.clone(), file.clone())).collect::<Vec<_>>()
    };
    for (name, file) in settings.plugins.iter().flat_map(libraries) {
        let (inspection, bytes) = match inspect::file(&file) {
            Ok(inspected) => inspected,
            Err(refusal) => {
                refusals.push(refusal.of(&name));
                continue;
            }
        };
        let judgement = trust.judge(&file, &inspection, &bytes);
        let unfit = inspect::verdict(&file, &inspection).err();
        if unfit.is_none() && judgement.refusals.is_empty() {
            let signer = judgement.signed.map(|signed| signed.key.to_string());
            chosen.push(Locked::of(&inspection, inspect::sha256(&bytes), signer));
        }
        refusals.extend(judgement.refusals.into_iter().chain(unfit));
    }
    if refusals.is_empty() { Ok(chosen) } else { Err(refusals) }
}

fn with_other_targets(mut chosen: Vec<Locked>, before: &[Locked]) -> Vec<Locked> {
    let kept: Vec<Locked> = before
        .iter()
        .filter(|old| {
            let mut same = chosen.iter().filter(|new| new.name == old.name).peekable();
            same.peek().is_some() && same.all(|new| new.target != old.target)
        })
        .cloned()
        .collect();
    chosen.extend(kept);
    chosen
}

fn changes(before: &[Locked], after: &[Locked]) -> Vec<String> {
    let short = |one: &Locked| {
        let signer = one.signer.as_deref().map_or("unsigned".to_owned(), |key| format!("signed by {key}"));
        format!("{} {} ({:.12}…, {signer})", one.name, one.version, one.sha256)
    };
    let gone = before.iter().filter(|one| !after.contains(one)).map(|one| format!("- {}", short(one)));
    let new = after.iter().filter(|one| !before.contains(one)).map(|one| format!("+ {}", short(one)));
    gone.chain(new).collect()
}

fn report(file: &Path, lock: &PluginsLock, changes: &[String]) -> String {
    let mut table = output::table();
    table.set_header(["plugin", "version", "target", "sha256", "signer"]);
    for Locked { name, version, target, sha256, signer, .. } in &lock.plugins {
        let signer = signer.as_deref().unwrap_or("none");
        table.add_row([name, version, target, &format!("{sha256:.12}…"), signer].map(output::shown));
    }
    let mut text = table.trim_fmt();
    let _ = match changes {
        [] => write!(text, "\n{} is as it was", file.display()),
        some => write!(text, "\n{} is written:\n{}", file.display(), some.join("\n")),
    };
    text
}
