//! What is saved in a plugin's folder, told apart from what was saved there before.
//!
//! It looks at sizes and times, not at contents, and leaves out what builds and editors make: `target` folders and
//! names that begin with a dot. Links to folders are not followed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// So many files are looked at; a folder with more is no plugin's.
const FILES_MAX: usize = 20_000;
/// So deep: a plugin's own folders, and those of what it vendors.
const DEPTH_MAX: usize = 32;

/// A folder's files at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SourceTree(u64);

impl SourceTree {
    /// Looks at the folder. Blocks shortly.
    pub(super) fn of(folder: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut left = FILES_MAX;
        look(folder, DEPTH_MAX, &mut left, &mut hasher);
        Self(hasher.finish())
    }
}

fn look(folder: &Path, depth: usize, left: &mut usize, hasher: &mut DefaultHasher) {
    // What goes while it is looked at is missed by the next look.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        if name.as_encoded_bytes().starts_with(b".") || (kind.is_dir() && name == "target") || *left == 0 {
            continue;
        }
        *left -= 1;
        name.hash(hasher);
        if kind.is_dir() {
            if depth > 0 {
                look(&entry.path(), depth - 1, left, hasher);
            }
        } else if let Ok(meta) = std::fs::metadata(entry.path()) {
            (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()).hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_added_or_removed_makes_another_tree_and_what_builds_and_editors_make_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["src", "target/debug", ".git"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("src/lib.rs"), "one").unwrap();
        let first = SourceTree::of(folder.path());
        std::fs::write(path("target/debug/lib.so"), "built").unwrap();
        std::fs::write(path(".git/index"), "staged").unwrap();
        std::fs::write(path("src/.lib.rs.swp"), "edited").unwrap();
        assert_eq!(SourceTree::of(folder.path()), first);
        std::fs::write(path("src/lib.rs"), "longer").unwrap();
        let saved = SourceTree::of(folder.path());
        assert_ne!(saved, first);
        std::fs::write(path("src/more.rs"), "").unwrap();
        let added = SourceTree::of(folder.path());
        assert_ne!(added, saved);
        std::fs::remove_file(path("src/more.rs")).unwrap();
        assert_eq!(SourceTree::of(folder.path()), saved);
    }
}
