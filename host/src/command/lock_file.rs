//! The file that `cardcage plugin lock` writes.
//!
//! A mistyped `--out` must not cost a configuration, and a lock that a newer cardcage wrote may say what this one would forget.
//!
//! Invariants: nothing but a lock of a format that this host reads is ever replaced, and it is replaced in one step; a link stays
//! one, and the file that it leads to is written.

use std::io::{Error, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::loader::{Locked, PluginsLock};

/// As many links in a row as Linux follows.
const LINKS_MAX: usize = 40;

/// Where a lock goes.
#[derive(Debug)]
pub(super) struct LockFile {
    /// Where links lead to.
    target: PathBuf,
    /// What is locked there.
    pub(super) before: Vec<Locked>,
}

impl LockFile {
    /// Looks at what is there.
    ///
    /// # Errors
    /// A sentence about what may not be replaced.
    pub(super) fn find(file: &Path) -> Result<Self, String> {
        let kept = |why: &str| {
            format!(
                "{}: {why}, so it is not replaced; name another file with --out, or move this one away",
                file.display()
            )
        };
        let before = match std::fs::metadata(file) {
            Ok(_) => PluginsLock::read(file).map_err(|why| kept(&why))?.plugins,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(kept(&format!("cannot be looked at ({error})"))),
        };
        let target = target(file).map_err(|error| kept(&format!("cannot be followed ({error})")))?;
        Ok(Self { target, before })
    }

    /// Whoever reads the file meanwhile sees the old one or the new one.
    pub(super) fn replace(&self, text: &str) -> std::io::Result<()> {
        let file = &self.target;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".{name}.{}.{}.tmp", std::process::id(), fastrand::u32(..)));
        let write = || {
            let mut new = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            std::fs::rename(&temporary, file)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    }
}

/// The file that is meant, which need not be there yet.
fn target(file: &Path) -> std::io::Result<PathBuf> {
    let mut target = file.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::read_link(&target) {
            // Relative to where the link is.
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            // No link, or nothing there.
            Err(_) => return Ok(target),
        }
    }
    Err(Error::other("too many links in a row"))
}
