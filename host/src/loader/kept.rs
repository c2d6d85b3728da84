//! What libraries declared, kept beside their private copies by the hash of the library and by who was told.
//!
//! What a library says of itself may hang on the environment, which is one for all children of a supervisor and no longer. So
//! it is kept for a supervisor, under its instance's name: its next child asks nobody.
//!
//! # Invariants
//! * Only a plain file of this user's that nobody else may read or write is believed; the folder was judged by `copy.rs`.
//! * Keeping never fails a start: what cannot be kept is asked for again.

use super::copy;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is kept for a supervisor that was not heard of for so long is removed.
const UNUSED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A larger one is not believed.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
const ENDING: &str = ".declared.json";

fn path(dir: &Path, hash: &str, keeper: &str) -> PathBuf {
    dir.join(format!("{hash}.{keeper}{ENDING}"))
}

/// What was kept of the library of this hash.
pub(super) fn read(dir: &Path, hash: &str, keeper: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(rustix::fs::open(path(dir, hash, keeper), flags, Mode::empty()).ok()?);
    let meta = file.metadata().ok()?;
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if !is_ours || !meta.is_file() || meta.len() > BYTES_MAX {
        return None;
    }
    let mut json = Vec::new();
    file.read_to_end(&mut json).ok()?;
    // In use: not to be tidied away. Where it cannot be marked it is asked for again one day.
    let _ = file.set_modified(SystemTime::now());
    Some(json)
}

/// Keeps it, where that is possible.
pub(super) fn write(dir: &Path, hash: &str, keeper: &str, json: &[u8]) {
    let temporary = dir.join(format!("{hash}.{}.{}.tmp", std::process::id(), fastrand::u32(..)));
    let kept = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(json))
        .and_then(|()| std::fs::rename(&temporary, path(dir, hash, keeper)));
    if let Err(error) = kept {
        tracing::debug!(%error, "what a library declares could not be kept");
        let _ = std::fs::remove_file(&temporary);
    }
}

/// Removes what is kept for supervisors that are gone.
pub(super) fn tidy(dir: &Path) {
    copy::remove_unused(dir, UNUSED_AFTER, |name| name.ends_with(ENDING));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_believed_only_where_nobody_else_could_have_written_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(read(dir, "hash", "api-1"), None);
        write(dir, "hash", "api-1", b"{}");
        assert_eq!(read(dir, "hash", "api-1").as_deref(), Some(&b"{}"[..]));
        assert_eq!(read(dir, "hash", "api-2"), None, "another supervisor has another environment");
        let kept = path(dir, "hash", "api-1");
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(read(dir, "hash", "api-1"), None, "others may write it");
        let elsewhere = dir.join("elsewhere");
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&kept, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &kept).unwrap();
        assert_eq!(read(dir, "hash", "api-1"), None, "a link");
    }
}
