//! `cardcage plugin package`: builds a plugin as it is deployed, and packs it with what it says of itself.
//!
//! ```text
//! cargo auditable build ─▶ library ─┬▶ inspect: manifest, needs, dependencies   (its bytes)
//!                                   └▶ describe: routes, tasks, schedules       (in a child) ─▶ NAME-VERSION-TARGET.tar.zst
//! ```
//!
//! Invariants: only a library that this host would load is packed; the archive appears by one rename; the bytes that were
//! inspected are the ones that are packed.
//!
//! What it refuses to do: it neither signs nor uploads.

mod build;

use std::path::{Path, PathBuf};

use serde_json::json;

use super::check::describe_file;
use super::output;
use super::session::told;
use crate::cli::{Configuration, PackageArgs};
use crate::config;
use crate::exit::Exit;
use crate::kit::Package;
use crate::loader::{Inspection, Refusal, inspect};

/// Why there is no package: how to exit, and a sentence.
type Trouble = (Exit, String);

/// Builds, packs and writes what came of it.
pub async fn run(args: PackageArgs) -> Exit {
    match package(&args).await {
        Ok(done) if args.json => output::json(&done.json()),
        Ok(done) => output::result(&done.text()),
        Err((exit, sentence)) => return told(exit, &sentence),
    }
    Exit::Success
}

struct Done {
    archive: PathBuf,
    sha256: String,
    size_bytes: usize,
    inspection: Inspection,
    package: Package,
}

async fn package(args: &PackageArgs) -> Result<Done, Trouble> {
    let manifest = args.path.join("Cargo.toml");
    if !manifest.is_file() {
        let fault = format!("{} is not there: name the plugin's folder with --path", manifest.display());
        return Err((Exit::Usage, fault));
    }
    let unexpected = |sentence: String| (Exit::Unexpected, sentence);
    let file = build::library(args).await.map_err(unexpected)?;
    let (inspection, library) = inspect::file(&file).map_err(refused)?;
    inspect::verdict(&file, &inspection).map_err(refused)?;
    if !args.no_audit && inspection.dependencies.is_none() {
        let fault =
            inspection.dependencies_fault.clone().unwrap_or_else(|| "it has no .dep-v0 section".to_owned());
        let file = file.display();
        return Err(unexpected(format!(
            "{file} does not say what it was built from ({fault}): keep that section when stripping, or use --no-audit"
        )));
    }
    let settings = config::load(&Configuration::default().sources())
        .map_err(|errors| (Exit::Config, errors.render(false)))?;
    let name = &inspection.manifest.name;
    let description = describe_file(name, &file, &settings).await.map_err(|error| match error {
        Ok(refusal) => refused(refusal),
        Err(sentence) => unexpected(sentence),
    })?;
    let file_name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let package = Package::new(&file_name, library, &inspection, &description).map_err(unexpected)?;
    let bytes = package.pack().map_err(unexpected)?;
    let folder = args.out.clone().unwrap_or_else(|| args.path.join("packages"));
    let archive = folder.join(package.file_name());
    write(&archive, &bytes).map_err(|error| {
        unexpected(format!(
            "{} cannot be written ({error}): name another folder with --out",
            archive.display()
        ))
    })?;
    Ok(Done { archive, sha256: inspect::sha256(&bytes), size_bytes: bytes.len(), inspection, package })
}

fn refused(refusal: Refusal) -> Trouble {
    (Exit::PluginRefused, output::refusal_text(&refusal))
}

fn write(archive: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(archive.parent().unwrap_or(Path::new(".")))?;
    let unfinished = archive.with_extension(format!("zst.{}", std::process::id()));
    let written = std::fs::write(&unfinished, bytes).and_then(|()| std::fs::rename(&unfinished, archive));
    if written.is_err() {
        // What is left of it is of no use; the first error is the one that counts.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

impl Done {
    fn json(&self) -> serde_json::Value {
        let files: Vec<serde_json::Value> = self
            .package
            .files
            .iter()
            .map(|(name, content)| {
                json!({ "name": name, "size_bytes": content.len(), "sha256": inspect::sha256(content) })
            })
            .collect();
        json!({
            "archive": self.archive,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "manifest": self.inspection.manifest,
            "audited": self.inspection.dependencies.is_some(),
            "files": files,
        })
    }

    fn text(&self) -> String {
        let manifest = &self.inspection.manifest;
        let dependencies = match &self.inspection.dependencies {
            Some(some) => format!("{} crates, listed in the library", some.len()),
            None => "not listed".to_owned(),
        };
        let revision = if manifest.git_revision.is_empty() { "none" } else { &manifest.git_revision };
        let files: Vec<&str> = self.package.files.iter().map(|(name, _)| name.as_str()).collect();
        let mut table = output::table();
        for (name, value) in [
            ("package", self.archive.display().to_string()),
            ("size", format!("{} bytes", self.size_bytes)),
            ("sha256", self.sha256.clone()),
            ("plugin", format!("{} {}", manifest.name, manifest.version)),
            ("target", manifest.target.clone()),
            ("git revision", revision.to_owned()),
            ("built from", dependencies),
            ("files", files.join(", ")),
        ] {
            table.add_row([name.to_owned(), output::shown(&value)]);
        }
        table.trim_fmt()
    }
}
