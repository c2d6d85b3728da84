//! Files that somebody else delivers, opened so that none of them can hold us up or fill our memory.
//!
//! Opening a pipe waits for whoever writes into it, for ever where nobody does; a device has no end. A check by path before the opening would
//! look at another file than the one that is then read.
//!
//! Invariants: opening never waits for another process; what is looked at is what is read; never more is read than was asked for.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a file for reading; anything but a regular file is an error.
///
/// # Errors
/// It cannot be opened, or [`is_other_kind`].
pub fn open(path: &Path) -> Result<File> {
    // The flag says nothing about regular files, and keeps the opening of a pipe from waiting.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Whether something is there that is no regular file.
#[must_use]
pub fn is_other_kind(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidInput && error.raw_os_error().is_none()
}

/// The whole of a file; more than so many bytes are an error.
///
/// # Errors
/// As [`open`]; also what is too long.
pub fn bytes(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > max_bytes {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// The whole text of a file; more than so many bytes are an error.
///
/// # Errors
/// As [`bytes()`]; also what is no text.
pub fn text(path: &Path, max_bytes: u64) -> Result<String> {
    String::from_utf8(bytes(path, max_bytes)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_and_folders_are_refused_at_once_and_too_long_ones_too() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null"), folder.path()] {
            assert!(is_other_kind(&open(path).unwrap_err()), "{}", path.display());
            assert!(text(path, 10).is_err(), "{}", path.display());
        }
        let missing = open(&folder.path().join("missing")).unwrap_err();
        assert!(missing.kind() == ErrorKind::NotFound && !is_other_kind(&missing));
        std::fs::write(&file, "ten bytes.").unwrap();
        assert_eq!(text(&file, 10).unwrap(), "ten bytes.");
        assert_eq!(text(&file, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
