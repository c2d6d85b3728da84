//! Private copies of libraries, named by content.
//!
//! glibc finds an already open library by path and inode: a file replaced under the same path would give the old
//! code, and a file overwritten in place crashes whoever has it mapped. A copy named by hash has neither fault.

use super::refusal::{Code, Refusal};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A copy that was not used for so long is removed. Much longer than a start takes.
const UNUSED_AFTER: Duration = Duration::from_secs(3600);

/// Another process tidies up for some milliseconds at most, unless it was stopped meanwhile.
const TIDYING_MAX: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What is compared at once: fits into a processor's cache.
const PIECE_BYTES: usize = 128 * 1024;

/// The folder used where none is configured: private to this user.
pub(super) fn default_dir() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let user = rustix::process::geteuid().as_raw();
    runtime.unwrap_or_else(std::env::temp_dir).join(format!("cardcage-{user}"))
}

/// Whether a file of this name was put here by [`Folder::private`]: `<hash>.so`, or `<hash>.<process>.<number>.tmp`. The folder may be one in
/// which an operator keeps libraries, and theirs are not ours to remove.
fn is_copy(name: &str) -> bool {
    let is_hex =
        |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [hash, "so"] => is_hex(hash),
        [hash, process, number, "tmp"] => is_hex(hash) && is_number(process) && is_number(number),
        _ => false,
    }
}

/// Removes the files in `dir` whose names say that they are ours, and that nobody has used for so long.
pub(super) fn remove_unused(dir: &Path, unused_after: Duration, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(&is_ours);
        let age =
            entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
        if is_ours && age.is_ok_and(|age| age > unused_after) {
            // Another host may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether the file holds these bytes and no others. Read piece by piece: a second copy of a large library in memory costs more
/// than the reading.
fn holds(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = std::fs::File::open(path)?;
    if usize::try_from(file.metadata()?.len()).ok() != Some(bytes.len()) {
        return Ok(false);
    }
    let mut piece = vec![0; PIECE_BYTES];
    for expected in bytes.chunks(PIECE_BYTES) {
        let Some(there) = piece.get_mut(..expected.len()) else { return Ok(false) };
        file.read_exact(there)?;
        if there != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nobody removes copies from the folder while this is held. Dropped, or with its process, it is free.
pub(super) struct InUse(#[expect(dead_code, reason = "holds the lock for as long as it is open")] OwnedFd);

impl InUse {
    /// Removes the copies that no start has used for a while, unless the folder is in use, and takes it into use then. Hosts that have such a copy
    /// open keep what they have, and whoever needs one again copies it again.
    ///
    /// `None` where the file system knows no locks, and where another process is stopped while it tidies up.
    pub(super) fn tidied(dir: &Path) -> Option<Self> {
        let folder = open_folder(dir).ok()?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            // Where there are no locks, what was used lately is safe all the same.
            _ => remove_unused(dir, UNUSED_AFTER, is_copy),
        }
        let deadline = Instant::now() + TIDYING_MAX;
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Some(Self(folder)),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
                Err(_) => return None,
            }
        }
    }

    /// Takes the folder into use as it is; waits for nobody, and is `None` where somebody tidies it up.
    pub(super) fn plain(dir: &Path) -> Option<Self> {
        let folder = open_folder(dir).ok()?;
        flock(&folder, FlockOperation::NonBlockingLockShared).ok().map(|()| Self(folder))
    }
}

fn open_folder(dir: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The folder of copies, looked at once for a whole plugin set, and in use until this is dropped. From then on the time of its last use
/// keeps a copy until it is opened.
pub(super) struct Folder {
    dir: PathBuf,
    /// Why no copy may be put there, and the remedy.
    unfit: Option<(String, &'static str)>,
    _in_use: Option<InUse>,
}

impl Folder {
    /// Makes it where it is missing, and tidies it up.
    pub(super) fn open(dir: PathBuf) -> Self {
        let unfit = judge(&dir).err();
        let in_use = if unfit.is_none() { InUse::tidied(&dir) } else { None };
        Self { dir, unfit, _in_use: in_use }
    }

    /// Writes the bytes to `<dir>/<hash>.so` unless they are there, and answers that path.
    pub(super) fn private(&self, original: &Path, hash: &str, bytes: &[u8]) -> Result<PathBuf, Refusal> {
        if let Some((fault, remedy)) = &self.unfit {
            return Err(Refusal::new(original, Code::Unreadable, fault.clone(), *remedy));
        }
        let path = self.dir.join(format!("{hash}.so"));
        if holds(&path, bytes).unwrap_or(false) {
            // Used now: not to be tidied away before it is opened.
            let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            return Ok(path);
        }
        write(&path, hash, &mut &*bytes).map_err(|error| {
            let (fault, remedy) = uncopied(&self.dir, &error);
            Refusal::new(original, Code::Unreadable, fault, remedy)
        })?;
        Ok(path)
    }
}

fn uncopied(dir: &Path, error: &std::io::Error) -> (String, &'static str) {
    (format!("cannot be copied to {} ({error})", dir.display()), "make `loading.cache_dir` writable")
}

/// Makes the folder. One in a shared place must not be another user's: they could swap the libraries.
fn judge(dir: &Path) -> Result<(), (String, &'static str)> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| uncopied(dir, &error))?;
    let meta = rustix::fs::lstat(dir).map_err(|errno| uncopied(dir, &errno.into()))?;
    if meta.st_uid != rustix::process::geteuid().as_raw() || meta.st_mode & 0o022 != 0 {
        let fault = format!("cannot be copied: others may write to {}", dir.display());
        return Err((fault, "set `loading.cache_dir` to a folder of your own"));
    }
    Ok(())
}

/// Writes a copy to its path, whole or not at all.
pub(super) fn write(path: &Path, hash: &str, bytes: &mut dyn Read) -> std::io::Result<()> {
    let temporary = path.with_file_name(format!("{hash}.{}.{}.tmp", std::process::id(), fastrand::u32(..)));
    let mut write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o500).open(&temporary)?;
        std::io::copy(bytes, &mut file)?;
        drop(file);
        // Atomic: another process that does the same at once writes the same bytes.
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copies_that_no_start_has_used_for_a_while_are_tidied_away() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "0a".repeat(32);
        let (old, fresh) = (format!("{hash}.so"), format!("{}.so", "0b".repeat(32)));
        let half = format!("{hash}.12.34.tmp");
        let theirs = [
            "liborders.so".to_owned(),
            "notes.tmp".to_owned(),
            format!("{}.so", "0A".repeat(32)),
            format!("{hash}0.so"),
            format!("{hash}.tmp"),
            format!("{hash}.12.x.tmp"),
            format!("{hash}.1.so"),
        ];
        for name in theirs.iter().chain([&old, &fresh, &half]) {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            let age = if *name == fresh { Duration::ZERO } else { UNUSED_AFTER * 2 };
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let is_there = |name: &String| folder.path().join(name).exists();
        let in_use = InUse::plain(folder.path()).unwrap();
        let other = InUse::tidied(folder.path()).unwrap();
        assert!(is_there(&old) && is_there(&half), "somebody may be about to open them");
        drop((in_use, other));
        assert!(InUse::tidied(folder.path()).is_some());
        assert!(!is_there(&old) && !is_there(&half) && is_there(&fresh));
        for name in &theirs {
            assert!(is_there(name), "{name}");
        }
    }

    #[test]
    fn file_holds_bytes_only_if_all_of_them_are_there_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|n| (n % 251) as u8).collect();
        let holds_after = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut there = bytes.clone();
            change(&mut there);
            std::fs::write(&path, there).unwrap();
            holds(&path, &bytes).unwrap()
        };
        assert!(holds_after(&|_| ()));
        assert!(!holds_after(&|there| there.push(0)));
        assert!(!holds_after(&|there| there.truncate(there.len() - 1)));
        for at in [0, PIECE_BYTES - 1, PIECE_BYTES, bytes.len() - 1] {
            assert!(!holds_after(&|there| there[at] ^= 1), "{at}");
        }
        assert!(holds(&folder.path().join("missing"), &bytes).is_err());
    }
}
