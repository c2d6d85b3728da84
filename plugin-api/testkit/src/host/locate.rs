//! Where the programs and libraries are that a bench starts. It finds; it neither builds nor downloads.

use crate::{Error, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The host: `CARDCAGE_BIN`, else the one built beside the test, else the one in `PATH`.
pub(crate) fn cardcage() -> Result<PathBuf> {
    let built = profile_folder().map(|folder| folder.join("cardcage")).filter(|path| path.is_file());
    program("CARDCAGE_BIN", built, "cardcage", "install `cardcage`")
}

/// The broker: `CARDCAGE_NATS_SERVER`, else `.tools/nats-server` in this folder or one above it, else the one in `PATH`.
pub(crate) fn nats_server() -> Result<PathBuf> {
    let here = env::current_dir().unwrap_or_default();
    let fetched =
        here.ancestors().map(|folder| folder.join(".tools/nats-server")).find(|path| path.is_file());
    program("CARDCAGE_NATS_SERVER", fetched, "nats-server", "install nats-server 2.15.1 or newer")
}

fn program(variable: &str, found: Option<PathBuf>, name: &str, remedy: &str) -> Result<PathBuf> {
    match env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_file() => return Ok(path),
        Some(path) => {
            let path = path.display();
            return Err(Error::new(format!(
                "{variable} names {path}, which is no file; correct or unset it"
            )));
        }
        None => {}
    }
    let in_path = || {
        let folders = env::var_os("PATH")?;
        env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    found.or_else(in_path).ok_or_else(|| {
        Error::new(format!("there is no `{name}` to start; {remedy}, or let {variable} name it"))
    })
}

/// The library of a package of this workspace, such as `env!("CARGO_PKG_NAME")`.
///
/// It lies beside the running test, where cargo built it. `cargo test` builds it where the package has a test in
/// `tests/`; else `cargo build` does. `CARDCAGE_LIBRARY` names another file.
///
/// # Errors
/// It is not there, or older than a source file that it was built from: a test of yesterday's plugin proves nothing.
pub fn library(package: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os("CARDCAGE_LIBRARY").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Error::new(format!("CARDCAGE_LIBRARY names {}, which is no file", path.display())))
        };
    }
    let folder = profile_folder().ok_or_else(|| Error::new("nobody knows which test this is"))?;
    let stem = format!("lib{}", package.replace('-', "_"));
    let file = format!("{stem}.so");
    let candidates = [folder.join("deps").join(&file), folder.join(&file)];
    let newest = candidates.into_iter().filter_map(|path| Some((modified(&path)?, path))).max();
    let Some((built, path)) = newest else {
        let missing = folder.join(&file);
        return Err(Error::new(format!("{} is missing; run `cargo build` first", missing.display())));
    };
    match newer_source(&folder.join(format!("{stem}.d")), built) {
        None => Ok(path),
        Some(source) => Err(Error::new(format!(
            "{} is older than {}; run `cargo build` first",
            path.display(),
            source.display()
        ))),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// A file that cargo lists as a source of the library and that was changed since.
fn newer_source(list: &Path, built: SystemTime) -> Option<PathBuf> {
    let text = std::fs::read_to_string(list).ok()?;
    let (_, sources) = text.split_once(": ")?;
    // Spaces in names are written `\ `.
    let sources = sources.trim().replace("\\ ", "\0");
    let mut sources = sources.split(' ').map(|name| PathBuf::from(name.replace('\0', " ")));
    sources.find(|source| modified(source).is_some_and(|changed| changed > built))
}

/// `target/<profile>`: a test runs in its `deps`, an example in its `examples`.
fn profile_folder() -> Option<PathBuf> {
    let exe = env::current_exe().ok()?;
    let folder = exe.parent()?;
    let nested = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    Some(if nested { folder.parent()? } else { folder }.to_owned())
}
