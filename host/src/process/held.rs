//! The libraries that a supervisor's children are started with, for as long as the plan is the same.
//!
//! ```text
//! child: judged ─▶ held: the copy is open here ─▶ the next child is told of it
//! another plan ─▶ nothing is held for it: its first child reads the libraries from where they lie
//! ```
//!
//! Invariant: once a child has judged a library, no other bytes are loaded in its name until a reload, whatever happens to the
//! file in the configuration, or to the copy.
//!
//! What it refuses: it judges nothing, and reads no library.

use crate::loader::Judged;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Open copies, by digest: the seats of a host share them, for there may be more seats than a process may have files.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<String, Weak<File>>>>);

impl Shelf {
    fn open(&self, judged: &Judged) -> std::io::Result<Arc<File>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = files.get(&judged.digest).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(judged.open()?);
        files.insert(judged.digest.clone(), Arc::downgrade(&file));
        Ok(file)
    }

    fn replace(&self, judged: &Judged, file: File) -> Arc<File> {
        let file = Arc::new(file);
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(judged.digest.clone(), Arc::downgrade(&file));
        file
    }
}

#[derive(Debug)]
struct One {
    judged: Judged,
    file: Arc<File>,
}

/// What is held for the children of one plan. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Held {
    shelf: Shelf,
    libraries: Arc<Mutex<BTreeMap<PathBuf, One>>>,
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf, libraries: Arc::default() }
    }

    /// Nothing, for the children of another plan.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.shelf.clone())
    }

    /// Holds what a child has judged.
    pub(super) fn hold(&self, judged: Judged) {
        match self.shelf.open(&judged) {
            Ok(file) => {
                let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
                libraries.entry(judged.library.clone()).or_insert(One { judged, file });
            }
            Err(error) => {
                let (file, copy) = (judged.library.display(), judged.copy.display());
                tracing::warn!(%file, %copy, %error, "a library's copy cannot be held; after a crash its file is read again");
            }
        }
    }

    /// What the next child is told, with every copy where it was. Writes only where one is gone.
    pub(super) fn ready(&self) -> Vec<Judged> {
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        for One { judged, file } in libraries.values_mut() {
            match judged.put_back(file) {
                Ok(None) => {}
                Ok(Some(other)) => *file = self.shelf.replace(judged, other),
                Err(error) => {
                    let (file, copy) = (judged.library.display(), judged.copy.display());
                    tracing::warn!(%file, %copy, %error, "the copy of a library that is served cannot be put back");
                }
            }
        }
        libraries.values().map(|one| one.judged.clone()).collect()
    }
}
