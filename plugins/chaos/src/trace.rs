//! What really ran: one line per attempt that came to a good end, in a file that outlives every process.
//!
//! A record says what the host believes; this says what happened. A line is one `write` to a file opened for appending,
//! so processes that share the file do not mix, and one that is killed afterwards has left its line.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// The file, if there is one. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Option<Arc<File>>);

impl Trace {
    /// Appends to `path`, which is made if it is missing.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        File::options().create(true).append(true).open(path).map(|file| Self(Some(Arc::new(file))))
    }

    /// An attempt came to a good end.
    pub(crate) fn note(&self, id: impl std::fmt::Display, attempt: u32) -> std::io::Result<()> {
        match &self.0 {
            Some(file) => file.as_ref().write_all(format!("{id} {attempt}\n").as_bytes()),
            None => Ok(()),
        }
    }
}
