//! What a library must be to stand beside the current one of its plugin: that plugin, in another major.
//!
//! Invariant: it is judged by the manifest, before any of the library's code runs.

use super::inspect::Manifest;
use super::refusal::{Code, Refusal};
use std::path::Path;

/// Judges a previous library of a plugin; `earlier` are the libraries before it: the current one, and previous ones.
///
/// # Errors
/// The refusal of another plugin, and of one whose major an earlier library has.
pub fn judge<'a>(
    plugin: &str,
    library: &Path,
    manifest: &Manifest,
    earlier: impl IntoIterator<Item = (&'a Path, &'a Manifest)>,
) -> Result<(), Refusal> {
    let Manifest { name, version, .. } = manifest;
    let refuse = |code, fault: String, remedy: &str| {
        let remedy = format!("take it out of `plugins.{plugin}.previous`{remedy}");
        Err(Refusal::new(library, code, fault, remedy).of(plugin))
    };
    if name != plugin {
        let fault = format!("is the plugin `{name}` {version}, but is a previous library of `{plugin}`");
        return refuse(Code::NameMismatch, fault, ", or put the right file there");
    }
    let is_twin = |(_, other): &(&Path, &Manifest)| other.name == *name && other.major() == manifest.major();
    let Some((file, twin)) = earlier.into_iter().find(is_twin) else { return Ok(()) };
    let fault = format!(
        "is {name} {version}, of the same major as {} ({}), which comes before it",
        file.display(),
        twin.version
    );
    refuse(Code::SameMajor, fault, ": one library runs all tasks of a major")
}
