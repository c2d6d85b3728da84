//! What the child before had of each library, so that the next one gets the same.
//!
//! A library may be overwritten while a host serves it: half of it is there, or another version that nobody has judged. A child
//! that starts in the place of a dead one asks nobody what lies there now; that is a reload's business. So each child tells its
//! supervisor which bytes it has judged, and is told those that one before it has.
//!
//! # Invariants
//! * Bytes are judged once in the life of a plan, and are told by their digest from then on.
//! * A library of which no child had anything is read from where it lies.
//!
//! # What it refuses
//! It keeps nothing: whoever outlives the children does (`process/held.rs`).

use super::copy::{self, InUse};
use super::inspect::{self, Inspection};
use super::refusal::{Code, Refusal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A library that was judged fit, as a private copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Where the configuration says that it lies.
    pub library: PathBuf,
    /// The private copy.
    pub copy: PathBuf,
    /// What tells the bytes of both from all others, hex.
    pub digest: String,
}

impl Judged {
    /// Opens the copy, which can be put back from it for as long as it is held.
    ///
    /// # Errors
    /// It is gone, or cannot be read.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.copy)
    }

    /// Sees to it that the copy is where it was, and is not tidied away before it is used; answers the file that stands there
    /// now, where it is another one.
    ///
    /// # Errors
    /// It is gone and cannot be written.
    pub fn put_back(&self, held: &File) -> io::Result<Option<File>> {
        // Not to be tidied away by another host between the look and the mark, unless it is at that just now.
        let _in_use = self.copy.parent().and_then(InUse::plain);
        let inode = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        if let Ok(there) = self.open()
            && inode(&there)? == inode(held)?
        {
            // In use. Where it cannot be marked it is put back one day.
            let _ = there.set_modified(SystemTime::now());
            return Ok(None);
        }
        if let Some(dir) = self.copy.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // Opened anew: where it is read from must not hang on what others have read of it.
        let mut bytes = File::open(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
        copy::write(&self.copy, &self.digest, &mut bytes)?;
        self.open().map(Some)
    }

    /// Reads it: the copy, or what lies at its place in the configuration if that is still the same.
    pub(super) fn read_into(&self, bytes: &mut Vec<u8>) -> Result<Inspection, Refusal> {
        let places = [&self.copy, &self.library].into_iter();
        let mut read = places.filter_map(|path| {
            let inspection = inspect::file_into(path, bytes).ok()?;
            (inspect::digest(bytes) == self.digest).then_some(inspection)
        });
        read.next().ok_or_else(|| {
            let fault =
                format!("has changed, and the copy of what was judged, {}, is gone", self.copy.display());
            let remedy = "run `cardcage reload`, which judges what is there now";
            Refusal::new(&self.library, Code::Unreadable, fault, remedy)
        })
    }
}

type Tell = Arc<dyn Fn(Judged) + Send + Sync>;

/// What is known of libraries that a child before this one had, and who is told of others. Clones are the same.
#[derive(Clone, Default)]
pub struct Served {
    known: Arc<[Judged]>,
    tell: Option<Tell>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Served").field(&self.known).finish()
    }
}

impl Served {
    /// What a child before this one had; `tell` is called with each library that is judged here.
    pub fn new(known: Vec<Judged>, tell: impl Fn(Judged) + Send + Sync + 'static) -> Self {
        Self { known: known.into(), tell: Some(Arc::new(tell)) }
    }

    pub(super) fn of(&self, library: &Path) -> Option<&Judged> {
        self.known.iter().find(|one| one.library == library)
    }

    pub(super) fn tell(&self, judged: Judged) {
        if let Some(tell) = &self.tell {
            tell(judged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_that_was_removed_or_replaced_is_put_back_and_one_that_is_there_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.so");
        std::fs::write(&copy, "bytes").unwrap();
        let judged = Judged { library: "lib.so".into(), copy: copy.clone(), digest: "0a".repeat(32) };
        let held = judged.open().unwrap();
        assert!(judged.put_back(&held).unwrap().is_none());
        std::fs::remove_file(&copy).unwrap();
        let held = judged.put_back(&held).unwrap().unwrap();
        assert!(judged.put_back(&held).unwrap().is_none(), "it is there again");
        std::fs::write(folder.path().join("other"), "noise").unwrap();
        std::fs::rename(folder.path().join("other"), &copy).unwrap();
        assert!(judged.put_back(&held).unwrap().is_some());
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "bytes");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    }
}
