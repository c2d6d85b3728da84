//! The bytes of a library, told apart from others.
//!
//! Whoever builds or copies writes a file anew also where nothing in it changes; only its bytes say so.
//!
//! Invariant: what is answered is of the file that was looked at, not of one that took its place meanwhile.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::loader::inspect::LIBRARY_MAX_BYTES;
use crate::regular_file;

/// So much is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a file is told apart by without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Fingerprint {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
        })
    }
}

/// A file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content(u64);

impl Content {
    /// Reads the file: a moment's work, as it is in the kernel's memory when it was just written or loaded. `None` where it
    /// cannot be read, is larger than any library, or is another than `seen` by now.
    pub(super) fn of(path: &Path, seen: Fingerprint) -> Option<Self> {
        if seen.size > LIBRARY_MAX_BYTES {
            return None;
        }
        let mut file = regular_file::open(path).ok()?.take(LIBRARY_MAX_BYTES);
        let mut hasher = DefaultHasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => hasher.write(chunk.get(..length)?),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        (Fingerprint::of(path) == Some(seen)).then(|| Self(hasher.finish()))
    }
}
